"""BUSI: breast ultrasound, benign, malignant and normal, with lesion masks."""

import re
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from arl.corpus.pixels import perceptual_hash
from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused
from arl.corpus.splits import DEFAULT, stratified
from arl.ingest.folders import locate, member, pictures, refuse_all
from arl.ingest.pictures import read_binary, read_picture
from arl.ingest.source import Source, without_options

_LABELS = ("benign", "malignant", "normal")
_MASK = re.compile(r"(?P<stem>.+?)_mask(_\d+)?", re.IGNORECASE)
_WHITE = 128
# Bits of 64: 210 pairs of BUSI, and none of two patients in BUS-BRA.
_NEAR = 6


def read(root: Path) -> list[Input]:
    """One input for each image, for each mask without one, and for each other file beside them.

    Raises:
        FileNotFoundError: one of the three folders is missing.
        ValueError: several folders hold the layout.
    """
    base = locate(root, *_LABELS)
    folders = {label: pictures(member(base, label)) for label in _LABELS}
    files = [
        (label, stem, file) for label, (named, _) in folders.items() for stem, file in named.items()
    ]
    masks: dict[tuple[str, str], list[Path]] = {}
    for label, stem, file in files:
        if matched := _MASK.fullmatch(stem):
            masks.setdefault((label, matched["stem"]), []).append(file)
    images = {(label, stem): file for label, stem, file in files if not _MASK.fullmatch(stem)}
    splits = _splits(images)
    # BUSI has several masks for an image with several lesions: <stem>_mask, <stem>_mask_1, ...
    listed = [
        Input(
            file.relative_to(root).as_posix(),
            partial(_records, label, file, masks.get((label, stem), []), splits[stem]),
            label,
        )
        for (label, stem), file in images.items()
    ]
    lone = [file for image, parts in masks.items() if image not in images for file in parts]
    strays = [file for _, others in folders.values() for file in others]
    return listed + refuse_all(root, lone, "it has no image") + refuse_all(root, strays)


def _splits(images: dict[tuple[str, str], Path]) -> dict[str, str]:
    """Stem -> split; near pictures are in one split, each class in equal proportion."""
    positions: list[int] = []
    hashes: list[int] = []
    for position, file in enumerate(images.values()):
        # A damaged picture stands alone here, and is refused when its input is read.
        with suppress(Refused):
            hashes.append(perceptual_hash(read_picture(file)))
            positions.append(position)
    codes, index = np.array(hashes, np.uint64), np.array(positions, np.int64)
    # The set is small, so all pairs fit into memory one row at a time.
    near = [np.flatnonzero(np.bitwise_count(codes ^ code) <= _NEAR) for code in codes]
    rows = np.repeat(index, [len(others) for others in near])
    columns = index[np.concatenate(near)] if near else rows
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), (len(images), len(images)))
    cluster = connected_components(graph, directed=False)[1]
    groups = {stem: str(number) for (_, stem), number in zip(images, cluster, strict=True)}
    return stratified({stem: label for label, stem in images}, groups)


def _records(label: str, file: Path, masks: list[Path], split: str) -> list[Record]:
    image = read_picture(file)
    mask = _lesion(image, label, masks)
    entry = Entry(
        key=file.stem,
        anatomy="breast",
        probe="linear",
        device="GE LOGIQ E9",
        label=label,
        mask_name=None if mask is None else "lesion",
        splits={DEFAULT: split},
    )
    return [Record(image, entry, mask)]


def _lesion(image: Pixels, label: str, masks: list[Path]) -> Mask | None:
    if not masks:
        return None
    mask = np.zeros(image.shape[:2], np.bool_)
    for part in masks:
        mask |= read_binary(part, image, _WHITE)
    if label == "normal":
        if mask.any():
            raise Refused(f"it is normal, but {masks[0].name} is not empty")
        return None
    if not mask.any():
        raise Refused(f"{masks[0].name} is empty")
    return mask


SOURCE = Source(
    name="busi",
    title=(
        "BUSI: breast ultrasound, benign, malignant and normal, with lesion masks "
        "(Al-Dhabyani et al., Data in Brief 2020)."
    ),
    read=without_options(read),
    licence="Not stated by the download (open-access article)",
    citation=(
        "W. Al-Dhabyani, M. Gomaa, H. Khaled, A. Fahmy, Dataset of breast ultrasound "
        "images, Data in Brief 28, 104863, 2020, doi:10.1016/j.dib.2019.104863"
    ),
    obtain=("Page of A. Fahmy's scholar site at Cairo University, 'Dataset_BUSI_with_GT'; open"),
    layout=(
        '<root>/{benign,malignant,normal}/"benign (1).png", "benign (1)_mask.png" and, on '
        '17 images, "_mask_1.png", "_mask_2.png"; the layout may lie up to four folders '
        "below the root (Dataset_BUSI_with_GT)"
    ),
    keys='The picture\'s stem, "benign (1)".',
    coding=(
        'label = the folder; mask "lesion" = all masks of an image together, levels >= 128. '
        "Masks of normal images are empty and are left out."
    ),
    patient=(
        "Not published (600 women, 780 images), nor are clips: a split by patient cannot be "
        "claimed. The set is known to hold the same image several times, even as benign and "
        "as malignant: such labels are kept as they are."
    ),
    split=(
        'No official split; "default" is drawn by image, each class in equal proportion; '
        "images whose perceptual hashes nearly agree stay together, so `read` opens all of "
        "them."
    ),
    refuses=(
        "A missing or damaged image or mask, a mask of another size, a benign or malignant "
        "image with an empty mask, a normal image with a mask that is not empty, masks "
        "without an image, and other files. An image without a mask is accepted without "
        "one."
    ),
)

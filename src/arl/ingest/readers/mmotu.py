"""MMOTU, the paper's "Ovarian dataset" as far as can be told: ovarian tumours with masks."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from arl.corpus.anatomy import OTHER
from arl.corpus.record import Entry, Input, Record, Refused
from arl.corpus.splits import DEFAULT, keep_test
from arl.ingest.folders import child, member, pictures, refuse_all, search
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_lines

# Folder -> key.
_PARTS = {"OTU_2d": "OTU_2d", "OTU_3d": "OTU_3d", "OTU_CEUS": "OTU_3d"}
_SPLITS = ("train", "val")
_LABELS = {
    "0": "chocolate-cyst",
    "1": "serous-cystadenoma",
    "2": "teratoma",
    "3": "theca-cell-tumor",
    "4": "simple-cyst",
    "5": "normal-ovary",
    "6": "mucinous-cystadenoma",
    "7": "high-grade-serous",
}
_COLOURS = {
    (64, 0, 0): "chocolate-cyst",
    (0, 64, 0): "serous-cystadenoma",
    (0, 0, 64): "teratoma",
    (64, 0, 64): "theca-cell-tumor",
    (64, 64, 0): "simple-cyst",
    (64, 64, 64): "normal-ovary",
    (0, 128, 0): "mucinous-cystadenoma",
    (0, 0, 128): "high-grade-serous",
}
_BINARY = ("_binary", "_binary_binary")
# Any level: they are 64 and 128, and PNG keeps them.
_VISIBLE = 1


@dataclass
class _Listed:
    """The splits and class codes that the lists give to an image."""

    splits: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)

    def label(self) -> str:
        """The class of the image.

        Raises:
            Refused: the lists give no code, several, or an unknown one.
        """
        if len(self.codes) != 1:
            codes = " and ".join(sorted(self.codes))
            values = f"give it the codes {codes}" if codes else "give it no code"
            raise Refused(f"train_cls.txt and val_cls.txt {values}")
        (code,) = self.codes
        if code not in _LABELS:
            raise Refused(f"code {code!r} is not one of {', '.join(_LABELS)}")
        return _LABELS[code]


def read(root: Path) -> list[Input]:
    """One input for each image that a list or a folder names, and for each other file beside them.

    Raises:
        FileNotFoundError: there is no part, or it lacks a folder or a list.
        ValueError: a list is not text, or several folders hold the layout.
    """
    base = search(root, lambda folder: child(folder, *_PARTS) is not None or _is_part(folder))
    if base is None:
        raise FileNotFoundError(f"neither {root} nor a folder in it holds {' or '.join(_PARTS)}")
    parts = (
        [base]
        if _is_part(base)
        else [part for name in _PARTS if (part := child(base, name)) is not None]
    )
    return [item for part in parts for item in _inputs(root, part)]


def _is_part(folder: Path) -> bool:
    return all(child(folder, name) for name in ("images", "train_cls.txt"))


def _inputs(root: Path, part: Path) -> list[Input]:
    name = next(
        (key for folder, key in _PARTS.items() if folder.lower() == part.name.lower()), "OTU_2d"
    )
    images, strays = pictures(member(part, "images"))
    mask_folder = child(part, "annotations")
    masks, more = pictures(mask_folder) if mask_folder else ({}, [])
    stated = _listed(part)
    listed = [
        Input(
            images[stem].relative_to(root).as_posix() if stem in images else f"{name} {stem}",
            partial(
                _records,
                f"{name}/{stem}",
                images.get(stem),
                masks.get(stem),
                next((masks[stem + end] for end in _BINARY if stem + end in masks), None),
                stated.get(stem, _Listed()),
            ),
        )
        for stem in [*images, *(stem for stem in stated if stem not in images)]
    ]
    names_listed = {stem + ending for stem in images for ending in ("", *_BINARY)}
    lone = (file for stem, file in masks.items() if stem not in names_listed)
    return listed + refuse_all(root, lone, "it has no image") + refuse_all(root, strays + more)


def _listed(part: Path) -> dict[str, _Listed]:
    """Stem -> splits and codes, in the order of the lists."""
    stated: dict[str, _Listed] = {}
    for split in _SPLITS:
        for name in (f"{split}.txt", f"{split}_cls.txt"):
            for _, line in read_lines(member(part, name)):
                image, *code = line.split()
                entry = stated.setdefault(Path(image).stem, _Listed())
                entry.splits.add(split)
                entry.codes.update(code)
    return stated


def _records(
    key: str, file: Path | None, classes: Path | None, binary: Path | None, stated: _Listed
) -> list[Record]:
    if file is None:
        raise Refused("it is listed, but images holds nothing of this name")
    if len(stated.splits) != 1:
        raise Refused(
            "both lists name it" if stated.splits else "neither train.txt nor val.txt lists it"
        )
    label = stated.label()
    # The binary mask shows the lesion; the mask of classes stands in where it is missing.
    drawn = binary or classes
    image = read_picture(file)
    if classes is not None:
        _check_colours(classes, label)
    mask = None if drawn is None else read_mask(drawn, image, _VISIBLE)
    structure = "ovary" if label == "normal-ovary" else "lesion"
    (official,) = stated.splits
    entry = Entry(
        key=key,
        anatomy=OTHER,
        label=label,
        mask_name=None if mask is None else structure,
        splits={
            "official": official,
            DEFAULT: keep_test("test" if official == "val" else official, key),
        },
    )
    return [Record(image, entry, mask)]


def _check_colours(file: Path, label: str) -> None:
    """Refuse a label whose colour is absent while another class's is there."""
    pixels = read_picture(file)
    # The colours of one class only, normal ovary, are grey.
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    # Packed into one number, the few colours are found without sorting triples.
    packed = np.unique(pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    colours = [(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in packed]
    visible = {_COLOURS[colour] for colour in colours if colour in _COLOURS}
    if visible and label not in visible:
        raise Refused(
            f"its code says {label}, but the colours of {file.name} say "
            f"{', '.join(sorted(visible))}"
        )


SOURCE = Source(
    name="mmotu",
    title=(
        'MMOTU, the paper\'s "Ovarian dataset" as far as can be told: ovarian tumours with '
        "masks (Zhao et al., 2022)."
    ),
    read=without_options(read),
    licence="Not stated by the download",
    citation=(
        "Q. Zhao, S. Lyu, W. Bai, L. Cai, B. Liu, M. Wu, X. Sang, M. Yang, L. Chen, A "
        "multi-modality ovarian tumor ultrasound image dataset for unsupervised "
        "cross-domain semantic segmentation, arXiv:2207.06799, 2022"
    ),
    obtain="GitHub cv516Buaa/MMOTU_DS2Net, which links the download; open",
    layout=(
        "<root>/OTU_2d/{images/1.JPG, annotations/1.PNG and 1_binary.PNG (some are called "
        "1_binary_binary.PNG), train.txt, val.txt, train_cls.txt, val_cls.txt}, and the "
        "same below OTU_3d or OTU_CEUS (contrast); either part is enough, up to four "
        "folders below the root."
    ),
    keys="<part>/<stem>",
    coding=(
        'Label by the code of *_cls.txt ("1.JPG 0"): chocolate-cyst, serous-cystadenoma, '
        "teratoma, theca-cell-tumor, simple-cyst, normal-ovary, mucinous-cystadenoma, "
        "high-grade-serous. The colours of 1.PNG say the same and are compared. Mask "
        '"ovary" on a normal ovary, else "lesion" = what 1_binary.PNG shows, without it '
        "what 1.PNG shows."
    ),
    patient=(
        "Not published, and clips are not either. A split by patient cannot be claimed. "
        "1,469 images and 170 with contrast. The anatomy is other: the vocabulary has no "
        "ovary."
    ),
    split=(
        '"official": train.txt and val.txt as they are. "default": val.txt is the test, and '
        "a part of train.txt, drawn by image, is val."
    ),
    refuses=(
        "A missing or damaged image or mask, a mask of another size or empty, a code that "
        "is none of the eight, a code that the colours contradict, an image in both lists, "
        "with two codes or with none, an image that no list names, and other files. An "
        "image without a mask is accepted without one."
    ),
)

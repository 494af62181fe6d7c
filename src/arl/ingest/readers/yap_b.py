"""Yap's Dataset B: breast ultrasound with lesion masks (Yap et al., JBHI 2018)."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from arl.corpus.record import Entry, Input, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, stratified
from arl.ingest.folders import child, locate, member, pictures, refuse_all
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_xlsx

_LABELS = ("benign", "malignant")
_WHITE = 128


def read(root: Path) -> list[Input]:
    """One input for each image, each mask or row without one, and each other file.

    Raises:
        FileNotFoundError: a folder or the table is missing.
        ValueError: the table has no column of numbers or none of labels, or several folders hold
            the layout.
    """
    base = locate(root, "original", "DatasetB.xlsx")
    images, strays = pictures(member(base, "original"))
    mask_folder = child(base, "GT")
    masks, more = pictures(mask_folder) if mask_folder else ({}, [])
    labels = _labels(member(base, "DatasetB.xlsx"), {_number(stem) for stem in images})
    names_listed = {
        stem: result[0]
        for stem in images
        if len(result := sorted(labels.get(_number(stem), ()))) == 1
    }
    splits = stratified(names_listed, {stem: stem for stem in names_listed})
    listed = [
        Input(
            file.relative_to(root).as_posix(),
            partial(
                _records,
                file,
                masks.get(stem),
                tuple(sorted(labels.get(_number(stem), ()))),
                splits.get(stem),
            ),
        )
        for stem, file in images.items()
    ]
    lone = refuse_all(
        root, (mask for stem, mask in masks.items() if stem not in images), "it has no image"
    )
    numbers = {_number(stem) for stem in images}
    gone = [
        refusal(f"DatasetB.xlsx {n}", "original holds nothing of this name")
        for n in labels
        if n not in numbers
    ]
    return listed + lone + gone + refuse_all(root, strays + more)


def _number(cell: str) -> str:
    """A picture's number as the table or the file writes it: 1, 000001, 000001.png."""
    return re.sub(r"\.(png|bmp|jpe?g)$", "", cell.strip().lower()).lstrip("0")


def _labels(file: Path, numbers: set[str]) -> dict[str, set[str]]:
    """Number -> the labels that its rows give."""
    rows = read_xlsx(file)
    width = max((len(row) for row in rows), default=0)
    columns = [
        [row[offset] if offset < len(row) else "" for row in rows] for offset in range(width)
    ]
    named = _best(file, columns, lambda cell: _number(cell) in numbers, "the pictures' numbers")
    called = _best(file, columns, lambda cell: cell.lower() in _LABELS, " or ".join(_LABELS))
    result: dict[str, set[str]] = {}
    for name, label in zip(named, called, strict=True):
        if label.lower() in _LABELS or _number(name) in numbers:
            result.setdefault(_number(name), set()).add(label.lower())
    return result


def _best(
    file: Path, columns: list[list[str]], fits: Callable[[str], bool], what: str
) -> list[str]:
    """The column with the most cells that fit."""
    counts = [sum(map(fits, column)) for column in columns]
    if not any(counts):
        raise ValueError(f"{file} has no column that holds {what}")
    return columns[counts.index(max(counts))]


def _records(
    file: Path, mask_file: Path | None, labels: tuple[str, ...], split: str | None
) -> list[Record]:
    if not labels or split is None:
        stated = f"calls it {' and '.join(labels)}" if labels else "does not list it"
        raise Refused(f"DatasetB.xlsx {stated}")
    if labels[0] not in _LABELS:
        raise Refused(f"label {labels[0]!r} is not one of {', '.join(_LABELS)}")
    image = read_picture(file)
    mask = None if mask_file is None else read_mask(mask_file, image, _WHITE)
    entry = Entry(
        key=file.stem,
        anatomy="breast",
        probe="linear",
        device="Siemens ACUSON Sequoia C512",
        label=labels[0],
        mask_name=None if mask is None else "lesion",
        splits={DEFAULT: split},
    )
    return [Record(image, entry, mask)]


SOURCE = Source(
    name="yap-b",
    title=("Yap's Dataset B: breast ultrasound with lesion masks (Yap et al., JBHI 2018)."),
    read=without_options(read),
    licence="Research only, by agreement with the authors; not for redistribution",
    citation=(
        "M. H. Yap, G. Pons, J. Marti, S. Ganau, M. Sentis, R. Zwiggelaar, A. K. Davison, "
        "R. Marti, Automated breast ultrasound lesions detection using convolutional neural "
        "networks, IEEE Journal of Biomedical and Health Informatics 22(4), 2018, "
        "doi:10.1109/JBHI.2017.2731873"
    ),
    obtain=(
        "Manchester Metropolitan University, page of M. H. Yap's datasets; by e-mail agreement"
    ),
    layout=(
        "<root>/{original,GT}/000001.png, DatasetB.xlsx; the layout may lie up to four "
        "folders below the root (BUS, Dataset_B)"
    ),
    keys="The picture's stem.",
    coding=(
        "label = benign or malignant. The columns of DatasetB.xlsx are found by what they "
        'hold: the pictures\' numbers, and the two words. Mask "lesion" = levels >= 128 of '
        "the GT picture (they are not strictly binary)"
    ),
    patient=(
        "Not published, and clips are not either. A split by patient cannot be claimed. 163 images."
    ),
    split=('No official split; "default" is drawn by image, each class in equal proportion.'),
    refuses=(
        "A missing or damaged image or mask, a mask of another size or empty, an image that "
        "the table does not list or lists with two labels, a word other than benign and "
        "malignant, masks or rows without an image, and other files. An image without a "
        "mask is accepted without one."
    ),
)

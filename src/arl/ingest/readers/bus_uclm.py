"""BUS-UCLM: breast ultrasound with lesion masks in colour."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, keep_test
from arl.ingest.folders import child, member, pictures, refuse_all, search
from arl.ingest.pictures import binary, read_picture, same_size
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv

_LABELS = ("normal", "benign", "malignant")
_TEST_PATIENTS = ("ANFO", "COPE", "CRCI", "ELCO", "FLKA")
_NAME = re.compile(r"(?P<patient>[A-Z]{4})_\d+")
_BRIGHT = 128


def read(root: Path) -> list[Input]:
    """One input for each image, each mask or row of INFO.csv without one, and each other file.

    Raises:
        FileNotFoundError: there are no folders of images and masks.
        ValueError: INFO.csv lacks a column, or several folders hold the layout.
    """
    base = search(root, _is_layout)
    if base is None:
        raise FileNotFoundError(
            f"neither {root} nor a folder in it holds images and masks of names like ALWI_000.png"
        )
    images, strays = pictures(member(base, "images"))
    mask_folder = child(base, "masks")
    masks, more = pictures(mask_folder) if mask_folder else ({}, [])
    info = _info(base)
    listed = [
        Input(
            file.relative_to(root).as_posix(),
            partial(_records, file, masks.get(stem), info.get(stem)),
        )
        for stem, file in images.items()
    ]
    lone = refuse_all(
        root, (mask for stem, mask in masks.items() if stem not in images), "it has no image"
    )
    gone = [
        refusal(f"INFO.csv {stem}", "images holds nothing of this name")
        for stem in info
        if stem not in images
    ]
    return listed + lone + gone + refuse_all(root, strays + more)


def _is_layout(folder: Path) -> bool:
    images, masks = child(folder, "images"), child(folder, "masks")
    if images is None or not images.is_dir():
        return False
    if child(folder, "INFO.csv") is not None:
        return True
    return (
        masks is not None
        and masks.is_dir()
        and any(_NAME.fullmatch(stem) for stem in pictures(images)[0])
    )


def _info(base: Path) -> dict[str, tuple[str, bool]]:
    """Stem -> label, colour Doppler."""
    file = child(base, "INFO.csv")
    if file is None:
        return {}
    table = read_csv(file, ["Image", "Label", "Doppler"], ";")
    return {
        Path(image.strip()).stem: (label.strip().lower(), doppler.strip().lower() == "yes")
        for image, label, doppler in table.to_numpy().tolist()
    }


def _records(file: Path, mask_file: Path | None, row: tuple[str, bool] | None) -> list[Record]:
    named = _NAME.fullmatch(file.stem)
    if named is None:
        raise Refused(f"the name {file.name} is not a patient's four letters and a number")
    patient = named["patient"]
    image = read_picture(file)
    if mask_file is None:
        if row is None:
            raise Refused(f"neither masks nor INFO.csv states the label of {file.stem}")
        mask, label = np.zeros(image.shape[:2], np.bool_), _check_label(row[0])
    else:
        mask, colours = _lesion(mask_file, image)
        label = _label(mask_file, row[0] if row else None, colours)
    official = "test" if patient in _TEST_PATIENTS else "train"
    entry = Entry(
        key=file.stem,
        patient=patient,
        anatomy="breast",
        probe="linear",
        device="Siemens ACUSON S2000",
        label=label,
        mask_name="lesion" if mask.any() else None,
        color_doppler=row is not None and row[1],
        splits={"authors": official, DEFAULT: keep_test(official, patient)},
    )
    return [Record(image, entry, mask if mask.any() else None)]


def _lesion(file: Path, image: Pixels) -> tuple[Mask, set[str]]:
    """The lesions of a mask, and what their colours mean.

    The meanings are benign and malignant, and "" for other colours.
    """
    pixels = same_size(file, read_picture(file), image)
    if pixels.ndim == 2:
        mask = binary(pixels, _BRIGHT)
        return mask, {""} if mask.any() else set()
    bright = pixels >= _BRIGHT
    red, green, blue = bright[..., 0], bright[..., 1], bright[..., 2]
    parts = {
        "malignant": red & ~green & ~blue,
        "benign": green & ~red & ~blue,
        "": blue | (red & green),
    }
    return red | green | blue, {name for name, part in parts.items() if part.any()}


def _label(file: Path, stated: str | None, colours: set[str]) -> str:
    if stated is None:
        if "" in colours:
            raise Refused(
                f"{file.name} has other colours than red and green, "
                "and INFO.csv does not state its label"
            )
        return "malignant" if "malignant" in colours else next(iter(colours), "normal")
    _check_label(stated)
    if not (colours & {stated, ""} if stated != "normal" else not colours):
        names = ", ".join(sorted(name or "another colour" for name in colours)) or "nothing"
        raise Refused(f"INFO.csv calls it {stated}, but {file.name} shows {names}")
    return stated


def _check_label(label: str) -> str:
    if label not in _LABELS:
        raise Refused(f"label {label!r} is not one of {', '.join(_LABELS)}")
    return label


SOURCE = Source(
    name="bus-uclm",
    title=(
        "BUS-UCLM: breast ultrasound with lesion masks in colour (Vallez et al., Scientific "
        "Data 2025)."
    ),
    read=without_options(read),
    licence=("CC BY 4.0 (authors' repository); version 1 of the download: CC BY-NC 3.0"),
    citation=(
        "N. Vallez, G. Bueno, O. Deniz, M. A. Rienda, C. Pastor, BUS-UCLM: Breast "
        "ultrasound lesion segmentation dataset, Scientific Data 12, 242, 2025, "
        "doi:10.1038/s41597-025-04562-3"
    ),
    obtain="Mendeley Data, doi:10.17632/7fvgj4jsp7; open",
    layout=(
        '<root>/{images,masks}/ALWI_000.png, INFO.csv (";" between Image, Resolution, '
        "Label, Doppler, Marks, Combined); the layout may lie up to four folders below the "
        "root. Without INFO.csv the masks alone tell the labels."
    ),
    keys="The picture's stem.",
    coding=(
        'label = `Label` of INFO.csv (normal, benign, malignant); mask "lesion" = what the '
        "colour mask shows, red is malignant, green benign, black normal. `Doppler` marks "
        "colour Doppler. Sides by side (`Combined`) are not cut."
    ),
    patient='The four letters before "_": 38 patients, 683 images. No clips.',
    split=(
        '"authors": the five patients that the authors test on, the rest is train. '
        '"default": the same test, and a part of the other patients as val.'
    ),
    refuses=(
        "A missing or damaged image or mask, a mask of another size (so all of patient "
        "HESN, as others report), a name without a patient, a label that is none of the "
        "three, a label that its mask contradicts, a mask in other colours without "
        "INFO.csv, masks without an image, rows of INFO.csv without an image, other files."
    ),
)

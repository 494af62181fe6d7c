"""BUS-BRA: breast ultrasound with lesion masks (Gomez-Flores et al., Medical Physics 2024)."""

from functools import partial
from pathlib import Path

import pandas as pd

from arl.corpus.record import Entry, Input, Record, Refused
from arl.corpus.splits import DEFAULT
from arl.ingest.folders import refuse_all
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv

_LABELS = ("benign", "malignant")
_FOLDS = {f"valid_{k}": f"fold-{k}" for k in range(1, 6)}
_SPLIT_OF = {"NaN": "test", "": "test", "0": "val", "1": "train"}
_WHITE = 128


def read(root: Path) -> list[Input]:
    """One input for each row of bus_data.csv, and for each picture it does not list.

    Raises:
        FileNotFoundError: a CSV file is missing.
        ValueError: a CSV file lacks a column, holds a fold code that is none, or divides a patient
            between test and the rest.
    """
    table = read_csv(root / "bus_data.csv", ["ID", "Case", "Pathology", "Device"])
    splits = _splits(root / "5-fold-cv.csv", table)
    rows = [
        {name: str(cell) for name, cell in zip(table.columns, row, strict=True)}
        for row in table.to_numpy()
    ]
    listed = [
        Input(
            f"bus_data.csv:{line} {row['ID']}",
            partial(_records, root, row, splits.get(row["ID"])),
            row["Pathology"],
        )
        for line, row in enumerate(rows, start=2)
    ]
    return listed + _unlisted(root, set(table["ID"]))


def _records(root: Path, row: dict[str, str], splits: dict[str, str] | None) -> list[Record]:
    if row["Pathology"] not in _LABELS:
        raise Refused(f"pathology {row['Pathology']!r} is not one of {', '.join(_LABELS)}")
    if splits is None:
        raise Refused("5-fold-cv.csv gives it no fold")
    image = read_picture(root / "Images" / f"{row['ID']}.png")
    mask_file = root / "Masks" / f"{row['ID'].replace('bus_', 'mask_')}.png"
    mask = read_mask(mask_file, image, _WHITE) if mask_file.is_file() else None
    entry = Entry(
        key=row["ID"],
        patient=row["Case"],
        anatomy="breast",
        probe="linear",
        # The column also states the frequency: "GE Logiq 7 @10-14MHz".
        device=row["Device"].split("@")[0].strip(),
        label=row["Pathology"],
        mask_name=None if mask is None else "lesion",
        splits=splits,
    )
    return [Record(image, entry, mask)]


def _unlisted(root: Path, listed: set[str]) -> list[Input]:
    files = [file for folder in ("Images", "Masks") for file in sorted((root / folder).glob("*"))]
    # A mask has the name of its image with another prefix.
    stray = [file for file in files if file.stem.replace("mask_", "bus_") not in listed]
    return refuse_all(root, stray, "bus_data.csv does not list it")


def _splits(file: Path, table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """ID -> protocol -> split, all images of a patient together."""
    folds = read_csv(file, ["ID", *_FOLDS])
    patient = dict(zip(table["ID"], table["Case"], strict=True))
    splits: dict[str, dict[str, str]] = {}
    for column, protocol in _FOLDS.items():
        for code in set(folds[column]) - set(_SPLIT_OF):
            raise ValueError(
                f"{file}: {column} holds {code!r}, expected 1 (train), 0 (val) or NaN (test)"
            )
        official = dict(zip(folds["ID"], folds[column].map(_SPLIT_OF), strict=True))
        for identifier, split in _by_patient(file, protocol, official, patient).items():
            splits.setdefault(identifier, {})[protocol] = split
    return {
        identifier: {**protocols, DEFAULT: protocols["fold-1"]}
        for identifier, protocols in splits.items()
    }


def _by_patient(
    file: Path, protocol: str, official: dict[str, str], patient: dict[str, str]
) -> dict[str, str]:
    # The official val is drawn by image, so its patients are in train, too. All images of a patient
    # follow the first one; only the official test is disjoint in patients, and must stay so.
    first: dict[str, str] = {}
    for identifier, split in official.items():
        selected = first.setdefault(patient.get(identifier, identifier), split)
        if (selected == "test") != (split == "test"):
            raise ValueError(
                f"{file}: {protocol} divides patient {patient[identifier]} "
                "between test and training"
            )
    return {identifier: first[patient.get(identifier, identifier)] for identifier in official}


SOURCE = Source(
    name="bus-bra",
    title=(
        "BUS-BRA: breast ultrasound with lesion masks (Gomez-Flores et al., Medical Physics 2024)."
    ),
    read=without_options(read),
    licence=(
        "Free to use, copy, modify and distribute with citation (LICENSE.txt of the download)"
    ),
    citation=(
        "W. Gomez-Flores, M. J. Gregorio-Calas, W. Coelho de Albuquerque Pereira, BUS-BRA: "
        "A breast ultrasound dataset for assessing computer-aided diagnosis systems, "
        "Medical Physics 51(4), 2024, doi:10.1002/mp.16812"
    ),
    obtain="https://zenodo.org/records/8231412: BUSBRA.zip, no registration",
    layout=("<root>/bus_data.csv, 5-fold-cv.csv, Images/bus_0001-l.png, Masks/mask_0001-l.png."),
    keys=("`ID` of bus_data.csv: bus_<case>-<l|r|s>, left, right or single image."),
    coding=('label = `Pathology` (benign, malignant); mask "lesion" = white of the 1-bit mask.'),
    patient="`Case`; 1,064 patients, 1,875 images. No clips.",
    split=(
        "fold-1 ... fold-5 of 5-fold-cv.csv: valid_k NaN = test, 0 = val, 1 = train. The "
        "official test folds are disjoint in patients. The official val is drawn by image, "
        "so 201 to 216 patients would be in both train and val: here all images of a "
        'patient follow the first of them. "default" is fold-1.'
    ),
    refuses=(
        "A missing or damaged image, a damaged mask, a mask of another size or empty, an "
        "unknown pathology, a row without a fold, an ID given twice, and pictures that "
        "bus_data.csv does not list. An image without a mask is accepted without one. Width "
        "and Height of bus_data.csv are not used: they are wrong in four official rows."
    ),
)

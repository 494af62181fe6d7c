"""BUS-BRA: a miniature tree in the official layout with good and bad rows, and the real set."""

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.record import Refused
from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.shard_writer import BatchWriter
from arl.corpus.splits import read_split, split_by_patient
from arl.ingest.batches import write_inputs
from arl.ingest.readers import bus_bra

HEADER = "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"
FOLDS = "ID,Pathology,kFold,valid_1,valid_2,valid_3,valid_4,valid_5\n"
# id, case, pathology, codes of the five folds
ROWS = [
    ("bus_0001-l", 1, "malignant", "1,1,NaN,1,1"),
    (
        "bus_0001-r",
        1,
        "malignant",
        "0,1,NaN,1,1",
    ),  # of the same patient, in the other part of fold 1
    ("bus_0002-s", 2, "benign", "NaN,1,0,1,0"),
    ("bus_0003-l", 3, "benign", "0,NaN,1,1,1"),
    ("bus_0003-r", 3, "benign", "1,NaN,1,0,1"),
    ("bus_0004-s", 4, "benign", "1,1,1,1,NaN"),
]


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (37 + number, 53), dtype=np.uint8)


def lesion(number: int) -> np.ndarray:
    mask = np.zeros((37 + number, 53), np.uint8)
    mask[5:20, 7 : 20 + number] = 255
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six good rows of four patients; Width and Height are wrong, as in four official rows."""
    root = tmp_path / "BUSBRA"
    for folder in ("Images", "Masks"):
        (root / folder).mkdir(parents=True)
    table, folds = HEADER, FOLDS
    for number, (identifier, case, pathology, codes) in enumerate(ROWS):
        cv2.imwrite(str(root / "Images" / f"{identifier}.png"), picture(number))
        mask = str(root / "Masks" / f"{identifier.replace('bus', 'mask')}.png")
        cv2.imwrite(mask, lesion(number), [cv2.IMWRITE_PNG_BILEVEL, 1])
        device = "GE Logiq 7 @10-14MHz"
        table += f'{identifier},{case},fibroadenoma,{pathology},4,{device},1,2,left,"[7,5]"\n'
        folds += f"{identifier},{pathology},3,{codes}\n"
    (root / "bus_data.csv").write_text(table)
    (root / "5-fold-cv.csv").write_text(folds)
    return root


def ingest(root: Path, corpus: Path) -> pd.DataFrame:
    with BatchWriter(
        corpus,
        "bus-bra",
        "0000",
        512,
        origin=BatchOrigin(licence="", citation=""),
    ) as writer:
        write_inputs(bus_bra.read(root), writer)
    return manifest.read_manifest(corpus)


def test_good_rows_come_out_as_they_are(root: Path, tmp_path: Path) -> None:
    rows = ingest(root, tmp_path / "data")
    assert rows["id"].tolist() == [f"bus-bra:{row[0]}" for row in ROWS]
    assert rows["label"].tolist() == [row[2] for row in ROWS]
    assert rows["patient"].tolist() == [f"bus-bra:{row[1]}" for row in ROWS]
    constant = (
        rows[["anatomy", "probe", "device", "mask", "site"]].drop_duplicates().values.tolist()
    )
    assert constant == [["breast", "linear", "GE Logiq 7", "lesion", "bus-bra"]]
    for number, (image, mask) in enumerate(
        zip(read_images(tmp_path / "data", rows), read_masks(tmp_path / "data", rows), strict=True)
    ):
        assert np.array_equal(image, picture(number))
        assert mask is not None
        assert np.array_equal(mask, lesion(number) > 0)


def test_official_folds_with_whole_patients(root: Path, tmp_path: Path) -> None:
    rows = ingest(root, tmp_path / "data")
    expected = {
        "default": ["train", "train", "test", "val", "val", "train"],
        "fold-1": ["train", "train", "test", "val", "val", "train"],
        "fold-2": ["train", "train", "train", "test", "test", "train"],
        "fold-3": ["test", "test", "val", "train", "train", "train"],
        "fold-4": ["train", "train", "train", "train", "train", "train"],
        "fold-5": ["train", "train", "val", "train", "train", "test"],
    }
    for protocol, splits in expected.items():
        assert read_split(tmp_path / "data", rows, {"bus-bra": protocol}).tolist() == splits


def _truncate(root: Path) -> None:
    file = root / "Images/bus_0003-l.png"
    file.write_bytes(file.read_bytes()[:-200])


def _truncate_mask(root: Path) -> None:
    file = root / "Masks/mask_0003-l.png"
    file.write_bytes(file.read_bytes()[:40])


def _other_size(root: Path) -> None:
    cv2.imwrite(str(root / "Masks/mask_0003-l.png"), lesion(9))


def _empty_mask(root: Path) -> None:
    cv2.imwrite(str(root / "Masks/mask_0003-l.png"), 0 * lesion(3))


def _sixteen_bits(root: Path) -> None:
    cv2.imwrite(str(root / "Images/bus_0003-l.png"), picture(3).astype(np.uint16) * 200)


def _pathology(root: Path) -> None:
    _edit(
        root / "bus_data.csv",
        "bus_0003-l,3,fibroadenoma,benign",
        "bus_0003-l,3,fibroadenoma,unclear",
    )


def _no_fold(root: Path) -> None:
    _edit(root / "5-fold-cv.csv", "bus_0003-l,benign,3,0,NaN,1,1,1\n", "")


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "Images/bus_0003-l.png").unlink(), "bus_0003-l.png is missing"),
        (_truncate, "bus_0003-l.png is not a readable picture (OSError)"),
        (_truncate_mask, "mask_0003-l.png is not a readable picture (UnidentifiedImageError)"),
        (_other_size, "mask_0003-l.png is 53x46, its image 53x40"),
        (_empty_mask, "mask_0003-l.png is empty"),
        (_sixteen_bits, "bus_0003-l.png holds I;16 pixels, not 8 bits a channel"),
        (_pathology, "pathology 'unclear' is not one of benign, malignant"),
        (_no_fold, "5-fold-cv.csv gives it no fold"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason_and_the_others_stay(
    root: Path, tmp_path: Path, spoil, reason: str
) -> None:
    spoil(root)
    rows = ingest(root, tmp_path / "data")
    assert rows["id"].tolist() == [f"bus-bra:{row[0]}" for row in ROWS if row[0] != "bus_0003-l"]
    refused = manifest.read_quarantine(tmp_path / "data")
    assert refused[["input", "reason"]].values.tolist() == [["bus_data.csv:5 bus_0003-l", reason]]


def test_pictures_that_no_row_lists_and_ids_given_twice_are_quarantined(
    root: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(root / "Images/bus_0009-s.png"), picture(1))
    (root / "Masks/Thumbs.db").write_bytes(b"")
    with (root / "bus_data.csv").open("a") as table:
        table.write('bus_0004-s,4,fibroadenoma,benign,4,GE,1,2,left,"[7,5,13,15]"\n')
    rows = ingest(root, tmp_path / "data")
    refused = manifest.read_quarantine(tmp_path / "data")
    assert len(rows) == len(ROWS)
    assert refused[["input", "reason"]].values.tolist() == [
        ["bus_data.csv:8 bus_0004-s", "an image with this id was accepted before"],
        ["Images/bus_0009-s.png", "bus_data.csv does not list it"],
        ["Masks/Thumbs.db", "bus_data.csv does not list it"],
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "bus_data.csv",
            "Pathology",
            "Diagnosis",
            r"bus_data.csv lacks the columns \['Pathology'\]",
        ),
        ("5-fold-cv.csv", "0,1,NaN,1,1", "2,1,NaN,1,1", "valid_1 holds '2', expected 1"),
        (
            "5-fold-cv.csv",
            "0,1,NaN,1,1",
            "NaN,1,NaN,1,1",
            "fold-1 divides patient 1 between test and training",
        ),
        ("bus_data.csv", "bus_0002-s,2", "bus_0002-s,2,3,4,5", "is not a readable CSV file"),
    ],
)
def test_tables_that_are_not_official(
    root: Path, file: str, old: str, new: str, message: str
) -> None:
    _edit(root / file, old, new)
    with pytest.raises(ValueError, match=message):
        bus_bra.read(root)


def test_a_root_without_the_tables(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"bus_data.csv does not exist: is the root the official download"
    ):
        bus_bra.read(tmp_path)


def test_the_real_download(tmp_path: Path) -> None:
    """Counts of the paper; test folds as published; nobody in two splits."""
    if "ARL_REAL_DATA" not in os.environ:
        pytest.skip("ARL_REAL_DATA does not name the folder of the real downloads")
    root = Path(os.environ["ARL_REAL_DATA"]) / "BUSBRA"
    inputs = bus_bra.read(root)
    # type: ignore[attr-defined]
    entries = [input.records.args[1] | {"splits": input.records.args[2]} for input in inputs]
    rows = pd.DataFrame(entries)
    assert len(rows) == 1875
    assert rows["Case"].nunique() == 1064
    assert rows["Pathology"].value_counts().to_dict() == {"benign": 1268, "malignant": 607}
    splits = pd.DataFrame(rows["splits"].tolist())
    assert splits.columns.tolist() == ["fold-1", "fold-2", "fold-3", "fold-4", "fold-5", "default"]
    assert [(splits[f"fold-{k}"] == "test").sum() for k in range(1, 6)] == [376, 385, 366, 365, 383]
    for protocol in splits:
        assert (splits[protocol].groupby(rows["Case"]).nunique() == 1).all()
        assert 0.14 < (splits[protocol] == "val").mean() < 0.18
    first = next(iter(inputs[0].records()))
    assert first.image.shape == (353, 274)
    assert first.mask is not None
    ids, grouping = split_by_patient(
        pd.DataFrame({"id": rows["ID"], "patient": rows["Case"], "clip": None})
    )
    assert grouping == "patient"
    assert sum(len(members) for members in ids.values()) == 1875


def test_refusals_name_no_folder(root: Path) -> None:
    (root / "Images/bus_0003-l.png").unlink()
    with pytest.raises(Refused) as refusal:
        list(bus_bra.read(root)[3].records())
    assert str(root) not in str(refusal.value)

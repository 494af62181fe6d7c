"""A site's export: what a row becomes, keys by content, keyed patients, and every refusal."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.shard_writer import BatchWriter
from arl.corpus.splits import SPLIT_SCHEMA
from arl.ingest.batches import write_inputs
from arl.ingest.dicom.deidentify import keyed_hash
from arl.ingest.readers import phantom_table, picture_table

KEY = "7e1f90ac4b2d8365c0f7a91e5d3b8246"
COLUMNS = "file,patient,anatomy,label,mask,mask_file,probe,device,depth_cm,pixel_spacing_mm,split"


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (35, 47), dtype=np.uint8)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARL_HASH_KEY_FILE", raising=False)
    monkeypatch.setenv("ARL_HASH_KEY", KEY)


def export(root: Path, *rows: str, columns: str = COLUMNS) -> Path:
    """Four pictures a/0.png ... a/3.png, a mask, and a table of the rows."""
    (root / "a").mkdir(parents=True)
    for number in range(4):
        cv2.imwrite(str(root / f"a/{number}.png"), picture(number))
    cv2.imwrite(str(root / "a/mask.png"), np.uint8(255) * (picture(7) > 100))
    (root / "pictures.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return root


def ingested(
    root: Path, corpus: Path, site: str = "st-mary", batch: str = "0000"
) -> tuple[list, list[str]]:
    """Accepted rows, and the reasons of what was refused."""
    with BatchWriter(
        corpus,
        "picture-table",
        batch,
        512,
        origin=BatchOrigin(licence="", citation=""),
    ) as writer:
        write_inputs(picture_table.read(root, site), writer)
    folder = corpus / "picture-table" / batch
    rows = manifest.read_table(folder / "manifest.parquet", manifest.SCHEMA)
    refused = manifest.read_table(folder / "quarantine.parquet", manifest.QUARANTINE)
    return rows.to_dict("records"), refused["reason"].tolist()


FULL = [
    "a/0.png,P1,breast,malignant,lesion,a/mask.png,linear,ACME 5,3.5,0.11,test",
    "a/1.png,P1,breast,,,,,,,,test",
    "a/2.png,P2,cardiac,A4C,,,sector,,,,train",
]


def test_a_row_becomes_an_image_with_its_mask(tmp_path: Path) -> None:
    rows, refused = ingested(export(tmp_path / "drop", *FULL), tmp_path / "data")
    assert refused == ["pictures.csv does not list it"]  # a/3.png
    first, second, third = rows
    assert (first["site"], first["anatomy"], first["label"], first["mask"]) == (
        "st-mary",
        "breast",
        "malignant",
        "lesion",
    )
    assert (first["probe"], first["device"], first["synthetic"]) == ("linear", "ACME 5", False)
    assert (first["depth_cm"], round(first["pixel_spacing_mm"], 6)) == (3.5, 0.11)
    assert pd.isna(second["label"])
    assert (second["probe"], second["synthetic"]) == ("unknown", False)
    assert third["label"] == "A4C"
    table = manifest.read_manifest(tmp_path / "data")
    assert np.array_equal(read_images(tmp_path / "data", table)[2], picture(2))
    assert np.array_equal(read_masks(tmp_path / "data", table)[0], picture(7) > 100)
    splits = manifest.read_table(
        tmp_path / "data/picture-table/0000/splits/default.parquet", SPLIT_SCHEMA
    )
    assert splits["split"].tolist() == ["test", "test", "train"]


def test_no_identifier_is_kept(tmp_path: Path) -> None:
    root = export(tmp_path / "drop", *FULL, "a/jane doe.png,P3,breast,,,,,,,,train")
    rows, refused = ingested(root, tmp_path / "data")
    assert (
        rows[0]["patient"]
        == f"picture-table:{keyed_hash(KEY.encode(), 'patient', 'st-mary', '', 'P1')}"
    )
    assert rows[0]["patient"] == rows[1]["patient"] != rows[2]["patient"]
    assert "its picture is missing" in refused
    everything = b"".join(
        file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()
    )
    assert b"jane" not in everything
    assert b"P1" not in everything
    assert b"a/0.png" not in everything


def test_a_picture_that_was_sent_before_is_refused_under_any_name(tmp_path: Path) -> None:
    ingested(export(tmp_path / "one", *FULL), tmp_path / "data")
    root = export(tmp_path / "two", "a/renamed.png,P1,breast,,,,,,,,train")
    (root / "a/0.png").rename(root / "a/renamed.png")
    rows, refused = ingested(root, tmp_path / "data", batch="0001")
    assert rows == []
    assert "an image with this id was accepted before" in refused


def test_a_split_that_is_not_given_for_all_is_drawn_by_patient(tmp_path: Path) -> None:
    root = export(tmp_path / "drop", FULL[0], FULL[1].removesuffix("test"))
    inputs = picture_table.read(root, "st-mary")
    assert [next(iter(inputs[n].records())).entry.splits for n in (0, 1)] == [{}, {}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a/0.png,,breast,,,,,,,,", "it names no patient"),
        ("a/0.png,P1,knee,,,,,,,,", "unknown anatomy 'knee'"),
        ("a/0.png,P1,breast,,,,radial,,,,", "probe 'radial' is not one of linear"),
        ("a/0.png,P1,breast,,,,,,,,holdout", "split 'holdout' is not one of train"),
        ("a/0.png,P1,breast,,,a/mask.png,,,,,", "mask does not say what that shows"),
        ("a/0.png,P1,breast,,,,,,deep,,", "depth_cm 'deep' is not a positive number"),
        ("a/0.png,P1,breast,,,,,,,-1,", "pixel_spacing_mm '-1' is not a positive number"),
        ("../secret.png,P1,breast,,,,,,,,", "outside of its folder"),
        (",P1,breast,,,,,,,,", "outside of its folder"),
        ("a/0.png,P1,breast,,lesion,a/none.png,,,,,", "its mask is missing"),
        ("pictures.csv,P1,breast,,,,,,,,", "its picture is not a readable picture"),
    ],
)
def test_a_row_that_cannot_be_accepted(tmp_path: Path, row: str, reason: str) -> None:
    rows, refused = ingested(export(tmp_path / "drop", row), tmp_path / "data")
    assert rows == []
    assert reason in refused[0]


def test_a_picture_listed_twice_is_accepted_once(tmp_path: Path) -> None:
    rows, refused = ingested(export(tmp_path / "drop", FULL[0], FULL[0]), tmp_path / "data")
    assert len(rows) == 1
    assert "pictures.csv lists it twice" in refused


def test_a_folder_without_the_table_or_a_column(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pictures\.csv does not exist"):
        picture_table.read(tmp_path)
    root = export(tmp_path / "drop", "a/0.png,P1", columns="file,patient")
    with pytest.raises(ValueError, match="lacks the columns"):
        picture_table.read(root)


def test_a_site_that_is_no_plain_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="site 'St Mary' must be a short name"):
        picture_table.read(tmp_path, "St Mary")


def test_without_a_key_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARL_HASH_KEY")
    with pytest.raises(ValueError, match="ARL_HASH_KEY"):
        picture_table.read(export(tmp_path / "drop", *FULL))


def test_phantoms_in_the_same_layout_are_all_synthetic(tmp_path: Path) -> None:
    root = export(tmp_path / "drop", *FULL)
    records = [next(iter(input.records())) for input in phantom_table.read(root, "st-mary")[:3]]
    assert [record.entry.synthetic for record in records] == [True] * 3
    assert records[0].entry.label == "malignant"

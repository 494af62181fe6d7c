"""Yap's Dataset B: columns found by their content, image-level split, refusals."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from arl.corpus import splits
from arl.ingest.readers import yap_b

LABELS = {number: "Benign" if number % 3 else "Malignant" for number in range(1, 14)}


def lesion(number: int, white: int = 255) -> np.ndarray:
    mask = np.zeros((37, 53), np.uint8)
    mask[5:20, 7 : 20 + number] = white
    mask[25:30, 7:20] = 60  # not strictly binary
    return mask


def table(file: Path, rows: list[list[object]]) -> None:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "BUS"
    for number in LABELS:
        save(root / "original" / f"{number:06}.png", picture(number))
        save(
            root / "GT" / f"{number:06}.png",
            lesion(number, 255 if number % 2 else 200),
            "L" if number % 4 else "RGB",
        )
    table(
        root / "DatasetB.xlsx",
        [["Image", "Type", "Diagnosis"], *([n, LABELS[n], "CYST"] for n in LABELS)],
    )
    return root


def test_images_masks_and_labels(root: Path, batch_of: Callable, picture: Callable) -> None:
    done = batch_of(yap_b, root.parent)
    assert done.refused == {}
    assert done.column("label") == {
        f"{number:06}": label.lower() for number, label in LABELS.items()
    }
    assert set(done.rows["anatomy"]) == {"breast"}
    assert splits.grouping(done.rows) == "image"
    for number in LABELS:
        assert np.array_equal(done.image(f"{number:06}"), picture(number))
        assert np.array_equal(done.mask(f"{number:06}"), lesion(number) > 99)


def test_the_default_split_gives_each_class_its_share(root: Path, batch_of: Callable) -> None:
    split = batch_of(yap_b, root).split("default")
    for label in ("Benign", "Malignant"):
        held = [split[f"{number:06}"] for number in LABELS if LABELS[number] == label]
        assert held.count("train") >= len(held) // 2
        assert {"train", "test"} <= set(held)


@pytest.mark.parametrize(
    "rows",
    [
        [
            ["#", "finding", "class", "file"],
            *([n - 1, "malignant?", LABELS[n].upper(), f"{n:06}.PNG"] for n in LABELS),
        ],
        [[LABELS[n], float(n)] for n in LABELS],  # without a header
        [[f"{n:06}", None, f" {LABELS[n]} "] for n in LABELS],
    ],
)
def test_columns_are_found_by_what_they_hold(
    root: Path, batch_of: Callable, rows: list[list[object]]
) -> None:
    table(root / "DatasetB.xlsx", rows)
    done = batch_of(yap_b, root)
    assert done.refused == {}
    assert done.column("label") == {
        f"{number:06}": label.lower() for number, label in LABELS.items()
    }


def rewrite(root: Path, number: int, *labels: str) -> None:
    rows = [[n, LABELS[n]] for n in LABELS if n != number] + [[number, label] for label in labels]
    table(root / "DatasetB.xlsx", [["Image", "Type"], *rows])


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (
            lambda root, _: (root / "original/000002.png").unlink(),
            "GT/000002.png",
            "it has no image",
        ),
        (
            lambda root, _: (root / "original/000002.png").unlink(),
            "DatasetB.xlsx 2",
            "original holds nothing of this",
        ),
        (
            lambda root, save: save(root / "GT/000002.png", lesion(2, 60)),
            "original/000002.png",
            "000002.png is empty",
        ),
        (
            lambda root, save: save(root / "GT/000002.png", lesion(2).T),
            "original/000002.png",
            "000002.png is 37x53",
        ),
        (lambda root, _: rewrite(root, 2), "original/000002.png", "DatasetB.xlsx does not list it"),
        (
            lambda root, _: rewrite(root, 2, "Benign", "Malignant"),
            "original/000002.png",
            "DatasetB.xlsx calls it benign and malignant",
        ),
        (
            lambda root, _: rewrite(root, 2, "unknown"),
            "original/000002.png",
            "label 'unknown' is not one of benign",
        ),
        (
            lambda root, _: (root / "GT/notes.txt").write_text(""),
            "GT/notes.txt",
            "it is not a picture of the dataset",
        ),
    ],
)
def test_refusals(
    root: Path, batch_of: Callable, save: Callable, spoil, name: str, reason: str
) -> None:
    spoil(root, save)
    refused = batch_of(yap_b, root).refused
    assert refused[name].startswith(reason)
    assert len(refused) <= 2


def test_tables_without_such_columns(root: Path) -> None:
    table(root / "DatasetB.xlsx", [[n, "cyst"] for n in LABELS])
    with pytest.raises(
        ValueError, match=r"DatasetB.xlsx has no column that holds benign or malignant"
    ):
        yap_b.read(root)
    table(root / "DatasetB.xlsx", [["a", "benign"]])
    with pytest.raises(
        ValueError, match=r"DatasetB.xlsx has no column that holds the pictures' numbers"
    ):
        yap_b.read(root)
    (root / "DatasetB.xlsx").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds original and DatasetB.xlsx"):
        yap_b.read(root)


def test_a_download_without_masks_serves_classification(root: Path, batch_of: Callable) -> None:
    shutil.rmtree(root / "GT")
    done = batch_of(yap_b, root)
    assert done.refused == {}
    assert set(done.rows["label"]) == {"benign", "malignant"}
    assert done.rows["mask"].isna().all()

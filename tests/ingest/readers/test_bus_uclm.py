"""BUS-UCLM: labels of INFO.csv or of the colours, the authors' test patients, refusals."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arl.corpus import splits
from arl.ingest.readers import bus_uclm

GREEN, RED, BLUE, BLACK = (0, 255, 0), (255, 0, 0), (0, 0, 255), (0, 0, 0)
# stem, colours of its two lesions, label, Doppler
ROWS = [
    ("ALWI_000", (GREEN, BLACK), "Benign", "No"),
    ("ALWI_001", (BLACK, BLACK), "Normal", "Yes"),
    ("ANFO_000", (RED, BLACK), "Malignant", "No"),
    ("BEMI_000", (RED, GREEN), "Malignant", "No"),
    *((f"CA{letter}{letter}_000", (GREEN, BLACK), "Benign", "No") for letter in "ABCDEFGHIJKL"),
]
LABELS = [label.lower() for _, _, label, _ in ROWS]


def colours(first: tuple[int, ...], second: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros((37, 53, 3), np.uint8)
    mask[5:11, 7:20] = first
    mask[20:30, 30:41] = second
    return mask


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    """As unpacked: two folders above the layout."""
    base = (
        tmp_path
        / "download"
        / "BUS-UCLM Breast ultrasound lesion segmentation dataset"
        / "BUS-UCLM"
    )
    table = "Image;Resolution;Label;Doppler;Marks;Combined\n"
    for number, (stem, lesions, label, doppler) in enumerate(ROWS):
        save(base / "images" / f"{stem}.png", picture(number, channels=3))
        save(base / "masks" / f"{stem}.png", colours(*lesions))
        table += f"{stem}.png;53x37;{label};{doppler};No;No\n"
    (base / "INFO.csv").write_text(table)
    return tmp_path / "download"


@pytest.fixture
def base(root: Path) -> Path:
    return next(root.glob("*/BUS-UCLM"))


def test_labels_masks_patients_and_doppler(
    root: Path, batch_of: Callable, picture: Callable
) -> None:
    done = batch_of(bus_uclm, root)
    assert done.refused == {}
    assert list(done.column("label").values()) == LABELS
    assert list(done.column("patient").values()) == [f"bus-uclm:{stem[:4]}" for stem, *_ in ROWS]
    assert list(done.column("mask").values()) == [
        None if label == "normal" else "lesion" for label in LABELS
    ]
    assert list(done.column("color_doppler").values()) == [doppler == "Yes" for *_, doppler in ROWS]
    assert set(done.rows["anatomy"]) == {"breast"}
    assert splits.grouping(done.rows) == "patient"
    assert np.array_equal(done.image("ALWI_000", 3), picture(0, channels=3))
    assert np.array_equal(
        done.mask("ANFO_000"), colours(RED, BLACK).any(axis=2)
    )  # red is 76 in grey
    assert np.array_equal(done.mask("BEMI_000"), colours(RED, GREEN).any(axis=2))
    assert done.mask("ALWI_001") is None


def test_the_authors_test_patients_stay_the_test(root: Path, batch_of: Callable) -> None:
    done = batch_of(bus_uclm, root)
    assert [key for key, split in done.split("authors").items() if split != "train"] == ["ANFO_000"]
    assert done.split("authors")["ANFO_000"] == "test"
    default = done.split("default")
    assert [key for key, split in default.items() if split == "test"] == ["ANFO_000"]
    assert default["ALWI_000"] == default["ALWI_001"]
    assert set(default.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("above", ["", "masks/.."])
def test_the_folder_itself_without_its_table(base: Path, batch_of: Callable, above: str) -> None:
    (base / "INFO.csv").unlink()
    done = batch_of(bus_uclm, base / above)
    assert list(done.column("label").values()) == LABELS
    assert not any(done.column("color_doppler").values())


WHITE, YELLOW = (255, 255, 255), (255, 255, 0)


@pytest.mark.parametrize(
    ("colour", "mode"), [(WHITE, "L"), (WHITE, "1"), (YELLOW, "RGB"), (BLUE, "RGBA")]
)
def test_a_mask_in_other_colours_needs_the_table(
    base: Path, batch_of: Callable, save: Callable, colour: tuple[int, ...], mode: str
) -> None:
    save(base / "masks/ALWI_000.png", colours(colour, BLACK), mode)
    done = batch_of(bus_uclm, base)
    assert done.column("label")["ALWI_000"] == "benign"
    assert np.array_equal(done.mask("ALWI_000"), colours(GREEN, BLACK).any(axis=2))
    (base / "INFO.csv").unlink()
    reason = (
        "ALWI_000.png has other colours than red and green, and INFO.csv does not state its label"
    )
    assert batch_of(bus_uclm, base).refused == {"images/ALWI_000.png": reason}


def edit(base: Path, old: str, new: str) -> None:
    text = (base / "INFO.csv").read_text()
    assert old in text
    (base / "INFO.csv").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (
            lambda base, _: (base / "images/ALWI_000.png").unlink(),
            "masks/ALWI_000.png",
            "it has no image",
        ),
        (
            lambda base, save: save(base / "masks/ALWI_000.png", colours(GREEN, BLACK)[:-1]),
            "images/ALWI_000.png",
            "ALWI_000.png is 53x36, its image 53x37",
        ),
        (
            lambda base, _: (base / "images/ALWI_000.png").write_bytes(b"\x89PNG\r\n"),
            "images/ALWI_000.png",
            "ALWI_000.png is not a readable picture",
        ),
        (
            lambda base, _: edit(base, "Benign", "Cyst"),
            "images/ALWI_000.png",
            "label 'cyst' is not one of normal",
        ),
        (
            lambda base, _: edit(base, "Benign", "Malignant"),
            "images/ALWI_000.png",
            "INFO.csv calls it malignant, but ALWI_000.png shows benign",
        ),
        (
            lambda base, _: edit(base, "Benign", "Normal"),
            "images/ALWI_000.png",
            "INFO.csv calls it normal, but ALWI_000.png shows benign",
        ),
        (
            lambda base, _: edit(base, "Normal", "Benign"),
            "images/ALWI_001.png",
            "INFO.csv calls it benign, but ALWI_001.png shows nothing",
        ),
        (
            lambda base, _: (base / "images/ALWI_000.png").rename(base / "images/scan1.png"),
            "images/scan1.png",
            "the name scan1.png is not a patient's four letters and a number",
        ),
        (
            lambda base, _: edit(base, "ALWI_000", "ALWI_009"),
            "INFO.csv ALWI_009",
            "images holds nothing of this name",
        ),
        (
            lambda base, _: (base / "images/README.md").write_text("read me"),
            "images/README.md",
            "it is not a picture of the dataset",
        ),
    ],
)
def test_refusals(
    base: Path, batch_of: Callable, save: Callable, spoil, name: str, reason: str
) -> None:
    spoil(base, save)
    refused = batch_of(bus_uclm, base).refused
    assert refused[name].startswith(reason)


def test_litter_is_no_input(base: Path, batch_of: Callable) -> None:
    (base / "images/Thumbs.db").write_bytes(b"")
    (base / "images/.DS_Store").write_bytes(b"")
    (base / "__MACOSX/images").mkdir(parents=True)
    assert batch_of(bus_uclm, base).num_inputs == len(ROWS)


def test_other_roots(tmp_path: Path, base: Path, save: Callable) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds images and masks of names like ALWI_000.png"
    ):
        bus_uclm.read(base / "images")
    for folder in ("Images", "Masks"):  # of BUS-BRA, say
        save(tmp_path / "BUSBRA" / folder / "bus_0001-l.png", colours(GREEN, BLACK))
    with pytest.raises(FileNotFoundError, match="holds images and masks of names like"):
        bus_uclm.read(tmp_path / "BUSBRA")
    edit(base, "Label", "Class")
    with pytest.raises(ValueError, match=r"INFO.csv lacks the columns \['Label'\]"):
        bus_uclm.read(base)


def test_a_download_without_masks_takes_its_labels_from_the_table(
    base: Path, batch_of: Callable
) -> None:
    shutil.rmtree(base / "masks")
    done = batch_of(bus_uclm, base)
    assert done.refused == {}
    assert len(done.rows) == done.num_inputs
    assert done.rows["mask"].isna().all()
    assert done.rows["label"].notna().all()

"""BUSI: names with spaces, several masks of one image, image-level split, refusals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arl.corpus import splits
from arl.ingest.readers import busi

COUNTS = {"benign": 12, "malignant": 7, "normal": 5}
THREE_MASKS = "benign (10)"


def lesion(number: int) -> np.ndarray:
    mask = np.zeros((37, 53), np.uint8)
    mask[5 * number % 29 :, 7:20] = 255
    return mask


def blob(row: int) -> np.ndarray:
    mask = np.zeros((37, 53), np.uint8)
    mask[row : row + 5, 11:17] = 255
    return mask


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "Dataset_BUSI_with_GT"
    seed = 0
    for label, count in COUNTS.items():
        for number in range(1, count + 1):
            seed += 1
            stem = f"{label} ({number})"
            save(root / label / f"{stem}.png", picture(seed, channels=3))
            mask = lesion(number) * (label != "normal")
            save(root / label / f"{stem}_mask.png", mask, ("1", "L", "RGB", "RGBA")[number % 4])
    for suffix, row in (("", 1), ("_1", 12), ("_2", 30)):
        save(root / "benign" / f"{THREE_MASKS}_mask{suffix}.png", blob(row), "1")
    return root


def test_images_labels_and_masks(root: Path, batch_of: Callable, picture: Callable) -> None:
    done = batch_of(busi, root.parent)
    assert done.refused == {}
    stems = [
        f"{label} ({number})" for label, count in COUNTS.items() for number in range(1, count + 1)
    ]
    assert done.ids() == stems  # in natural order
    assert done.column("label") == {stem: stem.split()[0] for stem in stems}
    assert done.column("mask") == {
        stem: None if stem.startswith("normal") else "lesion" for stem in stems
    }
    assert set(done.rows["anatomy"]) == {"breast"}
    assert splits.grouping(done.rows) == "image"
    assert np.array_equal(done.image("benign (2)", 3), picture(2, channels=3))
    for number in range(1, COUNTS["malignant"] + 1):
        assert np.array_equal(done.mask(f"malignant ({number})"), lesion(number) > 0)


def test_three_masks_of_one_image_are_united(root: Path, batch_of: Callable) -> None:
    united = blob(1) | blob(12) | blob(30)
    assert np.array_equal(batch_of(busi, root).mask(THREE_MASKS), united > 0)


def test_the_default_split_gives_each_class_its_share(root: Path, batch_of: Callable) -> None:
    split = batch_of(busi, root).split("default")
    for label in COUNTS:
        assert {split[stem] for stem in split if stem.startswith(label)} == {"train", "val", "test"}


def test_near_identical_images_stay_together(
    root: Path, batch_of: Callable, picture: Callable, save: Callable
) -> None:
    for number in range(1, 8):
        darker = picture(number, channels=3) // 2 + number
        save(root / "malignant" / f"malignant ({number}).png", darker.astype(np.uint8))
    (root / "normal/normal (1).png").write_bytes(b"")
    done = batch_of(busi, root)
    assert list(done.refused) == ["normal/normal (1).png"]
    split = done.split("default")
    assert all(
        split[f"malignant ({number})"] == split[f"benign ({number})"] for number in range(1, 8)
    )
    assert len(set(split.values())) == 3


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (
            lambda root, save: save(root / "benign/benign (2)_mask.png", 0 * blob(1)),
            "benign/benign (2).png",
            "benign (2)_mask.png is empty",
        ),
        (
            lambda root, save: save(root / "benign/benign (2)_mask.png", blob(1).T),
            "benign/benign (2).png",
            "benign (2)_mask.png is 37x53, its image 53x37",
        ),
        (
            lambda root, save: save(root / f"benign/{THREE_MASKS}_mask_2.png", blob(1).T),
            f"benign/{THREE_MASKS}.png",
            "benign (10)_mask_2.png is 37x53",
        ),
        (
            lambda root, save: save(root / "normal/normal (2)_mask.png", blob(1)),
            "normal/normal (2).png",
            "it is normal, but normal (2)_mask.png is not empty",
        ),
        (
            lambda root, _: (root / "benign/benign (2).png").unlink(),
            "benign/benign (2)_mask.png",
            "it has no image",
        ),
        (
            lambda root, _: (root / "benign/benign (2).png").write_bytes(b"\x89PNG\r\n\x1a\n"),
            "benign/benign (2).png",
            "benign (2).png is not a readable picture",
        ),
        (
            lambda root, _: (root / "benign/notes.txt").write_text(""),
            "benign/notes.txt",
            "it is not a picture of the dataset",
        ),
    ],
)
def test_refusals(
    root: Path, batch_of: Callable, save: Callable, spoil, name: str, reason: str
) -> None:
    spoil(root, save)
    refused = batch_of(busi, root).refused
    assert list(refused) == [name]
    assert refused[name].startswith(reason)


def test_normal_images_need_no_mask(root: Path, batch_of: Callable) -> None:
    for mask in (root / "normal").glob("*_mask.png"):
        mask.unlink()
    done = batch_of(busi, root)
    assert done.refused == {}
    assert len(done.rows) == sum(COUNTS.values())


def test_a_root_without_one_of_the_folders(root: Path) -> None:
    (root / "normal").rename(root / "healthy")
    with pytest.raises(FileNotFoundError, match="holds benign, malignant and normal"):
        busi.read(root)


def test_a_download_without_masks_serves_classification(root: Path, batch_of: Callable) -> None:
    for mask in root.rglob("*_mask*.png"):
        mask.unlink()
    done = batch_of(busi, root)
    assert done.refused == {}
    assert set(done.rows["label"]) == {"benign", "malignant", "normal"}
    assert done.rows["mask"].isna().all()

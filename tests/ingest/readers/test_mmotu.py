"""MMOTU: codes and colours of the eight classes, binary masks, both parts, refusals."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arl.corpus import splits
from arl.ingest.readers import mmotu

CLASSES = [
    ("chocolate-cyst", (64, 0, 0)),
    ("serous-cystadenoma", (0, 64, 0)),
    ("teratoma", (0, 0, 64)),
    ("theca-cell-tumor", (64, 0, 64)),
    ("simple-cyst", (64, 64, 0)),
    ("normal-ovary", (64, 64, 64)),
    ("mucinous-cystadenoma", (0, 128, 0)),
    ("high-grade-serous", (0, 0, 128)),
]
TRAIN = {str(number): number % 8 for number in range(1, 12)}
VAL = {str(number): number % 8 for number in range(12, 17)}


def lesion(number: int) -> np.ndarray:
    mask = np.zeros((37, 53), np.bool_)
    mask[5:20, 7 : 20 + number] = True
    return mask


def painted(number: int, colour: tuple[int, int, int]) -> np.ndarray:
    return lesion(number)[..., None] * np.array(colour, np.uint8)


def fill(part: Path, picture: Callable, save: Callable) -> None:
    for stem, code in (TRAIN | VAL).items():
        number = int(stem)
        save(part / "images" / f"{stem}.JPG", picture(number, channels=3), quality=95)
        save(part / "annotations" / f"{stem}.PNG", painted(number, CLASSES[code][1]))
        suffix = "_binary_binary.PNG" if number == 3 else "_binary.PNG"
        save(
            part / "annotations" / f"{stem}{suffix}",
            painted(number, (128, 0, 0)),
            "P" if number == 4 else None,
        )
    for split, codes in (("train", TRAIN), ("val", VAL)):
        (part / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in codes))
        (part / f"{split}_cls.txt").write_text(
            "".join(f"{stem}.JPG  {code}\n" for stem, code in codes.items())
        )


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    fill(tmp_path / "MMOTU" / "OTU_2d", picture, save)
    return tmp_path / "MMOTU"


def test_labels_and_masks(root: Path, batch_of: Callable) -> None:
    done = batch_of(mmotu, root.parent)
    assert done.refused == {}
    assert done.column("label") == {
        f"OTU_2d/{stem}": CLASSES[code][0] for stem, code in (TRAIN | VAL).items()
    }
    named = {"ovary" if code == 5 else "lesion" for code in TRAIN.values()}
    assert named == set(done.rows["mask"])
    assert done.column("mask")["OTU_2d/5"] == "ovary"
    for stem in TRAIN:
        assert np.array_equal(done.mask(f"OTU_2d/{stem}"), lesion(int(stem)))
    assert set(done.rows["anatomy"]) == {"other"}
    assert splits.grouping(done.rows) == "image"


def test_the_official_split_and_its_use_as_test(root: Path, batch_of: Callable) -> None:
    done = batch_of(mmotu, root)
    official = {f"OTU_2d/{stem}": "train" for stem in TRAIN} | {
        f"OTU_2d/{stem}": "val" for stem in VAL
    }
    assert done.split("official") == official
    default = done.split("default")
    assert {key for key, split in default.items() if split == "test"} == {
        f"OTU_2d/{stem}" for stem in VAL
    }
    assert "val" in default.values()


@pytest.mark.parametrize("name", ["OTU_3d", "OTU_CEUS"])
def test_the_part_with_contrast_beside_the_other(
    root: Path, batch_of: Callable, picture: Callable, save: Callable, name: str
) -> None:
    fill(root / name, picture, save)
    done = batch_of(mmotu, root)
    assert done.refused == {}
    assert done.ids() == [f"{part}/{stem}" for part in ("OTU_2d", "OTU_3d") for stem in TRAIN | VAL]


def test_the_part_itself_as_the_root(root: Path, batch_of: Callable) -> None:
    assert batch_of(mmotu, root / "OTU_2d").ids()[0] == "OTU_2d/1"


def test_without_a_binary_mask_the_classes_show_the_shape(
    root: Path, batch_of: Callable, save: Callable
) -> None:
    (root / "OTU_2d/annotations/1_binary.PNG").unlink()
    (root / "OTU_2d/annotations/2.PNG").unlink()
    save(root / "OTU_2d/annotations/6.PNG", lesion(6) * np.uint8(7))  # numbers instead of colours
    done = batch_of(mmotu, root)
    assert done.refused == {}
    for stem in ("1", "2", "6"):
        assert np.array_equal(done.mask(f"OTU_2d/{stem}"), lesion(int(stem)))


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / "OTU_2d" / name).read_text()
    assert old in text
    (root / "OTU_2d" / name).write_text(text.replace(old, new, 1))


def no_masks(root: Path) -> None:
    for file in (root / "OTU_2d/annotations").glob("2*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (
            lambda root, _: (root / "OTU_2d/images/2.JPG").unlink(),
            "OTU_2d 2",
            "it is listed, but images holds nothing",
        ),
        (
            lambda root, _: (root / "OTU_2d/images/2.JPG").unlink(),
            "OTU_2d/annotations/2.PNG",
            "it has no image",
        ),
        (
            lambda root, save: save(
                root / "OTU_2d/annotations/2_binary.PNG", painted(2, (0, 0, 0))
            ),
            "OTU_2d/images/2.JPG",
            "2_binary.PNG is empty",
        ),
        (
            lambda root, save: save(
                root / "OTU_2d/annotations/2_binary.PNG", painted(2, (128, 0, 0))[:-1]
            ),
            "OTU_2d/images/2.JPG",
            "2_binary.PNG is 53x36, its image 53x37",
        ),
        (
            lambda root, save: save(root / "OTU_2d/annotations/2.PNG", painted(2, CLASSES[6][1])),
            "OTU_2d/images/2.JPG",
            "its code says teratoma, but the colours of 2.PNG say mucinous-cystadenoma",
        ),
        (
            lambda root, save: save(root / "OTU_2d/annotations/2.PNG", lesion(2) * np.uint8(64)),
            "OTU_2d/images/2.JPG",
            "its code says teratoma, but the colours of 2.PNG say normal-ovary",
        ),
        (
            lambda root, _: edit(root, "train_cls.txt", "2.JPG  2", "2.JPG  8"),
            "OTU_2d/images/2.JPG",
            "code '8' is not one of 0",
        ),
        (
            lambda root, _: edit(root, "train_cls.txt", "2.JPG  2\n", ""),
            "OTU_2d/images/2.JPG",
            "train_cls.txt and val_cls.txt give it no code",
        ),
        (
            lambda root, _: edit(root, "train_cls.txt", "2.JPG  2\n", "2.JPG  2\n2.JPG  3\n"),
            "OTU_2d/images/2.JPG",
            "train_cls.txt and val_cls.txt give it the codes 2 and 3",
        ),
        (
            lambda root, _: edit(root, "val.txt", "12\n", "12\n2\n"),
            "OTU_2d/images/2.JPG",
            "both lists name it",
        ),
        (
            lambda root, save: save(root / "OTU_2d/images/99.JPG", painted(2, (9, 9, 9))),
            "OTU_2d/images/99.JPG",
            "neither train.txt nor val.txt lists it",
        ),
        (
            lambda root, _: (root / "OTU_2d/annotations/notes.txt").write_text(""),
            "OTU_2d/annotations/notes.txt",
            "it is not a picture of the dataset",
        ),
    ],
)
def test_refusals(
    root: Path, batch_of: Callable, save: Callable, spoil, name: str, reason: str
) -> None:
    spoil(root, save)
    refused = batch_of(mmotu, root).refused
    assert refused[name].startswith(reason)
    assert len(refused) <= 3


def test_other_roots(tmp_path: Path, root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds OTU_2d or OTU_3d or OTU_CEUS"):
        mmotu.read(root / "OTU_2d/images")
    (root / "OTU_2d/val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val.txt does not exist"):
        mmotu.read(root)


def test_a_download_without_masks_serves_classification(root: Path, batch_of: Callable) -> None:
    for folder in root.rglob("annotations"):
        shutil.rmtree(folder)
    done = batch_of(mmotu, root)
    assert done.refused == {}
    assert done.rows["mask"].isna().all()
    assert done.rows["label"].notna().all()

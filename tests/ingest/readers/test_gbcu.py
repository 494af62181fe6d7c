"""GBCU: codes 0, 1, 2, the official test list, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arl.corpus import splits
from arl.ingest.readers import gbcu

TRAIN = {f"im{number:05}.jpg": number % 3 for number in range(1, 12)}
TEST = {f"im{number:05}.jpg": number % 3 for number in range(12, 16)}
NAMES = ("normal", "benign", "malignant")


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "GBCU-Shared"
    for number, name in enumerate([*TRAIN, *TEST]):
        save(root / "imgs" / name, picture(number, channels=3), quality=95)
    for split, lines in (("train", TRAIN), ("test", TEST)):
        (root / f"{split}.txt").write_text(
            "".join(f"{name},{code}\n" for name, code in lines.items())
        )
    (root / "bbox_annot.json").write_text("{}")
    (root / "README.txt").write_text("This is the dataset")
    return root


def test_codes_and_the_official_test(root: Path, batch_of: Callable) -> None:
    done = batch_of(gbcu, root.parent)
    assert done.refused == {}
    assert done.column("label") == {name[:7]: NAMES[code] for name, code in (TRAIN | TEST).items()}
    assert set(done.rows["anatomy"]) == {"gallbladder"}
    assert splits.grouping(done.rows) == "image"  # no patients: nobody may claim a split by patient
    assert np.array_equal(
        done.image("im00003", 3), np.asarray(Image.open(root / "imgs/im00003.jpg"))
    )
    official = {
        name[:7]: split for split, names in (("train", TRAIN), ("test", TEST)) for name in names
    }
    assert done.split("official") == official
    default = done.split("default")
    assert {key for key, split in default.items() if split == "test"} == {name[:7] for name in TEST}
    assert "val" in default.values()


def test_lines_with_spaces_and_a_mark(root: Path, batch_of: Callable) -> None:
    (root / "test.txt").write_text(
        "\ufeff" + "\r\n".join(f" {name} , {code} " for name, code in TEST.items()) + "\r\n\r\n"
    )
    (root / "imgs/im00013.jpg").rename(root / "imgs/im00013.JPG")
    done = batch_of(gbcu, root)
    assert done.refused == {}
    assert len(done.rows) == len(TRAIN | TEST)


def add(root: Path, name: str, line: str) -> None:
    with (root / name).open("a") as lines:
        lines.write(line + "\n")


@pytest.mark.parametrize(
    ("spoil", "refusals"),
    [
        (
            lambda root: (root / "imgs/im00002.jpg").unlink(),
            {"train.txt:2 im00002.jpg,2": "imgs holds nothing named im00002"},
        ),
        (
            lambda root: (root / "imgs/im00002.jpg").write_bytes(
                (root / "imgs/im00002.jpg").read_bytes()[:300]
            ),
            {"train.txt:2 im00002.jpg,2": "im00002.jpg is not a readable picture"},
        ),
        (
            lambda root: add(root, "test.txt", "im00016.jpg,3"),
            {"test.txt:5 im00016.jpg,3": "code '3' is not one of 0"},
        ),
        (
            lambda root: add(root, "test.txt", "im00016.jpg"),
            {"test.txt:5 im00016.jpg": "code '' is not one of 0, 1, 2"},
        ),
        (
            lambda root: add(root, "test.txt", "im00002.jpg,2"),
            {
                "train.txt:2 im00002.jpg,2": (
                    "the lists give it 2 codes: 2 by test.txt, 2 by train.txt"
                ),
                "test.txt:5 im00002.jpg,2": (
                    "the lists give it 2 codes: 2 by test.txt, 2 by train.txt"
                ),
            },
        ),
        (
            lambda root: add(root, "train.txt", "im00002.jpg,0"),
            {
                "train.txt:2 im00002.jpg,2": (
                    "the lists give it 2 codes: 0 by train.txt, 2 by train.txt"
                ),
                "train.txt:12 im00002.jpg,0": (
                    "the lists give it 2 codes: 0 by train.txt, 2 by train.txt"
                ),
            },
        ),
        (
            lambda root: add(root, "train.txt", "im00002.jpg,2"),
            {"train.txt:12 im00002.jpg,2": "an image with this id was accepted before"},
        ),
        (
            lambda root: (root / "imgs/im00099.jpg").write_bytes(b""),
            {"imgs/im00099.jpg": "neither train.txt nor test.txt lists it"},
        ),
        (
            lambda root: (root / "imgs/list.csv").write_text(""),
            {"imgs/list.csv": "it is not a picture of the dataset"},
        ),
    ],
)
def test_refusals(root: Path, batch_of: Callable, spoil, refusals: dict[str, str]) -> None:
    spoil(root)
    refused = batch_of(gbcu, root).refused
    assert refused.keys() == refusals.keys()
    for name, reason in refusals.items():
        assert refused[name].startswith(reason)


def test_other_roots(root: Path) -> None:
    (root / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"test.txt is not text in UTF-8"):
        gbcu.read(root)
    (root / "test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds imgs, train.txt and test.txt"):
        gbcu.read(root)

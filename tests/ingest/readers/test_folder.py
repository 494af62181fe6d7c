"""Own pictures in folders of classes, with and without splits and patients."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.corpus.shard_reader import read_images
from arl.corpus.splits import grouping, read_split
from arl.ingest.readers import folder


def picture(file: Path, seed: int = 0, colour: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(seed).integers(0, 256, (35, 37), dtype=np.uint8)
    pixels = cv2.merge([grey, grey, grey])
    if colour:
        pixels[:9] = (0, 0, 255)
    assert cv2.imwrite(str(file), pixels)
    return file


def test_classes_alone(tmp_path: Path, ingest: Callable, make_video: Callable[..., Path]) -> None:
    root = tmp_path / "views"
    picture(root / "A4C/1.PNG")
    picture(root / "A4C/10.jpg", 1)
    picture(root / "A4C/2.bmp", 2, colour=True)
    make_video(root / "PLAX/a clip.mp4", 4, codec="mp4v")
    done = ingest(folder, root, anatomy="cardiac", probe="sector", device="Maker M1", site="north")
    rows = done.rows
    keys = [
        "A4C/1.PNG",
        "A4C/2.bmp",
        "A4C/10.jpg",
        *(f"PLAX/a clip.mp4/{frame:05d}" for frame in range(4)),
    ]
    assert rows["id"].tolist() == [f"source:{key}" for key in keys]
    assert rows["label"].tolist() == ["A4C"] * 3 + ["PLAX"] * 4
    said = ["anatomy", "anatomy_rule", "probe", "device", "site"]
    assert rows[said].drop_duplicates().values.tolist() == [
        ["cardiac", "option", "sector", "Maker M1", "north"]
    ]
    assert rows["clip"].tolist()[3:] == ["source:PLAX/a clip.mp4"] * 4
    assert set(done.about["splits"]) == {"default"}
    assert grouping(rows) == "image"
    assert [image.ndim for image in read_images(done.corpus, rows.iloc[:3], 3)] == [3, 3, 3]
    grey = np.random.default_rng(0).integers(0, 256, (35, 37), dtype=np.uint8)
    assert np.array_equal(read_images(done.corpus, rows.iloc[[0]])[0], grey)


def test_splits_and_patients(tmp_path: Path, ingest: Callable) -> None:
    expected = {}
    for split, name in (("Train", "train"), ("validation", "val"), ("TEST", "test")):
        for label in ("benign", "malignant"):
            for patient in range(2):
                key = f"{split}/{label}/{name}-{label}-{patient}/1.png"
                picture(tmp_path / "set" / key)
                expected[f"source:{key}"] = name
    done = ingest(folder, tmp_path / "set", anatomy="thyroid")
    assert grouping(done.rows) == "patient"
    assert done.rows["patient"].nunique() == 12
    for protocol in ("official", "default"):
        split = read_split(done.corpus, done.rows, {"source": protocol})
        assert dict(zip(done.rows["id"], split, strict=True)) == expected


def test_without_val_whole_training_patients_are_it(tmp_path: Path, ingest: Callable) -> None:
    for patient in range(40):
        for number in range(2):
            picture(tmp_path / f"set/train/benign/p{patient}/{number}.png")
    picture(tmp_path / "set/test/benign/q/1.png")
    done = ingest(folder, tmp_path / "set", anatomy="thyroid")
    official = read_split(done.corpus, done.rows, {"source": "official"})
    default = read_split(done.corpus, done.rows, {})
    assert official.value_counts().to_dict() == {"train": 80, "test": 1}
    assert (default[official == "test"] == "test").all()
    assert 2 <= (default == "val").sum() <= 24
    assert (default.groupby(done.rows["patient"]).nunique() == 1).all()


def test_what_is_refused(tmp_path: Path, ingest: Callable) -> None:
    root = tmp_path / "set"
    picture(root / "benign/p1/1.png")
    picture(root / "benign/p1/more/2.png")
    picture(root / "3.png")
    (root / "benign/notes.docx").write_bytes(b"")
    (root / "benign/Thumbs.db").write_bytes(b"")  # litter is no input
    (root / "benign/4.png").write_bytes(b"\x89PNG")
    assert ingest(folder, root, anatomy="breast").refused == {
        "3.png": "it lies in no folder of a class",
        "benign/4.png": "4.png is not a readable picture (UnidentifiedImageError)",
        "benign/notes.docx": "it is neither a picture nor a video",
        "benign/p1/more/2.png": "it lies deeper than <class>/<patient>",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "state what the pictures of .* show: --anatomy breast"),
        ({"anatomy": "heart"}, "unknown anatomy 'heart'"),
        (
            {"anatomy": "cardiac", "probe": "phased"},
            "probe 'phased' is not one of linear, convex, sector, unknown",
        ),
    ],
)
def test_options_that_are_not_in_the_vocabulary(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    picture(tmp_path / "set/benign/1.png")
    with pytest.raises(ValueError, match=message):
        folder.read(tmp_path / "set", **options)


def test_half_a_split_and_a_divided_patient(tmp_path: Path) -> None:
    picture(tmp_path / "set/train/benign/p1/1.png")
    picture(tmp_path / "set/benign/1.png")
    with pytest.raises(ValueError, match="holds splits, as train, and benign, which is none"):
        folder.read(tmp_path / "set", anatomy="breast")
    (tmp_path / "set/benign/1.png").unlink()
    (tmp_path / "set/benign").rmdir()
    picture(tmp_path / "set/test/malignant/p1/1.png")
    with pytest.raises(ValueError, match=r"p1 is in two splits, (test and train|train and test)"):
        folder.read(tmp_path / "set", anatomy="breast")


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        folder.read(tmp_path / "absent", anatomy="breast")

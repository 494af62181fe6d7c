"""Own pictures and videos that a CSV file lists."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.corpus.shard_reader import read_masks
from arl.corpus.splits import grouping, read_split
from arl.ingest.readers import csv


def picture(file: Path, pixels: np.ndarray | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (35, 37), dtype=np.uint8)
    assert cv2.imwrite(str(file), noise if pixels is None else pixels)
    return file


def mask(height: int = 35, width: int = 37) -> np.ndarray:
    found = np.zeros((height, width), np.uint8)
    found[3:11, 5:17] = 255
    return found


def table(root: Path, *lines: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def root(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    root = tmp_path / "set"
    for name in ("a.png", "b.png", "c.png"):
        picture(root / "images" / name)
    picture(root / "masks/a.png", mask())
    picture(root / "masks/clip-2.png", mask(48, 64))
    make_video(root / "clips/one.avi", 5)
    make_video(root / "clips/two.avi", 6)
    return root


def test_every_column(root: Path, ingest: Callable) -> None:
    table(
        root,
        "image,label,patient,clip,frame,site,device,probe,anatomy,mask,mask_name,split",
        "images/a.png,benign,p1,,,north,Maker M1,linear,thyroid,masks/a.png,nodule,train",
        "images/b.png,malignant,p2,cine,7,,,,thyroid,,,val",
        "clips/one.avi,,p3,,,,,,,,,test",
        "clips/two.avi,,p4,,2,,,,,masks/clip-2.png,lv,train",
        "clips/two.avi,,p4,,5,,,,,,,train",
        "images\\c.png,,p1,,,,,,,,,train",
    )
    done = ingest(csv, root, anatomy="cardiac", probe="sector", device="Maker M2", site="south")
    assert done.refused == {}
    rows = done.rows.set_index(done.rows["id"].str.removeprefix("source:"))
    single = ["clips/two.avi/00002", "clips/two.avi/00005"]
    clip = [f"clips/one.avi/{frame:05d}" for frame in range(5)]
    assert rows.index.tolist() == ["images/a.png", "images/b.png", *clip, *single, "images/c.png"]
    said = ["label", "patient", "site", "device", "probe", "anatomy", "mask"]
    assert rows.loc["images/a.png", said].tolist() == [
        "benign",
        "source:p1",
        "north",
        "Maker M1",
        "linear",
        "thyroid",
        "nodule",
    ]
    options = ["south", "Maker M2", "sector", "cardiac"]
    assert rows["label"].isna().tolist() == [False, False, *[True] * 8]
    assert rows.loc["clips/two.avi/00002", said[1:]].tolist() == ["source:p4", *options, "lv"]
    assert rows.loc["images/b.png", ["clip", "frame"]].tolist() == ["source:cine", 7]
    assert rows.loc[single, ["clip", "frame"]].values.tolist() == [
        ["source:clips/two.avi", 2],
        ["source:clips/two.avi", 5],
    ]
    assert rows.loc[single, "mean"].tolist() == pytest.approx([50, 78], abs=4)  # frames 2 and 5
    assert np.array_equal(
        read_masks(done.corpus, done.rows[done.rows["mask"] == "lv"])[0], mask(48, 64) > 0
    )
    assert grouping(done.rows) == "patient"
    split = read_split(done.corpus, done.rows, {"source": "official"})
    assert split.tolist() == ["train", "val", *["test"] * 5, *["train"] * 3]


def test_one_column_is_enough_and_the_root_may_be_the_file(root: Path, ingest: Callable) -> None:
    table(root, "image", "images/a.png", "images/b.png", "images/c.png")
    for name in ("masks/a.png", "masks/clip-2.png", "clips/one.avi", "clips/two.avi"):
        (root / name).unlink()
    done = ingest(csv, root / "list.csv", anatomy="other")
    assert done.about["accepted"] == 3
    assert set(done.about["splits"]) == {"default"}


def test_semicolons_and_a_byte_order_mark(root: Path, ingest: Callable) -> None:
    (root / "list.csv").write_text("image;label\nimages/a.png;4,5\n", encoding="utf-8-sig")
    done = ingest(csv, root, anatomy="thyroid")
    assert done.rows["label"].tolist() == ["4,5"]


def test_masks_by_an_option(root: Path, ingest: Callable) -> None:
    table(root, "image,mask", "images/a.png,masks/a.png")
    assert ingest(csv, root, anatomy="thyroid", mask_name="nodule").rows["mask"].tolist() == [
        "nodule"
    ]


def test_links_may_lead_out_of_the_folder(root: Path, tmp_path: Path, ingest: Callable) -> None:
    store = picture(tmp_path / "store/7f.png")
    (root / "images/linked.png").symlink_to(store)
    table(root, "image", "images/linked.png")
    assert ingest(csv, root, anatomy="thyroid").about["accepted"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("images/z.png,,,,,,", "z.png is missing"),
        ("../set.png,,,,,,", "'../set.png' is no path inside of the folder"),
        ("/etc/passwd,,,,,,", "'/etc/passwd' is no path inside of the folder"),
        (",,,,,,", "'' is no path inside of the folder"),
        ("images/a.png,heart,,,,,", "unknown anatomy 'heart'"),
        (
            "images/a.png,,phased,,,,",
            "probe 'phased' is not one of linear, convex, sector, unknown",
        ),
        ("images/a.png,,,first,,,", "frame 'first' is not a whole number"),
        ("images/a.png,,,,masks/a.png,,", "nothing says what its mask shows"),
        ("images/a.png,,,,masks/z.png,lv,", "z.png is missing"),
        ("images/a.png,,,,masks/clip-2.png,lv,", "clip-2.png is 64x48, its image 37x35"),
        (
            "clips/one.avi,,,,masks/clip-2.png,lv,",
            "it gives a mask to a video, without the frame that it belongs to",
        ),
        ("clips/one.avi,,,5,,,", "one.avi has no frame 5"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(
    root: Path, ingest: Callable, row: str, reason: str
) -> None:
    table(root, "image,anatomy,probe,frame,mask,mask_name,note", "images/b.png,,,,,,", row)
    done = ingest(csv, root, anatomy="thyroid")
    assert done.refused["list.csv:3"].startswith(reason)
    assert done.rows["id"].tolist() == ["source:images/b.png"]


def test_no_anatomy_an_unknown_split_a_row_twice_and_files_that_are_not_listed(
    root: Path, ingest: Callable
) -> None:
    table(
        root,
        "image,anatomy,split",
        "images/a.png,,train",
        "images/b.png,breast,holdout",
        "images/c.png,breast,train",
        "images/c.png,breast,train",
    )
    refused = ingest(csv, root).refused
    assert refused["list.csv:2"] == "it has no anatomy: fill the column, or give --anatomy"
    assert refused["list.csv:3"] == "split 'holdout' is not train, val or test"
    assert refused["list.csv:5"] == "an image with this id was accepted before"
    unlisted = {name for name, reason in refused.items() if reason == "list.csv does not list it"}
    assert unlisted == {"clips/one.avi", "clips/two.avi", "masks/a.png", "masks/clip-2.png"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture", "images/a.png"], r"lacks the columns \['image'\]"),
        (
            ["image,split", "images/a.png,train", "images/b.png,"],
            "line 3 has no split, others have one",
        ),
        (
            ["image,patient,split", "images/a.png,p,train", "images/b.png,p,test"],
            "p is in two splits, train and test",
        ),
        (
            ["image,split", "images/a.png,train", "images/a.png,test"],
            "images/a.png is in two splits",
        ),
    ],
)
def test_a_table_that_says_no_or_two_things(root: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        csv.read(table(root, *lines), anatomy="breast")


def test_no_table_and_two(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no CSV file"):
        csv.read(root)
    for name in ("one.csv", "two.csv"):
        (root / name).write_text("image\n")
    with pytest.raises(ValueError, match="holds several CSV files"):
        csv.read(root)

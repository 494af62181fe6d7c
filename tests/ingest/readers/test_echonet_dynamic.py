"""EchoNet-Dynamic in miniature: videos, traced chords, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.splits import grouping, read_split
from arl.ingest.contours import polygon_mask
from arl.ingest.readers import echonet_dynamic

LIST = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split\n"
TRACINGS = "FileName,X1,Y1,X2,Y2,Frame\n"
# name, frames, split; the last video is traced at one frame only
VIDEOS = [("0X1A", 7, "TRAIN"), ("0X2B", 6, "VAL"), ("0X3C", 5, "TEST"), ("0X4D", 4, "TRAIN")]
# chords of a ventricle: the long axis first, then left and right ends from the base to the apex
LARGE = [
    (30, 10, 32, 40),
    (22, 12.4, 41.6, 12),
    (20, 20, 44, 20.2),
    (23, 30, 40, 30),
    (29, 38, 34, 38),
]
SMALL = [(30, 12, 32, 36), (25, 14, 37, 14), (26, 25, 36, 25), (29, 34, 33, 34)]


def tracing(name: str, chords: list[tuple[float, ...]], frame: int) -> str:
    return "".join(f"{name},{x1},{y1},{x2},{y2},{frame}\n" for x1, y1, x2, y2 in chords)


@pytest.fixture
def root(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    root = tmp_path / "EchoNet-Dynamic"
    table, traced = LIST, TRACINGS
    for name, frames, split in VIDEOS:
        make_video(root / "Videos" / f"{name}.avi", frames)
        # the size is wrong in the table, as in six official rows
        table += f"{name},55.1,40.0,90.0,768,1024,50,{frames},{split}\n"
        if name != "0X4D":
            traced += tracing(f"{name}.avi", SMALL, 3) + tracing(f"{name}.avi", LARGE, 1)
    (root / "FileList.csv").write_text(table)
    (root / "VolumeTracings.csv").write_text(traced + tracing("0X4D.avi", LARGE, 2))
    return root


def test_every_frame_and_the_masks_of_the_traced_ones(root: Path, ingest: Callable) -> None:
    done = ingest(echonet_dynamic, root)
    rows = done.rows
    assert rows["id"].tolist() == [
        f"source:{name}/{frame:05d}" for name, frames, _ in VIDEOS for frame in range(frames)
    ]
    assert rows["clip"].unique().tolist() == [f"source:{name}" for name, _, _ in VIDEOS]
    assert grouping(rows) == "clip"  # no patients are published
    assert rows[["anatomy", "label", "probe"]].drop_duplicates().values.tolist() == [
        ["cardiac", "A4C", "sector"]
    ]
    assert [(row["clip"], row["frame"]) for _, row in rows[rows["mask"] == "lv"].iterrows()] == [
        (f"source:{name}", frame) for name in ("0X1A", "0X2B", "0X3C") for frame in (1, 3)
    ]
    expected = dict(
        zip([name for name, _, _ in VIDEOS], ["train", "val", "test", "train"], strict=True)
    )
    for protocol in ("official", "default"):
        split = read_split(done.corpus, rows, {"source": protocol})
        assert split.tolist() == [expected[clip.removeprefix("source:")] for clip in rows["clip"]]
    image = read_images(done.corpus, rows.iloc[[3]])[0]
    assert image.shape == (48, 64)
    assert image[40, 60] == pytest.approx(50, abs=4)


def test_the_polygon_is_the_official_one(root: Path, ingest: Callable) -> None:
    """Down the first ends and up the second ones, rounded, without the long axis."""
    done = ingest(echonet_dynamic, root)
    mask = read_masks(done.corpus, done.rows[done.rows["frame"] == 1].iloc[[0]])[0]
    x, y = [22, 20, 23, 29, 34, 40, 44, 42], [12, 20, 30, 38, 38, 30, 20, 12]
    assert np.array_equal(mask, polygon_mask(np.array(x), np.array(y), 48, 64))


def test_the_root_may_be_a_folder_too_high_and_cases_may_differ(
    root: Path, ingest: Callable
) -> None:
    (root / "Videos/0X1A.avi").rename(root / "Videos/0X1A.AVI")
    (root / "Videos").rename(root / "videos")
    (root / "videos/.DS_Store").write_bytes(b"")
    assert ingest(echonet_dynamic, root.parent).about["accepted"] == 4


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def _tear(root: Path) -> None:
    file = root / "Videos/0X1A.avi"
    file.write_bytes(file.read_bytes()[:-900])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "Videos/0X1A.avi").unlink(), "0X1A.avi is missing"),
        (_tear, "0X1A.avi is cut off: it ends before the length that it states"),
        (
            lambda root: _edit(root / "FileList.csv", ",7,TRAIN", ",9,TRAIN"),
            "it decodes to 7 frames, FileList.csv states 9",
        ),
        (
            lambda root: _edit(root / "FileList.csv", ",7,TRAIN", ",7,TRIAL"),
            "split 'TRIAL' is not one of TRAIN, VAL, TEST",
        ),
        (
            lambda root: _edit(
                root / "VolumeTracings.csv",
                tracing("0X1A.avi", SMALL, 3),
                tracing("0X1A.avi", SMALL, 7),
            ),
            "its frame 7 is traced, but it decodes to 7 frames",
        ),
        (
            lambda root: _edit(root / "VolumeTracings.csv", "0X1A.avi,25,14", "0X1A.avi,n/a,14"),
            "the tracing of its frame 3 is no polygon",
        ),
        (
            lambda root: _edit(
                root / "VolumeTracings.csv",
                tracing("0X1A.avi", SMALL, 3),
                tracing("0X1A.avi", [tuple(value + 90 for value in chord) for chord in SMALL], 3),
            ),
            "the tracing of its frame 3 lies outside of the picture",
        ),
    ],
)
def test_a_bad_video_is_quarantined_with_its_reason(
    root: Path, ingest: Callable, spoil, reason: str
) -> None:
    spoil(root)
    done = ingest(echonet_dynamic, root)
    assert done.refused == {"FileList.csv:2 0X1A": reason}
    assert done.about["accepted"] == 3


def test_videos_that_the_list_lacks_and_names_given_twice(
    root: Path, ingest: Callable, make_video: Callable
) -> None:
    make_video(root / "Videos/0X9.avi")
    with (root / "FileList.csv").open("a") as table:
        table.write("0X3C,1,1,1,1,1,1,5,TEST\n")
    assert ingest(echonet_dynamic, root).refused == {
        "FileList.csv:6 0X3C": "an image with this id was accepted before",
        "Videos/0X9.avi": "FileList.csv does not list it",
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("FileList.csv", "Split", "Part", r"FileList.csv lacks the columns \['Split'\]"),
        (
            "VolumeTracings.csv",
            "12,3\n",
            "12,3.5\n",
            "Frame of line .* is '3.5', expected a whole number",
        ),
    ],
)
def test_tables_that_are_not_official(
    root: Path, file: str, old: str, new: str, message: str
) -> None:
    _edit(root / "VolumeTracings.csv", "36,3\n", "12,3\n")
    _edit(root / file, old, new)
    with pytest.raises(ValueError, match=message):
        echonet_dynamic.read(root)


def test_a_root_without_the_tables(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds FileList.csv, VolumeTracings.csv and Videos"
    ):
        echonet_dynamic.read(tmp_path)

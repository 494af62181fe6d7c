"""EchoNet-LVH in miniature: videos in batches, measured frames, what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from arl.corpus.splits import read_split
from arl.ingest.readers import echonet_lvh
from arl.ingest.workers import Read, prepare
from arl.settings import Thinning

HEADER = ",HashedFileName,Calc,CalcValue,Frame,X1,X2,Y1,Y2,Frames,FPS,Width,Height,split\n"
VIDEOS = [("0XA", "Batch1", "train"), ("0XB", "Batch2", "val"), ("0XC", "Batch4", "test")]


def row(name: str, calc: str, frame: int, split: str) -> str:
    return f"0,{name},{calc},1.1,{frame},1,2,3,4,9,50,64,48,{split}\n"


@pytest.fixture
def root(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    root = tmp_path / "EchoNet-LVH"
    table = HEADER
    for name, batch, split in VIDEOS:
        make_video(root / batch / f"{name}.avi", 9)
        table += (
            row(name, "LVIDd", 3, split)
            + row(name, "IVSd", 3, split)
            + row(name, "LVIDs", 8, split)
        )
    (root / "MeasurementsList.csv").write_text(table)
    return root


def test_videos_of_all_batches_with_their_split(root: Path, ingest: Callable) -> None:
    done = ingest(echonet_lvh, root.parent)
    rows = done.rows
    assert rows["id"].tolist() == [
        f"source:{name}/{frame:05d}" for name, _, _ in VIDEOS for frame in range(9)
    ]
    assert rows[["anatomy", "label", "probe"]].drop_duplicates().values.tolist() == [
        ["cardiac", "PLAX", "sector"]
    ]
    assert rows["patient"].isna().all()
    for protocol in ("official", "default"):
        split = read_split(done.corpus, rows, {"source": protocol})
        assert split.tolist() == [split for _, _, split in VIDEOS for _ in range(9)]


def test_measured_frames_are_never_thinned(root: Path) -> None:
    """Frame is 1-based: 3 and 8 are the third and the eighth."""
    read = prepare(echonet_lvh.read(root)[0], 64, Thinning(every=100))
    assert isinstance(read, Read)
    assert [entry.frame for _, entry in read.images] == [0, 2, 7]
    assert read.thinned == 6


def _split(root: Path, old: str, new: str) -> None:
    file = root / "MeasurementsList.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def _tear(root: Path) -> None:
    file = root / "Batch2/0XB.avi"
    file.write_bytes(file.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "Batch2/0XB.avi").unlink(), "0XB.avi is missing"),
        (_tear, "0XB.avi is cut off: it ends before the length that it states"),
        (
            lambda root: _split(root, "48,val", "48,test"),
            "its rows are in several splits: test, val",
        ),
        (
            lambda root: [_split(root, "48,val", "48,other") for _ in range(3)],
            "split 'other' is not train, val or test",
        ),
    ],
)
def test_a_bad_video_is_quarantined_with_its_reason(
    root: Path, ingest: Callable, spoil, reason: str
) -> None:
    spoil(root)
    done = ingest(echonet_lvh, root)
    assert done.refused == {"MeasurementsList.csv 0XB": reason}
    assert done.rows["clip"].unique().tolist() == ["source:0XA", "source:0XC"]


def test_files_that_the_list_lacks_and_a_name_in_two_batches(
    root: Path, ingest: Callable, make_video: Callable[..., Path]
) -> None:
    make_video(root / "Batch3/0XZ.avi")
    make_video(root / "Batch4/0XA.avi")
    (root / "Batch1/notes.txt").write_text("")
    assert ingest(echonet_lvh, root).refused == {
        "Batch1/notes.txt": "MeasurementsList.csv does not list it",
        "Batch3/0XZ.avi": "MeasurementsList.csv does not list it",
        "Batch4/0XA.avi": "another batch holds a video of this name",
    }


def test_what_is_not_the_layout(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds MeasurementsList\.csv and Batch1"):
        echonet_lvh.read(root / "Batch1")
    _split(root, ",split", ",part")
    with pytest.raises(ValueError, match=r"lacks the columns \['split'\]"):
        echonet_lvh.read(root)

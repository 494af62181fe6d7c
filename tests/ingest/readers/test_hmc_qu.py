"""HMC-QU in miniature, in both layouts: names with a space, masks of a cycle, workbooks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from arl.corpus.shard_reader import read_masks
from arl.corpus.splits import grouping
from arl.ingest.readers import hmc_qu

TITLES = [
    "ECHO",
    "SEG1",
    "SEG2",
    "SEG3",
    "SEG5",
    "SEG6",
    "SEG7",
    "Reference Frame",
    "End of Cycle",
    "LV Wall Masks",
]


def workbook(file: Path, rows: list[tuple[str, int, int]], titles: bool = True) -> None:
    book = openpyxl.Workbook()
    if titles:
        book.active.append(TITLES)
    for name, first, last in rows:
        book.active.append([name, *["non-MI"] * 6, first, last, "ü"])
    book.save(file)


def wall(frames: int) -> np.ndarray:
    """(F, 224, 224): a block that moves one pixel a frame to the right."""
    walls = np.zeros((frames, 224, 224), np.uint8)
    for frame in range(frames):
        walls[frame, 20:120, 10 + frame : 60 + frame] = 1
    return walls


@pytest.fixture
def root(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """The newer layout; the second video has no mask."""
    root = tmp_path / "HMC-QU"
    masks = root / "LV Ground-truth Segmentation Masks"
    masks.mkdir(parents=True)
    make_video(root / "A4C/ES0001 _4CH_1.avi", 9, 224, 336)
    make_video(root / "A4C/ES00012_4CH_2.avi", 8, 224, 336)
    make_video(root / "A2C/ES0001 _2CH_1.avi", 7, 224, 336)
    workbook(root / "A4C.xlsx", [("ES0001 _4CH_1", 3, 7), ("ES00012_4CH_2", 1, 8)])
    workbook(root / "A2C.xlsx", [("ES0001 _2CH_1", 1, 7)])
    savemat(masks / "Mask_ES0001 _4CH_1.mat", {"predicted": wall(5)})
    return root


def test_views_patients_and_the_masks_of_the_cycle(root: Path, ingest: Callable) -> None:
    done = ingest(hmc_qu, root)
    rows = done.rows
    keys = [("ES0001_2CH_1", 7), ("ES0001_4CH_1", 9), ("ES00012_4CH_2", 8)]
    assert rows["id"].tolist() == [
        f"source:{name}/{frame:05d}" for name, count in keys for frame in range(count)
    ]
    assert rows["label"].tolist() == ["A2C"] * 7 + ["A4C"] * 17
    assert rows["patient"].unique().tolist() == ["source:ES0001", "source:ES0012"]
    assert grouping(rows) == "patient"
    masked = rows[rows["mask"] == "lv_wall"]
    assert masked["clip"].unique().tolist() == ["source:ES0001_4CH_1"]
    assert masked["frame"].tolist() == [2, 3, 4, 5, 6]  # 3 to 7 of the workbook
    for number, mask in enumerate(read_masks(done.corpus, masked)):
        assert mask.shape == (224, 336)
        columns = np.flatnonzero(mask.any(axis=0))
        assert (columns[0], columns[-1]) == (
            pytest.approx(15 + 1.5 * number, abs=1),
            pytest.approx(89 + 1.5 * number, abs=1),
        )
        assert np.flatnonzero(mask.any(axis=1))[[0, -1]].tolist() == [20, 119]


def test_the_older_layout_with_a_workbook_without_titles(
    tmp_path: Path, ingest: Callable, make_video: Callable[..., Path]
) -> None:
    root = tmp_path / "download"
    make_video(root / "HMC-QU Echos/HMC-QU Echos/ES0002_4CH_1.AVI", 6, 224, 336)
    workbook(root / "HMC_QU.xlsx", [("ES0002_4CH_1", 2, 4)], titles=False)
    (root / "masks").mkdir()
    savemat(root / "masks/Mask_ES0002_4CH_1.mat", {"predicted": wall(3) * np.uint8(255)})
    done = ingest(hmc_qu, root)
    assert done.rows["mask"].notna().tolist() == [False, True, True, True, False, False]


def test_a_mask_of_every_frame_needs_no_workbook(root: Path, ingest: Callable) -> None:
    (root / "A4C.xlsx").unlink()
    savemat(
        root / "LV Ground-truth Segmentation Masks/Mask_ES0001 _4CH_1.mat", {"predicted": wall(9)}
    )
    done = ingest(hmc_qu, root)
    assert done.rows["mask"].notna().sum() == 9


def _mask(**variables: object) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        savemat(root / "LV Ground-truth Segmentation Masks/Mask_ES0001 _4CH_1.mat", variables)

    return spoil


def _tear(root: Path) -> None:
    file = root / "A4C/ES0001 _4CH_1.avi"
    file.write_bytes(file.read_bytes()[:-2000])


def _tear_mask(root: Path) -> None:
    (root / "LV Ground-truth Segmentation Masks/Mask_ES0001 _4CH_1.mat").write_bytes(b"MATLAB 5.0")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_tear, "ES0001 _4CH_1.avi is cut off: it ends before the length that it states"),
        (_tear_mask, "Mask_ES0001 _4CH_1.mat is not a readable MATLAB file"),
        (_mask(other=wall(5)), "Mask_ES0001 _4CH_1.mat lacks the variable 'predicted'"),
        (_mask(predicted=wall(4)), "Mask_ES0001 _4CH_1.mat has 4 frames, its cycle 5, its video 9"),
        (_mask(predicted=wall(5) * 0), "Mask_ES0001 _4CH_1.mat is empty at frame 2"),
        (_mask(predicted=wall(5)[0]), "Mask_ES0001 _4CH_1.mat: `predicted` is (224, 224) of uint8"),
        (
            _mask(predicted=wall(5) * 0.3 + 0.1),
            "Mask_ES0001 _4CH_1.mat: `predicted` is (5, 224, 224) of float64",
        ),
        (
            lambda root: workbook(root / "A4C.xlsx", [("ES0001 _4CH_1", 6, 10)]),
            "its cycle is 6 to 10, but it decodes to 9 frames",
        ),
    ],
)
def test_a_bad_video_or_mask_is_quarantined_with_its_reason(
    root: Path, ingest: Callable, spoil, reason: str
) -> None:
    spoil(root)
    done = ingest(hmc_qu, root)
    assert list(done.refused) == ["A4C/ES0001 _4CH_1.avi"]
    assert done.refused["A4C/ES0001 _4CH_1.avi"].startswith(reason)
    assert done.about["accepted"] == 2


def test_names_that_say_nothing_and_files_that_belong_to_none(
    root: Path, ingest: Callable, make_video: Callable[..., Path]
) -> None:
    make_video(root / "A4C/demo.avi")
    make_video(root / "copy/ES0001_4CH_1.avi", 9, 224, 336)
    savemat(root / "A4C/Mask_ES0099_4CH_1.mat", {"predicted": wall(5)})
    (root / "readme.txt").write_text("")
    assert ingest(hmc_qu, root).refused == {
        "A4C/demo.avi": "its name has no number ES... and no view 2CH or 4CH",
        "A4C/Mask_ES0099_4CH_1.mat": "there is no video of this name",
        "copy/ES0001_4CH_1.avi": "an image with this id was accepted before",
        "readme.txt": "it is neither a video nor a mask",
    }


def test_two_workbooks_that_disagree(root: Path) -> None:
    workbook(root / "A4C (old).xlsx", [("ES0001_4CH_1", 2, 7)])
    with pytest.raises(ValueError, match=r"ES0001_4CH_1 has the cycle .* another row has"):
        hmc_qu.read(root)


def test_a_root_without_videos(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no video of the name ES0001"):
        hmc_qu.read(tmp_path)

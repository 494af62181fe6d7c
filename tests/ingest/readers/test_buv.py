"""BUV: the errata with and without their x, lists of either name, videos as clips, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arl.ingest.readers import buv

FRAMES = 3
VIDEOS = [f"benign/x{number:015x}" for number in range(1, 10)] + [
    f"malignant/{number:x}" for number in range(500, 507)
]
COPY, ORIGINAL = "benign/x66ef02e7f1b9a0ef", "malignant/x3b88488853e8b7d1"
ERRATA = [
    "benign/63c9ba1377f35bf6",
    "benign/x5a1c46ec6377e946",
    "malignant/x2390fbea047347b",
    "malignant/7a39ab5d4970bf89",
]
ONE_VIDEO = ["benign/x1282311c38f808f", "malignant/x9c1c965d274c457"]
ALL = [*VIDEOS, COPY, ORIGINAL, *ERRATA, *ONE_VIDEO]
HELD_OUT = [VIDEOS[0], VIDEOS[-1]]


def seed(video: str, frame: int) -> int:
    return 100 * ALL.index(video) + frame


def coco(videos: list[str]) -> str:
    """The lists sample frames: here the first one of each video."""
    names = [{"id": number, "name": video} for number, video in enumerate(videos, start=1)]
    images = [
        {"id": number, "video_id": number, "frame_id": 0, "file_name": f"{video}/000000.png"}
        for number, video in enumerate(videos, start=1)
    ]
    boxes = [
        {"id": image["id"], "image_id": image["id"], "bbox": [1, 2, 3, 4], "category_id": 1}
        for image in images
    ]
    return json.dumps({"categories": [], "videos": names, "images": images, "annotations": boxes})


def lists(
    root: Path, training: str = "train.json", held_out: str = "val.json", out: list[str] = HELD_OUT
) -> None:
    (root / training).write_text(coco([video for video in ALL if video not in out]))
    (root / held_out).write_text(coco(out))


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "miccai_buv"
    for video in ALL:
        for frame in range(FRAMES):
            save(
                root / "rawframes" / video / f"{frame:06}.png", picture(seed(video, frame), 37, 41)
            )
    lists(root)
    return root


def test_frames_are_clips_in_order(root: Path, batch_of: Callable, picture: Callable) -> None:
    done = batch_of(buv, root.parent)
    kept = [video for video in ALL if video != COPY]
    assert sorted(done.ids()) == sorted(
        f"{video}/{frame:06}" for video in kept for frame in range(FRAMES)
    )
    key = f"{VIDEOS[3]}/000002"
    assert done.column("clip")[key] == f"buv:{VIDEOS[3]}"
    assert done.column("frame")[key] == 2
    assert np.array_equal(done.image(key), picture(seed(VIDEOS[3], 2), 37, 41))
    assert set(done.rows["anatomy"]) == {"breast"}


def test_errata(root: Path, batch_of: Callable) -> None:
    done = batch_of(buv, root)
    assert done.refused == {
        f"rawframes/{COPY}": "by the errata it is a wrong copy of a malignant video"
    }
    label, patient = done.column("label"), done.column("patient")
    for video in ALL:
        key = f"{video}/000000"
        if video in ERRATA:
            assert (label[key], patient[key]) == ("malignant", "buv:errata")
        elif video in ONE_VIDEO:
            assert (label[key], patient[key]) == (None, "buv:same-video")
        elif video != COPY:
            assert (label[key], patient[key]) == (video.split("/")[0], None)


@pytest.mark.parametrize(
    ("training", "held_out", "name"),
    [
        ("train.json", "val.json", "val"),
        ("trainval.json", "test.json", "test"),
        ("imagenet_vid_train_15frames.json", "imagenet_vid_val.json", "val"),
    ],
)
def test_official_lists_of_either_name(
    root: Path, batch_of: Callable, training: str, held_out: str, name: str
) -> None:
    for file in ("train.json", "val.json"):
        (root / file).unlink()
    lists(root, training, held_out)
    done = batch_of(buv, root / "rawframes")  # the lists lie beside the root
    official, default = done.split("official"), done.split("default")
    out = {f"{video}/{frame:06}" for video in HELD_OUT for frame in range(FRAMES)}
    assert {key for key, split in official.items() if split == name} == out
    assert {split for key, split in official.items() if key not in out} == {"train"}
    assert {key for key, split in default.items() if split == "test"} == out
    assert "val" in default.values()
    for video in ALL:
        assert len({split for key, split in default.items() if key.startswith(f"{video}/")}) <= 1


@pytest.mark.parametrize("group", [ERRATA, ONE_VIDEO])
def test_what_is_of_one_patient_follows_the_held_out_video(
    root: Path, batch_of: Callable, group: list[str]
) -> None:
    lists(root, out=[*HELD_OUT, group[1]])
    done = batch_of(buv, root)
    for protocol, name in (("official", "val"), ("default", "test")):
        split = done.split(protocol)
        assert {split[f"{video}/000001"] for video in group} == {name}


def test_videos_that_no_list_names_are_for_training(root: Path, batch_of: Callable) -> None:
    (root / "train.json").write_text(coco(VIDEOS[1:4]))
    assert batch_of(buv, root).split("official")[f"{VIDEOS[5]}/000000"] == "train"


def test_without_lists_clips_are_not_divided(root: Path, batch_of: Callable) -> None:
    for file in ("train.json", "val.json"):
        (root / file).unlink()
    done = batch_of(buv, root)
    split = done.split("default")
    assert not (done.corpus / "buv/0000/splits/official.parquet").exists()
    assert all(
        len({split[f"{video}/{frame:06}"] for frame in range(FRAMES)}) == 1 for video in VIDEOS
    )
    assert len({split[f"{video}/000000"] for video in ERRATA}) == 1


def test_refusals(root: Path, batch_of: Callable) -> None:
    frames = root / "rawframes"
    (frames / VIDEOS[1] / "000001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for file in (frames / VIDEOS[2]).iterdir():
        file.unlink()
    (frames / VIDEOS[0] / "000002.png").rename(frames / VIDEOS[0] / "last.png")
    (frames / VIDEOS[0] / "boxes.txt").write_text("")
    (frames / VIDEOS[0] / "Thumbs.db").write_text("")
    (frames / "benign" / "000000.png").write_bytes(b"")
    (frames / "errata.txt").write_text("")
    (frames / "unsure").mkdir()
    (frames / "unsure" / "000000.png").write_bytes(b"")
    done = batch_of(buv, root)
    assert done.refused.pop(f"rawframes/{VIDEOS[1]}").startswith(
        "000001.png is not a readable picture"
    )
    assert done.refused == {
        f"rawframes/{COPY}": "by the errata it is a wrong copy of a malignant video",
        f"rawframes/{VIDEOS[2]}": "it holds no image",
        f"rawframes/{VIDEOS[0]}/last.png": "it is no frame of a video",
        f"rawframes/{VIDEOS[0]}/boxes.txt": "it is no frame of a video",
        "rawframes/benign/000000.png": "it is no frame of a video",
        "rawframes/errata.txt": "it is no frame of a video",
        "rawframes/unsure/000000.png": "it is no frame of a video",
    }
    kept = done.ids()
    assert f"{VIDEOS[0]}/000001" in kept
    assert not any(key.startswith((VIDEOS[1], VIDEOS[2])) for key in kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "val.json").unlink(), r"train.json is there without its other list"),
        (lambda root: (root / "val.json").write_text("{"), r"val.json is no list in COCO style"),
        (
            lambda root: (root / "val.json").write_text('{"images": [{"file_name": "1.png"}]}'),
            r"val.json is no list",
        ),
        (
            lambda root: (root / "val.json").write_text(coco([VIDEOS[3].replace("x", "")])),
            r"train.json and .*val.json both list the video 000000000000004",
        ),
    ],
)
def test_lists_that_cannot_be_used(root: Path, spoil, message: str) -> None:
    spoil(root)
    with pytest.raises(ValueError, match=message):
        buv.read(root)


def test_a_root_without_videos(tmp_path: Path, save: Callable) -> None:
    for label in ("benign", "malignant"):  # of BUSI, say
        save(tmp_path / "BUSI" / label / "1.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(FileNotFoundError, match="holds folders of videos in benign and malignant"):
        buv.read(tmp_path)

"""BUV: videos of breast lesions (Lin et al., MICCAI 2022), with the errata of its authors."""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath

from arl.corpus.record import Entry, Input, Record, refusal
from arl.corpus.splits import DEFAULT, keep_test
from arl.ingest.folders import child, entries, files_below, member, pictures, refuse_all, search
from arl.ingest.pictures import read_picture
from arl.ingest.source import Source, without_options

_LABELS = ("benign", "malignant")
_NO_FRAME = "it is no frame of a video"
# The authors' errata: a copy, videos with a wrong class, and a video that lies in both classes.
_COPY = "66ef02e7f1b9a0ef"
_MALIGNANT = ("63c9ba1377f35bf6", "5a1c46ec6377e946", "2390fbea047347b", "7a39ab5d4970bf89")
_ONE_VIDEO = ("1282311c38f808f", "9c1c965d274c457")
_LISTS = (
    ("trainval.json", "test.json"),
    ("train.json", "val.json"),
    ("imagenet_vid_train*.json", "imagenet_vid_val.json"),
)
_PATIENTS = dict.fromkeys(_MALIGNANT, "errata") | dict.fromkeys(_ONE_VIDEO, "same-video")


def read(root: Path) -> list[Input]:
    """One input for each video, and for each file below rawframes that is no frame of one.

    Raises:
        FileNotFoundError: there are no folders of videos.
        ValueError: a list is not in COCO style, only one of a pair is there, or a video is in both.
    """
    frames = search(root, _is_layout)
    if frames is None:
        raise FileNotFoundError(
            f"neither {root} nor a folder in it holds folders of videos in benign and malignant"
        )
    official = _official(frames.parent)
    folders = [member(frames, label) for label in _LABELS]
    videos = [video for folder in folders for video in entries(folder) if video.is_dir()]
    inputs = [item for video in videos for item in _inputs(root, video, official)]
    strays = [file for path in entries(frames) if path not in folders for file in files_below(path)]
    strays += [file for folder in folders for file in entries(folder) if not file.is_dir()]
    return inputs + refuse_all(root, strays, _NO_FRAME)


def _is_layout(folder: Path) -> bool:
    held = [child(folder, label) for label in _LABELS]
    return all(held) and any(path.is_dir() for label in held if label for path in entries(label))


def _official(folder: Path) -> dict[str, str] | None:
    """Video -> its split by the lists, None without lists; videos of one patient together."""
    lists = _lists(folder)
    if lists is None:
        return None
    training, held_out = map(_videos, lists)
    both = training & held_out
    if both:
        raise ValueError(f"{lists[0]} and {lists[1]} both list the video {min(both)}")
    splits = dict.fromkeys(training, "train")
    splits |= dict.fromkeys(held_out, "test" if lists[1].name.lower() == "test.json" else "val")
    # Two videos of one patient in both lists: the held-out list wins, as in all other splits.
    for patient in set(_PATIENTS.values()):
        members = [video for video, of in _PATIENTS.items() if of == patient]
        follow = next(
            (splits[video] for video in members if splits.get(video, "train") != "train"), "train"
        )
        splits |= dict.fromkeys(members, follow)
    return splits


def _lists(folder: Path) -> tuple[Path, Path] | None:
    """The list of videos for training and that of those held out."""
    lone: list[Path] = []
    for pair in _LISTS:
        # The official list is imagenet_vid_train_15frames.json; other numbers of frames match, too.
        result = [
            file
            for pattern in pair
            for file in [path for path in entries(folder) if fnmatch(path.name.lower(), pattern)][
                :1
            ]
        ]
        if len(result) == 2:
            return result[0], result[1]
        lone += result
    if lone:
        raise ValueError(
            f"{lone[0]} is there without its other list, so which videos are held out is not known"
        )
    return None


def _videos(file: Path) -> set[str]:
    """The videos of a list, as `_video` names them."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        names = [image["file_name"] for image in content["images"]]
        return {_video(PurePosixPath(name.replace("\\", "/")).parts[-2]) for name in names}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{file} is no list in COCO style with images of a file_name <video>/<frame>"
        ) from error


def _video(name: str) -> str:
    return name.lower().removeprefix("x")


def _inputs(root: Path, video: Path, official: dict[str, str] | None) -> list[Input]:
    files, strays = pictures(video)
    folder, identifier = video.parent.name.lower(), _video(video.name)
    name = video.relative_to(root).as_posix()
    if folder == "benign" and identifier == _COPY:
        return [refusal(name, "by the errata it is a wrong copy of a malignant video")]
    split = None if official is None else official.get(identifier, "train")
    frames = [file for stem, file in files.items() if stem.isdecimal()]
    strays += [file for stem, file in files.items() if not stem.isdecimal()]
    return [
        Input(name, partial(_records, folder, video.name, split, frames)),
        *refuse_all(root, strays, _NO_FRAME),
    ]


def _records(folder: str, video: str, split: str | None, files: list[Path]) -> Iterator[Record]:
    identifier, clip = _video(video), f"{folder}/{video}"
    patient = _PATIENTS.get(identifier)
    # The errata name one video that lies in both classes: its class is unknown.
    label = (
        None if identifier in _ONE_VIDEO else "malignant" if identifier in _MALIGNANT else folder
    )
    splits = {}
    if split is not None:
        # Without an official test, the held-out videos serve as the test.
        official = "train" if split == "train" else "test"
        splits = {"official": split, DEFAULT: keep_test(official, patient or clip)}
    for file in files:
        entry = Entry(
            key=f"{clip}/{file.stem}",
            patient=patient,
            clip=clip,
            frame=int(file.stem),
            anatomy="breast",
            probe="linear",
            label=label,
            splits=splits,
        )
        yield Record(read_picture(file), entry)


SOURCE = Source(
    name="buv",
    title=(
        "BUV: videos of breast lesions (Lin et al., MICCAI 2022), with the errata of its authors."
    ),
    read=without_options(read),
    licence="Non-commercial research and education only",
    citation=(
        "Z. Lin, J. Lin, L. Zhu, H. Fu, J. Qin, L. Wang, A new dataset and a baseline model "
        "for breast lesion detection in ultrasound videos, MICCAI 2022"
    ),
    obtain="GitHub jhl-Det/CVA-Net, which links the download; open",
    layout=(
        "<root>/rawframes/{benign,malignant}/<video>/000000.png, and lists in COCO style "
        "beside rawframes: train.json and val.json, imagenet_vid_train_15frames.json and "
        "imagenet_vid_val.json, or trainval.json and test.json, which are used where there "
        "are several pairs; the layout may lie up to four folders below the root. Without "
        "any list there is no official split."
    ),
    keys="<folder>/<video>/<frame>",
    coding=(
        "label = the folder, after the errata: benign/x63c9ba1377f35bf6 and "
        "benign/x5a1c46ec6377e946 are malignant, and benign/x66ef02e7f1b9a0ef is a wrong "
        'copy of malignant/x3b88488853e8b7d1. Videos are compared without the "x" that '
        "begins some names. Others report that benign/x1282311c38f808f and "
        "malignant/x9c1c965d274c457 are one video: neither keeps its label, and both stay "
        "together. The boxes of the lists are not read."
    ),
    patient=(
        "Not published, except that the errata name four videos of one patient. Clip: the "
        "video, frames from 0. 188 videos, of which the lists sample frames: the split is "
        "the video's."
    ),
    split=(
        '"official": the lists as they are, a video that none names is train, and videos '
        'known to be of one patient follow those that are held out. "default": what is held '
        "out is the test, and a part of the others is val."
    ),
    refuses=(
        "The wrong copy, a video with a damaged frame or without frames, a file that is no "
        "frame of a video or whose name is no number."
    ),
)

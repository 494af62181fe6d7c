"""EchoNet-Dynamic: apical four-chamber echocardiography videos with traced left ventricles."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.corpus.pixels import as_grey
from arl.corpus.record import Entry, Input, Mask, Record, Refused, refusal
from arl.corpus.splits import DEFAULT
from arl.ingest.clips import clip_records
from arl.ingest.contours import polygon_mask
from arl.ingest.folders import files_below, locate, member
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv
from arl.ingest.video import read_frames

_SPLIT_OF = {"TRAIN": "train", "VAL": "val", "TEST": "test"}
_CORNERS = ["X1", "Y1", "X2", "Y2"]
# Frame -> (rows, 4): X1, Y1, X2, Y2.
_Tracings = dict[int, npt.NDArray[np.float64]]


def read(root: Path) -> list[Input]:
    """One input for each row of FileList.csv, and for each file of Videos that it does not list.

    Raises:
        FileNotFoundError: there is no folder with FileList.csv, VolumeTracings.csv and Videos.
        ValueError: a table lacks a column or holds a frame that is no number.
    """
    home = locate(root, "FileList.csv", "VolumeTracings.csv", "Videos")
    table = read_csv(member(home, "FileList.csv"), ["FileName", "NumberOfFrames", "Split"])
    tracings = _tracings(member(home, "VolumeTracings.csv"))
    videos = {file.name.lower(): file for file in files_below(member(home, "Videos"))}
    listed = []
    for line, (name, frames, split) in enumerate(table.to_numpy(), start=2):
        stem = _stem(name)
        video = videos.get(f"{stem}.avi".lower(), home / f"{stem}.avi")
        records = partial(_records, video, stem, frames, split.upper(), tracings.get(stem, {}))
        listed.append(Input(f"FileList.csv:{line} {stem}", records))
    names_listed = {f"{_stem(name)}.avi".lower() for name in table["FileName"]}
    strays = [
        file.relative_to(home).as_posix()
        for name, file in videos.items()
        if name not in names_listed
    ]
    return listed + [refusal(stray, "FileList.csv does not list it") for stray in strays]


def _stem(name: str) -> str:
    """FileList.csv names videos without .avi, VolumeTracings.csv with it."""
    return name[:-4] if name.lower().endswith(".avi") else name


def _tracings(file: Path) -> dict[str, _Tracings]:
    table = read_csv(file, ["FileName", *_CORNERS, "Frame"])
    numbers = table[[*_CORNERS, "Frame"]].apply(pd.to_numeric, errors="coerce")
    wrong = numbers["Frame"].isna() | (numbers["Frame"] % 1 != 0)
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        raise ValueError(
            f"{file}: Frame of line {line} is {table['Frame'][line - 2]!r}, expected a whole number"
        )
    traced: dict[str, _Tracings] = {}
    for (name, frame), rows in numbers.groupby(
        [table["FileName"].map(_stem), numbers["Frame"]], sort=False
    ):
        traced.setdefault(str(name), {})[int(frame)] = rows[_CORNERS].to_numpy(np.float64)
    return traced


def _records(
    video: Path, stem: str, frames: str, split: str, tracings: _Tracings
) -> Iterator[Record]:
    if split not in _SPLIT_OF:
        raise Refused(f"split {split!r} is not one of {', '.join(_SPLIT_OF)}")
    splits = dict.fromkeys(("official", DEFAULT), _SPLIT_OF[split])
    clip = Entry(key=stem, anatomy="cardiac", probe="sector", label="A4C", splits=splits)
    # The official code leaves out videos with fewer than two traced frames.
    traced = tracings if len(tracings) > 1 else {}
    count = 0
    for record in clip_records(enumerate(map(as_grey, read_frames(video))), clip, official=traced):
        frame = record.entry.frame
        count += 1
        if frame in traced:
            mask = _mask(traced[frame], frame, *record.image.shape)
            yield Record(record.image, replace(record.entry, mask_name="lv"), mask)
        else:
            yield record
    _check_count(count, frames, traced)


def _check_count(count: int, stated: str, traced: _Tracings) -> None:
    """Fewer frames than there should be: some were lost, and the traced ones may be others."""
    if stated.removesuffix(".0").isdecimal() and count < float(stated):
        raise Refused(f"it decodes to {count} frames, FileList.csv states {stated}")
    beyond = [frame for frame in traced if not 0 <= frame < count]
    if beyond:
        raise Refused(f"its frame {beyond[0]} is traced, but it decodes to {count} frames")


def _mask(rows: npt.NDArray[np.float64], frame: int, height: int, width: int) -> Mask:
    """The polygon down the first points of the chords and up the second points.

    The first row is the long axis and is left out.
    """
    if not np.isfinite(rows).all() or len(rows) < 3:
        raise Refused(f"the tracing of its frame {frame} is no polygon")
    x = np.concatenate([rows[1:, 0], rows[:0:-1, 2]])
    y = np.concatenate([rows[1:, 1], rows[:0:-1, 3]])
    mask = polygon_mask(np.rint(x).astype(np.int64), np.rint(y).astype(np.int64), height, width)
    if not mask.any():
        raise Refused(f"the tracing of its frame {frame} lies outside of the picture")
    return mask


SOURCE = Source(
    name="echonet-dynamic",
    title=(
        "EchoNet-Dynamic: apical four-chamber echocardiography videos with traced left "
        "ventricles (Ouyang et al., 2020)."
    ),
    read=without_options(read),
    licence=(
        "Stanford University research use agreement: non-commercial research, no redistribution"
    ),
    citation=(
        "D. Ouyang, B. He, A. Ghorbani et al., Video-based AI for beat-to-beat assessment "
        "of cardiac function, Nature 580, 2020, doi:10.1038/s41586-020-2145-8"
    ),
    obtain=(
        "https://echonet.github.io/dynamic/: register with Stanford AIMI and accept the agreement"
    ),
    layout=("<root>/FileList.csv, VolumeTracings.csv, Videos/0X....avi (MJPEG, 112 x 112)"),
    keys="<FileName>/<frame>, without .avi; frames are 0-based as they decode.",
    coding=(
        'Grey; label = the view, A4C. Mask "lv" of the frames that VolumeTracings.csv '
        "traces, end-diastole and end-systole: its first row is the long axis and is left "
        "out, the rest is one polygon, rounded and filled as the official code does. A "
        "video with fewer than two traced frames, which the official code leaves out, is "
        "kept without masks. The ejection fraction has no column in the manifest."
    ),
    patient="Not published. Clip: the video.",
    split="Official: `Split` (TRAIN, VAL, TEST); it is the default.",
    refuses=(
        "A missing, torn or damaged video, one with fewer frames than FileList.csv states "
        "or than are traced, a tracing that is no polygon in the picture, an unknown split, "
        "a name given twice, files of Videos that FileList.csv does not list. FrameHeight "
        "and FrameWidth are not used: they are wrong in six official rows."
    ),
)

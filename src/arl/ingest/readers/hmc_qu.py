"""HMC-QU: apical two- and four-chamber echocardiography of suspected infarction."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from arl.corpus.pixels import as_grey
from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused, refusal
from arl.ingest.clips import clip_records
from arl.ingest.folders import files_below
from arl.ingest.matlab import read_mat
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_xlsx
from arl.ingest.video import read_frames

_VIEWS = {"2CH": "A2C", "4CH": "A4C"}
_NAME = re.compile(r"ES0*(\d+)_?([24]CH).*", re.IGNORECASE)
# Columns of the workbooks, where no row of titles names them.
_REFERENCE, _END = 7, 8
# First and last frame, 1-based, inclusive.
_Cycle = tuple[int, int]


def read(root: Path) -> list[Input]:
    """One input for each video, and each file that is no mask of a video and no workbook.

    Raises:
        FileNotFoundError: there is no video whose name begins with ES and a number.
        ValueError: a workbook is damaged, or gives a video two cycles.
    """
    files = files_below(root) if root.is_dir() else []
    videos = [file for file in files if file.suffix.lower() == ".avi"]
    if not any(_NAME.fullmatch(_name(file)) for file in videos):
        raise FileNotFoundError(
            f"{root} holds no video of the name ES0001 _4CH_1.avi: is it the unpacked download?"
        )
    masks = {_name(file): file for file in files if file.suffix.lower() == ".mat"}
    # Excel leaves lock files named ~$... beside an open workbook.
    workbooks = [
        file for file in files if file.suffix.lower() == ".xlsx" and not file.name.startswith("~$")
    ]
    cycles = _cycles(workbooks)
    result = [
        Input(
            file.relative_to(root).as_posix(),
            partial(_records, file, masks.get(_name(file)), cycles.get(_name(file))),
        )
        for file in videos
    ]
    return result + _others(root, files, {*map(_name, videos)}, workbooks)


def _name(file: Path) -> str:
    """ES0001_4CH_1 for 'ES0001 _4CH_1.avi' and 'Mask_ES0001 _4CH_1.mat'."""
    return re.sub(r"(?i)^mask_", "", re.sub(r"\s", "", file.stem)).upper()


def _others(root: Path, files: list[Path], videos: set[str], workbooks: list[Path]) -> list[Input]:
    inputs = []
    for file in files:
        kind = file.suffix.lower()
        if kind == ".avi" or file in workbooks or (kind == ".mat" and _name(file) in videos):
            continue
        reason = (
            "there is no video of this name"
            if kind == ".mat"
            else "it is neither a video nor a mask"
        )
        inputs.append(refusal(file.relative_to(root).as_posix(), reason))
    return inputs


def _cycles(workbooks: list[Path]) -> dict[str, _Cycle]:
    """Name -> cycle, from all workbooks."""
    cycles: dict[str, _Cycle] = {}
    for file in workbooks:
        rows = read_xlsx(file)
        first, last = _columns(rows)
        for row in rows:
            name = _name(Path(f"{row[0]}.avi")).removesuffix(".AVI") if row else ""
            if not _NAME.fullmatch(name) or max(first, last) >= len(row):
                continue
            if not (row[first].isdecimal() and row[last].isdecimal()):
                continue
            cycle = int(row[first]), int(row[last])
            if cycles.setdefault(name, cycle) != cycle:
                raise ValueError(
                    f"{file}: {name} has the cycle {cycle}, another row has {cycles[name]}"
                )
    return cycles


def _columns(rows: list[list[str]]) -> _Cycle:
    """Columns of the first and last frame of the cycle, by title, else as in the official set."""
    # Titles stand in one of the first rows, below a heading.
    for row in rows[:5]:
        titles = [cell.lower() for cell in row]
        first = next(
            (column for column, title in enumerate(titles) if title.startswith("reference")), None
        )
        last = next(
            (column for column, title in enumerate(titles) if title.startswith("end of")), None
        )
        if first is not None and last is not None:
            return first, last
    return _REFERENCE, _END


def _records(video: Path, mask: Path | None, cycle: _Cycle | None) -> Iterator[Record]:
    name = _name(video)
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise Refused("its name has no number ES... and no view 2CH or 4CH")
    clip = Entry(
        key=name,
        patient=f"ES{int(parts[1]):04d}",
        anatomy="cardiac",
        probe="sector",
        label=_VIEWS[parts[2].upper()],
    )
    if mask is None:
        yield from clip_records(enumerate(map(as_grey, read_frames(video))), clip)
        return
    # The masks must fit the number of frames, so all frames are decoded first.
    frames = [as_grey(frame) for frame in read_frames(video)]
    masks = _masks(mask, frames, cycle)
    yield from clip_records(
        enumerate(frames), clip, masks=masks, mask_name="lv_wall", official=masks
    )


def _masks(file: Path, frames: list[Pixels], cycle: _Cycle | None) -> dict[int, Mask]:
    """Frame, 0-based -> wall; on the cycle's frames, or on all of them."""
    try:
        walls = read_mat(file, "predicted")
    except ValueError as error:
        raise Refused(str(error)) from error
    if (
        walls.ndim != 3
        or walls.dtype.kind not in "buif"
        or not np.isin(walls, (0, walls.max(initial=1))).all()
    ):
        raise Refused(
            f"{file.name}: `predicted` is {walls.shape} of {walls.dtype}, "
            "expected two levels, (F, H, W)"
        )
    first, last = cycle or (1, len(frames))
    if not 1 <= first <= last <= len(frames):
        raise Refused(f"its cycle is {first} to {last}, but it decodes to {len(frames)} frames")
    # Some masks cover the whole video, the others its cycle only.
    if len(walls) == len(frames):
        first = 1
    elif len(walls) != last - first + 1:
        raise Refused(
            f"{file.name} has {len(walls)} frames, its cycle {last - first + 1}, "
            f"its video {len(frames)}"
        )
    height, width = frames[0].shape
    masks = {}
    for frame, wall in enumerate((walls > 0).astype(np.uint8), start=first - 1):
        scaled = cv2.resize(wall, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.bool_)
        if not scaled.any():
            raise Refused(f"{file.name} is empty at frame {frame}")
        masks[frame] = np.asarray(scaled)
    return masks


SOURCE = Source(
    name="hmc-qu",
    title=(
        "HMC-QU: apical two- and four-chamber echocardiography of suspected infarction "
        "(Kiranyaz et al., Degerli et al.)."
    ),
    read=without_options(read),
    licence="Not stated by the download",
    citation=(
        "S. Kiranyaz, A. Degerli, T. Hamid et al., Left ventricular wall motion estimation "
        "by active polynomials for acute myocardial infarction detection, IEEE Access 8, "
        "2020, doi:10.1109/ACCESS.2020.3038743"
    ),
    obtain="https://www.kaggle.com/datasets/aysendegerli/hmcqu-dataset (login)",
    layout=(
        "Any tree with videos ES0001 _4CH_1.avi (a space may stand before the underscore), "
        "masks Mask_ES0001 _4CH_1.mat and workbooks A4C.xlsx, A2C.xlsx (newer) or "
        "HMC_QU.xlsx (older); names decide, so that both layouts are read."
    ),
    keys=("<name without spaces>/<frame>, e.g. ES0001_4CH_1/00012; 0-based as it decodes."),
    coding=(
        'Grey; label = the view, A2C or A4C. Mask "lv_wall" = `predicted` (F, 224, 224) of '
        "the .mat file, scaled to the video, on the F frames from Reference Frame to End of "
        "Cycle (1-based, inclusive) of the workbook, or on all F frames. It is the "
        "ventricle's wall, not its cavity. Infarcted segments have no column in the "
        "manifest."
    ),
    patient="The ES number; patients are in both views. Clip: the video.",
    split="No official split.",
    refuses=(
        "A torn or damaged video, a name without view or number, a mask that is damaged, "
        "empty, or of neither as many frames as the cycle nor as the video, a mask without "
        "a video, files of other kinds, a name found twice."
    ),
)

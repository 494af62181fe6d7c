"""Thyroid Ultrasound Cine-clip: sweeps over biopsied nodules with masks (Stanford AIMI)."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, stratified
from arl.ingest.folders import locate, member
from arl.ingest.pictures import binary
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv

_LABELS = {"0": "benign", "1": "malignant", "": None, "nan": None}
_COLUMNS = ("annot_id", "frame_num", "image", "mask")
_WHITE = 128
_DAMAGE = (OSError, KeyError, RuntimeError)  # what h5py raises on damaged files
_CACHE = 64 << 20  # bytes of decompressed chunks, of which one may hold many frames


def read(root: Path) -> list[Input]:
    """One input for each clip, and for each row of metadata.csv without one.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: one of them lacks a column or holds other types, or several folders hold the
            layout.
    """
    base = locate(root, "dataset.hdf5", "metadata.csv")
    file = member(base, "dataset.hdf5")
    rows = _diagnoses(member(base, "metadata.csv"))
    clips = _clips(file)
    names_listed = {clip: stated[0] for clip in clips if len(stated := rows.get(clip, [])) == 1}
    splits = stratified(names_listed, {clip: _patient(clip) or clip for clip in names_listed})
    listed = [
        Input(
            f"{file.name} {clip}",
            partial(_records, file, clip, frames, rows.get(clip, []), splits.get(clip)),
        )
        for clip, frames in clips.items()
    ]
    gone = [
        refusal(f"metadata.csv {clip}", "dataset.hdf5 holds no frame of it")
        for clip in rows
        if clip not in clips
    ]
    return listed + gone


def _diagnoses(file: Path) -> dict[str, list[str]]:
    """annot_id -> the diagnosis of each of its rows."""
    result: dict[str, list[str]] = {}
    for clip, code in read_csv(file, ["annot_id", "histopath_diagnosis"]).to_numpy().tolist():
        result.setdefault(clip.strip(), []).append(code.strip().lower().removesuffix(".0"))
    return result


def _clips(file: Path) -> dict[str, list[tuple[int, int]]]:
    """annot_id -> (frame_num, row) of its frames, by frame_num."""
    try:
        with _open(file) as data:
            _check(file, data)
            named, numbers = np.ravel(data["annot_id"][:]), np.ravel(data["frame_num"][:])
    except _DAMAGE as error:
        raise ValueError(f"{file} is a damaged HDF5 file ({type(error).__name__})") from error
    names = [
        name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in named
    ]
    clips: dict[str, list[tuple[int, int]]] = {}
    for row, (name, number) in enumerate(zip(names, numbers, strict=True)):
        clips.setdefault(name, []).append((int(number), row))
    return {name: sorted(frames) for name, frames in clips.items()}


def _open(file: Path) -> Any:
    try:
        return h5py.File(file, "r", rdcc_nbytes=_CACHE)
    except OSError as error:
        raise ValueError(f"{file} is not a readable HDF5 file") from error


def _check(file: Path, data: Any) -> None:
    missing = [name for name in _COLUMNS if name not in data]
    if missing:
        raise ValueError(f"{file} lacks {missing}; it has {sorted(map(str, data))}")
    lengths = {name: data[name].shape[0] for name in _COLUMNS}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{file}: its columns differ in length: {lengths}")
    for name in ("image", "mask"):
        if data[name].dtype != np.uint8 or data[name].ndim not in (3, 4):
            raise ValueError(
                f"{file}: {name} is {data[name].dtype} {data[name].shape}, expected uint8 (N, H, W)"
            )


def _patient(clip: str) -> str | None:
    matched = re.match(r"\d+", clip)
    return matched[0] if matched else None


def _records(
    file: Path, clip: str, frames: list[tuple[int, int]], codes: list[str], split: str | None
) -> Iterator[Record]:
    patient = _patient(clip)
    if patient is None:
        raise Refused(f"annot_id {clip!r} does not begin with a patient's number")
    if len(codes) != 1 or split is None:
        raise Refused(f"metadata.csv has {len(codes)} rows of it")
    if codes[0] not in _LABELS:
        raise Refused(f"histopath_diagnosis {codes[0]!r} is neither 0 nor 1")
    if len({number for number, _ in frames}) < len(frames):
        raise Refused("a frame_num is given twice")
    with _open(file) as data:
        for number, row in frames:
            image, mask = _frame(data, row)
            entry = Entry(
                key=f"{clip}/{number}",
                patient=patient,
                clip=clip,
                frame=number - frames[0][0],
                anatomy="thyroid",
                label=_LABELS[codes[0]],
                mask_name=None if mask is None else "nodule",
                splits={DEFAULT: split},
            )
            yield Record(image, entry, mask)


def _frame(data: Any, row: int) -> tuple[Pixels, Mask | None]:
    try:
        image, levels = (np.asarray(data[name][row], np.uint8) for name in ("image", "mask"))
    except _DAMAGE as error:
        raise Refused(f"row {row} of the file is damaged") from error
    image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    mask = binary(levels.max(axis=2) if levels.ndim == 3 else levels, _WHITE)
    if image.ndim == 3 and image.shape[2] != 3:
        raise Refused(f"row {row} has {image.shape[2]} channels, expected 1 or 3")
    if mask.shape != image.shape[:2]:
        raise Refused(
            f"its mask is {mask.shape[1]}x{mask.shape[0]}, "
            f"its image {image.shape[1]}x{image.shape[0]}"
        )
    return image, mask if mask.any() else None


SOURCE = Source(
    name="thyroid-cine",
    title=(
        "Thyroid Ultrasound Cine-clip: sweeps over biopsied nodules with masks (Stanford AIMI)."
    ),
    read=without_options(read),
    licence=(
        "Stanford University Dataset Research Use Agreement: non-commercial, not for redistribution"
    ),
    citation=("Stanford AIMI, Thyroid Ultrasound Cine-clip, 2021, doi:10.71718/7m5n-rh16"),
    obtain=(
        "Stanford AIMI shared datasets, 'Thyroid Ultrasound Cine-clip'; registration and "
        "research use agreement"
    ),
    layout=(
        "<root>/dataset.hdf5 (annot_id, frame_num, image N x H x W uint8, mask N x H x W) "
        "and metadata.csv (annot_id, histopath_diagnosis and more); the layout may lie up "
        "to four folders below the root. Frames are read one by one."
    ),
    keys="<annot_id>/<frame_num>",
    coding=(
        "label = histopath_diagnosis, 0 benign, 1 malignant, none where it is empty; mask "
        '"nodule" = levels >= 128, none on frames where it is empty.'
    ),
    patient=(
        'The number that annot_id begins with ("10_", "10_2": a nodule of patient 10). '
        "Clip: annot_id, frames counted from its lowest frame_num. 167 patients, 192 "
        "nodules."
    ),
    split=(
        'No official split; "default" is drawn by patient, each class in equal proportion: '
        "few nodules are malignant."
    ),
    refuses=(
        "A clip with a damaged frame, a frame_num given twice, an annot_id without a "
        "number, another diagnosis, none or several rows in metadata.csv, and rows without "
        "frames."
    ),
)

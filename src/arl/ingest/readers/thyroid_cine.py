"""Thyroid Ultrasound Cine-clip: sweeps over biopsied nodules with masks (Stanford AIMI)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
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
# What h5py raises on damaged files.
_DAMAGE = (OSError, KeyError, RuntimeError)
# Bytes of decompressed chunks, of which one may hold many frames.
_CACHE = 64 << 20


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
    clips = {
        name: _Clip(file, name, frames, rows.get(name, [])) for name, frames in _clips(file).items()
    }
    # A clip with several diagnoses is refused, and must not weigh on the proportions.
    labelled = {name: clip for name, clip in clips.items() if len(clip.codes) == 1}
    splits = stratified(
        {name: clip.codes[0] for name, clip in labelled.items()},
        {name: clip.patient or name for name, clip in labelled.items()},
    )
    listed = [
        Input(f"{file.name} {name}", partial(clip.records, splits.get(name)))
        for name, clip in clips.items()
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


@dataclass(frozen=True)
class _Clip:
    """One clip of the file.

    Attributes:
        frames: (frame_num, row) of its frames, by frame_num.
        codes: The diagnosis of each row of metadata.csv that names it.
    """

    file: Path
    name: str
    frames: list[tuple[int, int]]
    codes: list[str]

    @property
    def patient(self) -> str | None:
        """The number that the name begins with: nodule 2 of patient 10 is called 10_2."""
        matched = re.match(r"\d+", self.name)
        return matched[0] if matched else None

    def records(self, split: str | None) -> Iterator[Record]:
        """The frames of the clip, read one by one."""
        if self.patient is None:
            raise Refused(f"annot_id {self.name!r} does not begin with a patient's number")
        if len(self.codes) != 1 or split is None:
            raise Refused(f"metadata.csv has {len(self.codes)} rows of it")
        if self.codes[0] not in _LABELS:
            raise Refused(f"histopath_diagnosis {self.codes[0]!r} is neither 0 nor 1")
        if len({number for number, _ in self.frames}) < len(self.frames):
            raise Refused("a frame_num is given twice")
        with _open(self.file) as data:
            for number, row in self.frames:
                image, mask = _frame(data, row)
                entry = Entry(
                    key=f"{self.name}/{number}",
                    patient=self.patient,
                    clip=self.name,
                    # Some clips begin at a frame_num above 0.
                    frame=number - self.frames[0][0],
                    anatomy="thyroid",
                    label=_LABELS[self.codes[0]],
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

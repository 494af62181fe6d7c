"""Fatty liver: B-mode of the liver with the fat found by biopsy (Byra et al., IJCARS 2018)."""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arl.corpus.record import Entry, Input, Record, Refused
from arl.corpus.splits import DEFAULT, stratified
from arl.ingest.folders import entries, search
from arl.ingest.matlab import check_mat, read_mat
from arl.ingest.source import Source, without_options

_FIELDS = ("id", "class", "fat", "images")
_LABELS = {0: "normal", 1: "fatty"}
# Per cent.
_FATTY = 5.0


def read(root: Path) -> list[Input]:
    """One input for each patient of the file.

    Raises:
        FileNotFoundError: there is no .mat file.
        ValueError: there are several, it cannot be read, or `data` has other fields.
    """
    folder = search(root, lambda folder: bool(_files(folder)))
    if folder is None:
        raise FileNotFoundError(f"neither {root} nor a folder in it holds the .mat file of the set")
    file, *others = _files(folder)
    if others:
        raise ValueError(
            f"{folder} holds several such .mat files, leave one: {file.name}, {others[0].name}"
        )
    check_mat(file)
    patients = _load(file, file.stat().st_mtime_ns)
    labels = {str(index): str(_scalar(patient.kind)) for index, patient in enumerate(patients)}
    groups = {str(index): patient.identifier for index, patient in enumerate(patients)}
    splits = stratified(labels, groups)
    return [
        Input(
            f"{file.name}:{index} {groups[str(index)]}",
            partial(_records, file, index, splits[str(index)]),
        )
        for index in range(len(patients))
    ]


def _files(folder: Path) -> list[Path]:
    files = [path for path in entries(folder) if path.suffix.lower() == ".mat" and path.is_file()]
    return [file for file in files if "liver" in file.name.lower()] or (
        files if len(files) == 1 else []
    )


@dataclass(frozen=True)
class _Patient:
    """The cells of one patient, as the file holds them."""

    identity: npt.NDArray[Any]
    kind: npt.NDArray[Any]
    fat: npt.NDArray[Any]
    images: npt.NDArray[Any]

    @property
    def identifier(self) -> str:
        """The id as text; the official ids are numbers."""
        number = _scalar(self.identity)
        if number is not None:
            return f"{number:g}"
        return " ".join(str(value) for value in self.identity.ravel())

    def label(self) -> str:
        """The class, which the biopsy's fat must confirm.

        Raises:
            Refused: class or fat has another value, or they contradict each other.
        """
        kind, fat = _scalar(self.kind), _scalar(self.fat)
        if kind not in _LABELS:
            raise Refused(f"class {kind} is not one of {', '.join(map(str, _LABELS))}")
        if fat is None or not 0 <= fat <= 100:
            raise Refused(f"fat {fat} is no percentage")
        # Exactly 5 % contradicts neither class.
        if fat != _FATTY and (fat > _FATTY) != (kind == 1):
            raise Refused(
                f"class {kind:g} contradicts fat {fat:g} %, of which more than {_FATTY:g} is fatty"
            )
        return _LABELS[int(kind)]

    def frames(self) -> npt.NDArray[np.uint8]:
        """uint8 (frames, H, W).

        Raises:
            Refused: the cell holds something else.
        """
        images = self.images
        if images.ndim != 3 or images.dtype != np.uint8 or 0 in images.shape:
            raise Refused(
                f"images holds {images.dtype} {images.shape}, "
                "expected uint8 frames x rows x columns"
            )
        # MATLAB's habit is to put the frames last: then this axis is the shortest.
        last = images.shape[2] < min(images.shape[:2])
        return np.moveaxis(images, 2, 0) if last else images


# The file has 150 MB, of which every input needs a part; the time of its last change renews it.
@lru_cache(maxsize=1)
def _load(file: Path, _: int) -> list[_Patient]:
    data = read_mat(file, "data")
    names = data.dtype.names or ()
    lacking = [name for name in _FIELDS if name not in names]
    if lacking:
        raise ValueError(f"{file}: data lacks the fields {lacking}; it has {list(names)}")
    return [_Patient(*(np.asarray(cell[name]) for name in _FIELDS)) for cell in data.ravel()]


def _scalar(cell: npt.NDArray[Any]) -> float | None:
    """The number of a 1 x 1 cell."""
    return float(cell.item()) if cell.size == 1 and np.issubdtype(cell.dtype, np.number) else None


def _records(file: Path, index: int, split: str) -> list[Record]:
    patient = _load(file, file.stat().st_mtime_ns)[index]
    label = patient.label()
    return [
        Record(
            np.ascontiguousarray(frame),
            Entry(
                key=f"{patient.identifier}/{number}",
                patient=patient.identifier,
                clip=patient.identifier,
                frame=number,
                anatomy="liver",
                probe="sector",
                device="GE Vivid E9",
                label=label,
                splits={DEFAULT: split},
            ),
        )
        for number, frame in enumerate(patient.frames())
    ]


SOURCE = Source(
    name="fatty-liver",
    title=(
        "Fatty liver: B-mode of the liver with the fat found by biopsy (Byra et al., IJCARS 2018)."
    ),
    read=without_options(read),
    licence="Not stated by the file: see its page on Zenodo",
    citation=(
        "M. Byra, G. Styczynski, C. Szmigielski, P. Kalinowski, L. Michalowski, R. "
        "Paluszkiewicz, B. Ziarkiewicz-Wroblewska, K. Zieniewicz, P. Sobieraj, A. Nowicki, "
        "Transfer learning with deep convolutional neural network for liver steatosis "
        "assessment in ultrasound images, International Journal of Computer Assisted "
        "Radiology and Surgery 13, 2018, doi:10.1007/s11548-018-1843-2"
    ),
    obtain="Zenodo, doi:10.5281/zenodo.1009146; open",
    layout=(
        "<root>/dataset_liver_bmodes_steatosis_assessment_IJCARS.mat, or the only .mat file "
        "of its folder, at or up to four folders below the root: a variable `data`, 1 x 55, "
        "of the fields id, class, fat, images."
    ),
    keys="<id>/<frame>",
    coding=(
        "label = class 0 normal, 1 fatty (more than 5 % of the hepatocytes; fat is "
        "compared). images are frames x rows x columns, uint8; where the last axis is the "
        "shortest, it is the frames'."
    ),
    patient=("Id: 55 patients. Clip: the 10 frames of a patient, which are nearly the same."),
    split=('No official split; "default" is drawn by patient, each class in equal proportion.'),
    refuses=(
        "A class that is neither 0 nor 1 or that fat contradicts, frames that are not uint8 "
        "pictures, an id given twice."
    ),
)

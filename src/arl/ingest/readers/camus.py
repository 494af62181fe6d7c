"""CAMUS: apical two- and four-chamber echocardiography with expert contours."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused, refusal
from arl.corpus.splits import DEFAULT
from arl.ingest.clips import clip_records
from arl.ingest.folders import child, entries, files_below, member, search
from arl.ingest.source import Source, without_options

_VIEWS = {"2CH": "A2C", "4CH": "A4C"}
_SUBGROUPS = {"training": "train", "validation": "val", "testing": "test"}
# Labels; 2 is the myocardium.
_VENTRICLE, _ATRIUM = 1, 3
# what nibabel raises on damaged files
_DAMAGE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
)


def read(root: Path) -> list[Input]:
    """Two inputs for each patient, one a view, and one for each file that belongs to none.

    Raises:
        FileNotFoundError: there is no folder of patients.
        ValueError: the split files list a patient twice.
    """
    home = search(root, lambda folder: bool(_patients(folder)))
    if home is None:
        raise FileNotFoundError(
            f"neither {root} nor a folder in it holds patient0001, patient0002, ..."
        )
    splits = _splits(home)
    inputs = [_input(folder, view, splits) for folder in _patients(home) for view in _VIEWS]
    views = "|".join(_VIEWS)
    strays = []
    for folder in _patients(home):
        scan = rf"{folder.name}_({views})_(ED|ES|half_sequence|sequence)(_gt)?\.nii(\.gz)?"
        expected = re.compile(rf"(?i)({scan}|Info_({views})\.cfg)")
        strays += [file for file in files_below(folder) if not expected.fullmatch(file.name)]
    return inputs + [
        refusal(file.relative_to(home).as_posix(), "it belongs to no view") for file in strays
    ]


def _input(folder: Path, view: str, splits: dict[str, str] | None) -> Input:
    name = f"{folder.name}/{view}"
    if splits is None:
        return Input(name, _View(folder, view, {}).records)
    split = splits.get(folder.name.lower())
    if split is None:
        return refusal(name, "no split file lists its patient")
    return Input(name, _View(folder, view, dict.fromkeys(("official", DEFAULT), split)).records)


def _patients(folder: Path) -> list[Path]:
    return [
        path
        for path in entries(folder)
        if path.is_dir() and re.fullmatch(r"(?i)patient\d+", path.name)
    ]


def _splits(home: Path) -> dict[str, str] | None:
    """Patient -> split; None where there are no split files beside the patients or above them."""
    folder = next(
        (
            result
            for position in (home, home.parent)
            if (result := child(position, "database_split"))
        ),
        None,
    )
    if folder is None:
        return None
    splits: dict[str, str] = {}
    for subgroup, split in _SUBGROUPS.items():
        file = member(folder, f"subgroup_{subgroup}.txt")
        for patient in file.read_text(encoding="utf-8").split():
            if patient.lower() in splits:
                raise ValueError(f"{file}: {patient} is in two subgroups, or twice in one")
            splits[patient.lower()] = split
    return splits


@dataclass(frozen=True)
class _View:
    """The files of one view of one patient; every method may refuse the input."""

    folder: Path
    name: str
    splits: dict[str, str]

    @property
    def stem(self) -> str:
        """The beginning of the names of all image files: patient0001_2CH."""
        return f"{self.folder.name}_{self.name}"

    def records(self) -> Iterator[Record]:
        """The frames of the half sequence, the end-diastolic and end-systolic with masks."""
        stills = {phase: self.image(f"{self.stem}_{phase}.nii.gz") for phase in ("ED", "ES")}
        name = f"{self.stem}_half_sequence.nii.gz"
        has_sequence = child(self.folder, name, name.removesuffix(".gz")) is not None
        sequence = list(self.levels(name)) if has_sequence else []
        positions = self.frame_indices(len(sequence))
        patient = self.folder.name.lower()
        clip = Entry(
            key=f"{patient}/{self.name}",
            patient=patient,
            anatomy="cardiac",
            probe="sector",
            label=_VIEWS[self.name],
            pixel_spacing_mm=self.spacing(),
            splits=self.splits,
        )
        # The stills replace the frames of the sequence that they were taken from.
        frames = {positions[phase]: image for phase, image in stills.items()}
        masks = {
            positions[phase]: self.ventricle(f"{self.stem}_{phase}_gt.nii.gz", image)
            for phase, image in stills.items()
        }
        ordered = sorted((dict(enumerate(sequence)) | frames).items())
        yield from clip_records(ordered, clip, masks=masks, mask_name="lv", official=masks)

    def frame_indices(self, length: int) -> dict[str, int]:
        """0-based frames of end-diastole and end-systole.

        `length` is that of the half sequence, 0 if there is none.
        """
        name = f"Info_{self.name}.cfg"
        file = child(self.folder, name)
        if file is None:
            raise Refused(f"{name} is missing")
        lines = [line for line in file.read_text("utf-8", "replace").splitlines() if ":" in line]
        pairs = [line.split(":", 1) for line in lines]
        stated = {key.strip(): value.strip() for key, value in pairs}
        # The file counts frames from 1.
        positions = {
            phase: int(stated[phase]) - 1
            for phase in ("ED", "ES")
            if stated.get(phase, "").isdecimal()
        }
        if len(set(positions.values())) < 2:
            raise Refused(f"{name} does not give two frames, ED and ES")
        for position in positions.values():
            if position < 0 or position >= length > 0:
                raise Refused(f"{name} gives frame {position + 1} of a sequence of {length}")
        return positions

    def load(self, name: str) -> SpatialImage:
        """Open a NIfTI file, compressed or not."""
        file = child(self.folder, name, name.removesuffix(".gz"))
        if file is None:
            raise Refused(f"{name} is missing")
        try:
            loaded = nibabel.load(file)
        except _DAMAGE as error:
            kind = type(error).__name__
            raise Refused(f"{name} is not a readable NIfTI file ({kind})") from error
        if not isinstance(loaded, SpatialImage):
            raise Refused(f"{name} holds no image")
        return loaded

    def levels(self, name: str) -> Pixels:
        """A file's whole numbers of 0..255, upright: (frames, H, W)."""
        loaded = self.load(name)
        try:
            levels: npt.NDArray[Any] = np.asanyarray(loaded.dataobj)
        except _DAMAGE as error:
            kind = type(error).__name__
            raise Refused(f"{name} is not a readable NIfTI file ({kind})") from error
        while levels.ndim > 3 and levels.shape[-1] == 1:
            levels = levels[..., 0]
        if levels.ndim not in (2, 3) or 0 in levels.shape:
            raise Refused(
                f"{name} has the shape {levels.shape}, neither a picture nor a sequence of them"
            )
        # nibabel multiplies by the scale of the header, which turns whole numbers into floats.
        whole = np.rint(levels)
        if not (np.abs(levels - whole) < 1e-3).all() or whole.min() < 0 or whole.max() > 255:
            raise Refused(f"{name} holds levels that are not whole numbers of 0 to 255")
        # NIfTI stores columns first.
        return np.ascontiguousarray(np.atleast_3d(whole).transpose(2, 1, 0), np.uint8)

    def image(self, name: str) -> Pixels:
        """The only picture of a file (H, W)."""
        levels = self.levels(name)
        if len(levels) != 1:
            raise Refused(f"{name} holds {len(levels)} pictures, not one")
        return np.asarray(levels[0])

    def spacing(self) -> float | None:
        """Millimetres along the rows; nibabel gives 1 where the file states nothing."""
        zooms = self.load(f"{self.stem}_ED.nii.gz").header.get_zooms()
        return None if zooms[1] in (0.0, 1.0) else float(zooms[1])

    def ventricle(self, name: str, image: Pixels) -> Mask:
        """The left ventricle of a file of labels."""
        labels = self.image(name)
        if labels.shape != image.shape:
            raise Refused(
                f"{name} is {labels.shape[1]}x{labels.shape[0]}, "
                f"its image {image.shape[1]}x{image.shape[0]}"
            )
        if labels.max() > _ATRIUM:
            raise Refused(f"{name} holds label {labels.max()}, expected 0 to 3")
        ventricle: Mask = labels == _VENTRICLE
        if not ventricle.any():
            raise Refused(f"{name} shows no left ventricle")
        atrium = labels == _ATRIUM
        # In an apical view the atrium lies deeper than the ventricle, in higher rows.
        if atrium.any() and atrium.nonzero()[0].mean() <= ventricle.nonzero()[0].mean():
            raise Refused(
                f"{name} has the atrium nearer to the probe than the ventricle: it is turned"
            )
        return ventricle


SOURCE = Source(
    name="camus",
    title=(
        "CAMUS: apical two- and four-chamber echocardiography with expert contours (Leclerc "
        "et al., 2019), NIfTI release."
    ),
    read=without_options(read),
    licence="CC BY-NC-SA 4.0",
    citation=(
        "S. Leclerc, E. Smistad, J. Pedrosa et al., Deep learning for segmentation using an "
        "open large-scale dataset in 2D echocardiography, IEEE Transactions on Medical "
        "Imaging 38(9), 2019, doi:10.1109/TMI.2019.2900516"
    ),
    obtain=("https://www.creatis.insa-lyon.fr/Challenge/camus/: the NIfTI release, CAMUS_public"),
    layout=(
        "<root>/database_nifti/patient0001/patient0001_{2CH,4CH}_{ED,ES}[_gt].nii.gz, "
        "..._half_sequence.nii.gz, Info_2CH.cfg, Info_4CH.cfg; "
        "<root>/database_split/subgroup_{training,validation,testing}.txt. The root may be "
        "database_nifti itself, and the split files may be missing."
    ),
    keys=(
        "<patient>/<view>/<frame>, e.g. patient0001/4CH/00000: 0-based within the half sequence."
    ),
    coding=(
        "Grey; label = the view, A2C or A4C. End-diastole and end-systole are official "
        "frames, taken from their own files at the place that the cfg gives (1-based); the "
        'others come from the half sequence, where there is one. Mask "lv" of these two = '
        "label 1, the endocardium; 2 myocardium and 3 left atrium are not stored, and "
        "neither are the half sequence's semi-automatic contours. Arrays are (x, y[, t]), y "
        "away from the probe: transposed, nothing is mirrored."
    ),
    patient="The folder; 500 patients. Clip: patient and view.",
    split="Official: the split files; it is the default.",
    refuses=(
        "Per patient and view: a missing or damaged file, grey levels that are no whole "
        "numbers of 0.255, labels other than 0.3 or without a ventricle, a size that "
        "differs from the image's, a cfg without ED or ES or with one outside of the "
        "sequence, an atrium nearer to the probe than the ventricle (the array is turned); "
        "a patient that no split file lists. A patient listed twice is an error of the "
        "whole."
    ),
)

"""Masks of hospital DICOM from DICOM segmentations (SEG, PS3.3 A.51).

A frame of a segmentation shows one segment on one frame of one image, which it names by its SOP
instance UID. Its pixels are those of the image, so the mask is cut like the image. The coded
property of the segment names the structure. Free text, such as the segment label, is not read.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from arl.corpus.record import Mask
from arl.ingest.dicom.deidentify import keyed_hash
from arl.ingest.label_table import label_name

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_MAX_BYTES = 256 << 20
# Decoded frames of one file; more would fill the memory of a worker.
_MAX_PIXELS = 1 << 28
_DAMAGE = (InvalidDicomError, OSError, ValueError, EOFError, AttributeError, LookupError, TypeError)


@dataclass(frozen=True)
class SegmentFrame:
    """One frame of a segmentation.

    Attributes:
        frame: 0-based, in the segmentation.
        image_frame: 0-based, in the image; None if the segmentation names the whole image.
        structure: Name of the segment's structure.
    """

    file: Path
    frame: int
    image_frame: int | None
    structure: str


@dataclass(frozen=True)
class Segmentations:
    """Frames of segmentations by the hash of their image, and why others are unused."""

    frames: Mapping[str, tuple[SegmentFrame, ...]]
    unused: Mapping[str, int]

    def find(
        self, code: str, frame: int, frames: int, shape: tuple[int, int]
    ) -> tuple[Mask, str] | None:
        """The mask bool (H, W) and the structure of one frame of an image.

        Args:
            code: Hash of the image, see `image_code`.
            frame, frames: 0-based number of the frame, and number of frames of the image.
            shape: Rows and columns of the image.
        """
        # Without a frame number the segmentation can only mean a still.
        parts = [
            part
            for part in self.frames.get(code, ())
            if part.image_frame == frame or (part.image_frame is None and frames == 1)
        ]
        mask = np.zeros(shape, np.bool_)
        for part in parts:
            levels = _pixels(part.file)[part.frame]
            if levels.shape != shape:
                return None
            mask |= levels > 0
        return (mask, parts[0].structure) if mask.any() else None


def image_code(key: bytes, instance: str) -> str:
    """The keyed hash of the image that a segmentation refers to."""
    return keyed_hash(key, "segmentation", instance)


def read_segmentations(folder: Path, structure: str, key: bytes) -> Segmentations:
    """The segmentations below a folder; other files and segments are counted by reason.

    Args:
        structure: Use segments of this structure only; empty: every image may have one structure.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"dicom.segmentations: {folder} is not a folder")
    frames: dict[str, list[SegmentFrame]] = {}
    unused: Counter[str] = Counter()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            _add(file, structure, key, frames, unused)
        except _DAMAGE:
            unused["the file is not a readable segmentation"] += 1
    for code in [code for code, parts in frames.items() if len({p.structure for p in parts}) > 1]:
        del frames[code]
        unused["the image has several structures: set dicom.structure"] += 1
    return Segmentations({code: tuple(parts) for code, parts in frames.items()}, unused)


def _add(
    file: Path,
    structure: str,
    key: bytes,
    frames: dict[str, list[SegmentFrame]],
    unused: Counter[str],
) -> None:
    if file.stat().st_size > _MAX_BYTES:
        unused["the file is larger than 256 MiB"] += 1
        return
    header = dcmread(file, stop_before_pixels=True)
    if str(header.get("SOPClassUID", "")) != _SEGMENTATION:
        unused["the file is no segmentation"] += 1
        return
    if int(header.Rows) * int(header.Columns) * int(header.NumberOfFrames) > _MAX_PIXELS:
        unused["the segmentation has too many pixels"] += 1
        return
    names = {
        int(item.SegmentNumber): label_name(
            str(item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning)
        )
        for item in header.SegmentSequence
    }
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for number, group in enumerate(header.PerFrameFunctionalGroupsSequence):
        segment = _first("SegmentIdentificationSequence", group, shared[0])
        derivation = _first("DerivationImageSequence", group, shared[0])
        sources = derivation.get("SourceImageSequence") if derivation else None
        if segment is None or not sources:
            unused["a frame names no image"] += 1
            continue
        name = names[int(segment.ReferencedSegmentNumber)]
        if structure and name != structure:
            unused["the segment shows another structure"] += 1
            continue
        for source in sources:
            stated = source.get("ReferencedFrameNumber")
            # Frames of images count from 1.
            position = None if stated is None else int(stated) - 1
            code = image_code(key, str(source.ReferencedSOPInstanceUID))
            frames.setdefault(code, []).append(SegmentFrame(file, number, position, name))


def _first(name: str, *groups: Dataset) -> Dataset | None:
    """The first item of a functional group: of the frame, else of all frames."""
    return next((group[name].value[0] for group in groups if group.get(name)), None)


# The frames of a clip come one after the other, and mostly from one file.
@lru_cache(maxsize=1)
def _pixels(file: Path) -> np.ndarray:
    """The frames of a segmentation (N, H, W); fractional ones count from one half."""
    dataset = dcmread(file)
    levels = np.asarray(dataset.pixel_array)
    levels = levels[None] if levels.ndim == 2 else levels
    if str(dataset.SegmentationType).upper() == "FRACTIONAL":
        return np.asarray(2 * levels.astype(np.uint16) >= int(dataset.MaximumFractionalValue))
    return levels


def segmentation_counts(table: Segmentations, joined: frozenset[str]) -> list[str]:
    """Lines for the terminal: which segmentations became masks, and why others did not."""
    counts = {
        "segmented images have a mask": len(joined & table.frames.keys()),
        "segmented images match no accepted image of their size": len(table.frames.keys() - joined),
        **{f"are unused: {reason}": count for reason, count in sorted(table.unused.items())},
    }
    return [f"{count:7,}  {what}" for what, count in counts.items() if count]

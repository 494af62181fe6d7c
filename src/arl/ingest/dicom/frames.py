"""Ultrasound DICOM files, frame by frame, as pictures of their scan regions.

Decoders: pydicom with pillow, gdcm, openjpeg and rle, and OpenCV's FFmpeg for MPEG (no GPL).
Whatever is wrong with a file ends as `Refused`, whose message is made of fixed words and numbers:
neither attribute values nor the decoders' own messages, which quote them.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import DataElement, dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragmented_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, iter_pixels
from pydicom.uid import MPEGTransferSyntaxes

from arl.corpus.pixels import as_grey
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom import burnt_in_text as burnt_in
from arl.ingest.dicom import deidentify
from arl.ingest.dicom import rules as dicom_rules
from arl.ingest.dicom.burnt_in_text import StandingText
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.dicom.scan_region import (
    CLIP,
    Box,
    Region,
    Tag,
    coloured_share,
    content_region,
    crop,
    probe_by_outline,
    tagged_regions,
)
from arl.ingest.video import read_frames

_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_SAMPLED = 8  # frames of a clip that tell its region and outline
# coloured share of a scan above which it is colour Doppler: 0.000-0.007 on grey scans of seven
# makers, 0.05-0.17 else
_COLOURED, _COLOURED_IF_TAGGED = 0.02, 0.008
_VIDEO = frozenset(MPEGTransferSyntaxes)  # and HEVC
_BLANK = 1.0  # standard deviation of the grey levels

# what pydicom and its decoders raise on damaged or unusual files
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    BytesLengthException,
    InvalidDicomError,
    SyntaxError,  # Pillow on a broken stream
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class FrameInfo:
    """What is known of one picture: a scan region of a frame."""

    frame: int  # 0-based
    frames: int  # of the file
    region: int  # 0-based, within the frame
    regions: int  # of the frame
    region_rule: str  # tag | tag-clamped | variance | content
    anatomy: str
    anatomy_rule: str
    probe: str
    device: str | None
    pixel_spacing_mm: float | None
    depth_cm: float | None
    color_doppler: bool


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark, whatever its name."""
    with path.open("rb") as stream:
        stream.seek(_MAGIC_OFFSET)
        return stream.read(len(_MAGIC)) == _MAGIC


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom: its warnings and log lines quote attribute values, i.e. names of patients."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_header(path: Path) -> Dataset:
    """The allow-listed and the identifying attributes of an ultrasound file, and nothing else.

    Raises:
        Refused: not DICOM, not ultrasound, without pixels, or damaged.
    """
    try:
        if not is_dicom(path):
            raise Refused("it is not a DICOM file")
        with _quiet():
            listed = [*deidentify.ALLOWED, *deidentify.IDENTIFYING]
            header = dcmread(path, stop_before_pixels=True, specific_tags=listed)
            header.walk(_parse)
            _check_kind(header)
    except _DAMAGE as error:
        raise Refused(f"its DICOM header is damaged ({type(error).__name__})") from None
    return header


def _parse(header: Dataset, element: DataElement) -> None:
    """Elements are parsed when first looked at: look at each here, so that damage shows here."""
    _ = element.value


def _check_kind(header: Dataset) -> None:
    if str(header.get("Modality", "")) not in ("US", "IVUS"):
        raise Refused("its modality is not ultrasound")
    if not header.get("Rows") or not header.get("Columns"):
        raise Refused("it holds no picture")


def frames(
    path: Path, rules: AnatomyRules, *, burnt_in_text: str, stills_by_content: bool = True
) -> Iterator[tuple[Pixels, FrameInfo]]:
    """Pictures of a file, frame after frame and region after region.

    Yields:
        Grey uint8 (H, W), or RGB (H, W, 3) where the region shows colour Doppler; and what is known
        of it.

    Args:
        burnt_in_text: quarantine: refuse the file, when its frames have been read; mask: blacken
            the text, which takes
            decoding a clip twice; keep.
        stills_by_content: crop a still without valid region tags by its texture. The crop may hold
            text that touches
            the scan, so that files with burnt-in names are better refused.

    Raises:
        Refused: the file cannot be read or decoded, or no scan is found in it, or text is.
    """
    header = read_header(path)
    sample, count = _sample(path, header)
    regions = _regions(header, sample, stills_by_content)
    outlines = [_probe(header, sample, region) for region in regions]
    name, rule = rules.anatomy(header)
    device = deidentify.device_name(header)
    for number, scans in enumerate(_scans(path, header, regions, burnt_in_text)):
        for index, (scan, region, outline) in enumerate(zip(scans, regions, outlines, strict=True)):
            colour = _is_colour_doppler(scan, region, header)
            known = (
                region.rule,
                name,
                rule,
                outline,
                device,
                region.pixel_spacing_mm,
                region.depth_cm,
                colour,
            )
            yield (
                scan if colour else as_grey(scan),
                FrameInfo(number, count, index, len(regions), *known),
            )


def _scans(
    path: Path, header: Dataset, regions: list[Region], burnt_in_text: str
) -> Iterator[list[Pixels]]:
    """The scans of each frame, one for each region."""
    scans = _cropped(path, header, regions)
    if burnt_in_text == burnt_in.KEEP:
        yield from scans
        return
    if burnt_in_text == burnt_in.MASK:
        scans = _masked(path, header, regions, _standing(scans, len(regions)))
    text = [StandingText() for _ in regions]
    for frame in scans:
        _add(text, frame)
        yield frame
    if any(found.boxes() for found in text):
        raise Refused(
            "text is burnt into its scan"
            + " and cannot be masked" * (burnt_in_text == burnt_in.MASK)
        )


def _cropped(path: Path, header: Dataset, regions: list[Region]) -> Iterator[list[Pixels]]:
    for picture in _decoded(path, header):
        yield [crop(picture, region.box) for region in regions]


def _standing(scans: Iterator[list[Pixels]], regions: int) -> list[list[Box]]:
    """Where text stands in each region."""
    text = [StandingText() for _ in range(regions)]
    for frame in scans:
        _add(text, frame)
    return [found.boxes() for found in text]


def _add(text: list[StandingText], frame: list[Pixels]) -> None:
    for found, scan in zip(text, frame, strict=True):
        found.add(scan)


def _masked(
    path: Path, header: Dataset, regions: list[Region], boxes: list[list[Box]]
) -> Iterator[list[Pixels]]:
    for frame in _cropped(path, header, regions):
        yield [burnt_in.mask(scan, places) for scan, places in zip(frame, boxes, strict=True)]


def _frame_count(header: Dataset) -> int:
    try:
        return int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        raise Refused("its number of frames is not a number") from None


def _sample(path: Path, header: Dataset) -> tuple[list[Pixels], int]:
    """Some frames over the length of a clip, the only one of a still; and how many there are."""
    if _is_video(header):
        sample, count = _spread(_video(path))
    else:
        count = _frame_count(header)
        indices = sorted(
            {round(index) for index in np.linspace(0, count - 1, min(count, _SAMPLED))}
        )
        sample = list(_decoded(path, header, indices))
    if not sample:
        raise Refused("it holds no frame")
    return sample, count


def _spread(pictures: Iterator[Pixels]) -> tuple[list[Pixels], int]:
    """Between _SAMPLED and twice as many frames of a clip, evenly, and its length, which is known at its end only."""
    sample: list[Pixels] = []
    step, count = 1, 0
    for count, picture in enumerate(pictures, start=1):
        if (count - 1) % step == 0:
            sample.append(picture)
        if len(sample) > 2 * _SAMPLED:
            sample, step = sample[::2], 2 * step
    return sample, count


def _regions(header: Dataset, sample: list[Pixels], stills_by_content: bool) -> list[Region]:
    height, width = sample[0].shape[:2]
    regions = tagged_regions(_tags(header), height, width)
    if not regions:
        if len(sample) < CLIP and not stills_by_content:
            raise Refused(
                "no valid tag says where its scan is, and it is no clip that shows it by moving"
            )
        found = content_region([as_grey(picture) for picture in sample])
        regions = [found] if found else []
    shown = [region for region in regions if not _blank(sample, region)]
    if not shown:
        raise Refused(
            "no scan region is found in it" if not regions else "its scan region is blank"
        )
    return shown


def _blank(sample: list[Pixels], region: Region) -> bool:
    return max(float(crop(picture, region.box).std()) for picture in sample) < _BLANK


def _tags(header: Dataset) -> list[Tag]:
    try:
        return [_tag(item) for item in header.get("SequenceOfUltrasoundRegions") or []]
    except _DAMAGE:
        return []  # unreadable tags are no tags: the content decides


def _tag(item: Dataset) -> Tag:
    names = (
        "RegionLocationMinX0",
        "RegionLocationMinY0",
        "RegionLocationMaxX1",
        "RegionLocationMaxY1",
    )
    x0, y0, x1, y1 = (int(item[name].value) for name in names)
    return Tag(
        spatial_format=int(item.RegionSpatialFormat),
        data_type=int(item.RegionDataType),
        corners=(x0, y0, x1, y1),
        units_y=int(item.get("PhysicalUnitsYDirection") or 0),
        delta_y=float(item.get("PhysicalDeltaY") or 0.0),
    )


def _probe(header: Dataset, sample: list[Pixels], region: Region) -> str:
    known = dicom_rules.probe(header)
    if known is not None:
        return known
    brightest = np.stack([as_grey(crop(picture, region.box)) for picture in sample]).max(axis=0)
    return probe_by_outline(brightest)


def _is_colour_doppler(scan: Pixels, region: Region, header: Dataset) -> bool:
    """Measured, since the tags say what may be shown and palettes tint grey scans; tags lower the threshold."""
    said = region.colour_flow or str(header.get("UltrasoundColorDataPresent", "")) == "1"
    return coloured_share(scan) > (_COLOURED_IF_TAGGED if said else _COLOURED)


def _decoded(path: Path, header: Dataset, indices: list[int] | None = None) -> Iterator[Pixels]:
    """Frames as uint8 (H, W) or RGB (H, W, 3), one in memory at a time."""
    if _is_video(header):
        yield from _video(path)
        return
    with _quiet_errors():
        iterator = iter_pixels(path, indices=indices)
    with closing(iterator):
        while True:
            with _quiet_errors():
                raw = next(iterator, None)
                picture = None if raw is None else _eight_bits(raw, header)
            if picture is None:
                return
            yield picture


def _is_video(header: Dataset) -> bool:
    return header.file_meta.get("TransferSyntaxUID") in _VIDEO


def _video(path: Path) -> Iterator[Pixels]:
    """Frames of an MPEG or HEVC stream, which lies in the fragments of what DICOM calls one frame: RGB (H, W, 3)."""
    with _quiet_errors():
        pixels = dcmread(path, specific_tags=["PixelData"]).PixelData
        stream = b"".join(next(generate_fragmented_frames(pixels, number_of_frames=1)))
    yield from read_frames(stream)


@contextmanager
def _quiet_errors() -> Iterator[None]:
    try:
        with _quiet():
            yield
    except _DAMAGE as error:
        raise Refused(f"its pixels cannot be decoded ({type(error).__name__})") from None


def _eight_bits(raw: npt.NDArray[Any], header: Dataset) -> Pixels:
    kind = str(header.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        return _paletted(raw, header)
    if raw.dtype.kind != "u" or int(header.PixelRepresentation):
        raise Refused("its pixels are signed or not whole numbers")
    shift = max(0, int(header.BitsStored) - 8)
    pixels = (raw >> shift).astype(np.uint8)
    return np.asarray(255 - pixels if kind == "MONOCHROME1" else pixels, np.uint8)


def _paletted(raw: npt.NDArray[Any], header: Dataset) -> Pixels:
    """Colours of a lookup table; 16-bit tables hold the colour in the upper byte, unless all their values are small."""
    colours = apply_color_lut(raw, header)
    wide = colours.dtype.itemsize > 1 and int(colours.max()) > 255
    return np.asarray(colours >> 8 if wide else colours, np.uint8)

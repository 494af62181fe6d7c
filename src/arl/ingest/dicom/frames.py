"""Ultrasound DICOM files, frame by frame, as pictures of their scan regions.

A file ends as `Refused` whatever is wrong with it. The messages hold fixed words and numbers only.
"""

from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from arl.corpus.pixels import as_grey
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom import burnt_in_text as burnt_in
from arl.ingest.dicom import deidentify
from arl.ingest.dicom import rules as dicom_rules
from arl.ingest.dicom.boxes import Box
from arl.ingest.dicom.burnt_in_text import TextSearch
from arl.ingest.dicom.devices import device_name
from arl.ingest.dicom.fan import fan_region
from arl.ingest.dicom.pixel_data import DAMAGE, PixelData, locate_pixels, quiet, read_attributes
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.dicom.scan_region import (
    CLIP,
    Region,
    Tag,
    coloured_fraction,
    content_region,
    crop,
    probe_by_outline,
    tagged_regions,
)

_SAMPLED = 8  # frames of a clip from which its region and outline are found
# Fraction of coloured pixels above which a scan is colour Doppler: 0.000-0.007 on grey scans of
# seven makers, 0.05-0.17 on the others
_COLOURED, _COLOURED_IF_TAGGED = 0.02, 0.008
_BLANK = 1.0  # standard deviation of the grey levels of a region that shows nothing
_ENHANCED_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
# Frames that follow a position instead of time: Grid Frame Offset Vector, Slice Location Vector,
# Slice Vector
_POSITIONS = (0x3004000C, 0x00182005, 0x00540080)


@dataclass(frozen=True)
class FrameInfo:
    """Metadata of one picture: a scan region of a frame."""

    frame: int  # 0-based
    frames: int  # of the file
    region: int  # 0-based, within the frame
    regions: int  # of the frame
    region_rule: str  # tag | tag-clamped | variance | fan | content
    anatomy: str
    anatomy_rule: str
    probe: str
    device: str | None
    pixel_spacing_mm: float | None
    depth_cm: float | None
    color_doppler: bool
    # (top, left, bottom, right) in the frame, pixels.
    box: Box


def read_header(path: Path) -> Dataset:
    """The allow-listed and the identifying attributes of an ultrasound file, and nothing else.

    Raises:
        Refused: the file is not DICOM, not ultrasound, a volume, without a size, or damaged.
    """
    header = read_attributes(path, [*deidentify.ALLOWED, *deidentify.IDENTIFYING])
    with quiet("its DICOM header is damaged"):
        modality = str(header.get("Modality") or "").strip().upper()
        if not modality:
            raise Refused("it has no Modality")
        if modality not in ("US", "IVUS"):
            raise Refused("its modality is not ultrasound")
        for name in ("Rows", "Columns"):
            if not header.get(name):
                raise Refused(f"it has no {name}, so it holds no picture")
        if _is_volume(header):
            raise Refused("it is a volume, whose frames are slices and no clip")
    return header


def _is_volume(header: Dataset) -> bool:
    """Whether the frames follow each other in space instead of time."""
    if str(header.get("SOPClassUID", "")) == _ENHANCED_VOLUME:
        return True
    if str(header.get("DimensionOrganizationType", "")).upper().startswith("3D"):
        return True
    element = header.get("FrameIncrementPointer")
    pointers = element if isinstance(element, MutableSequence) else [element]
    if any(pointer is not None and int(pointer) in _POSITIONS for pointer in pointers):
        return True
    # A still may state the thickness of its slice, so only several frames make a volume.
    several = str(header.get("NumberOfFrames") or 1).strip() not in ("", "0", "1")
    slices = ("GridFrameOffsetVector", "SliceThickness", "SpacingBetweenSlices")
    return several and any(header.get(name) not in (None, "") for name in slices)


def frames(
    path: Path,
    rules: AnatomyRules,
    *,
    burnt_in_text: str,
    stills_by_content: bool = False,
    device_key: bytes | None = None,
) -> Iterator[tuple[Pixels, FrameInfo]]:
    """Pictures of a file, frame after frame and region after region.

    Yields:
        Grey uint8 (H, W), or RGB (H, W, 3) where the region shows colour Doppler, and its metadata.
        A frame that is mostly text is black, so that it is dropped and counted as blank.

    Args:
        path: the file.
        rules: map the header to an anatomy.
        burnt_in_text: quarantine: refuse the file after its frames have been read; mask: blacken
            the text, which decodes the file twice; keep.
        stills_by_content: crop a still without valid region tags by its texture if no fan is found.
            The crop may hold text that touches the scan.
        device_key: key for the hash of a device that is not in the table.

    Raises:
        Refused: the file cannot be read or decoded, shows no scan region, or shows text.
    """
    header = read_header(path)
    sample, pixels = locate_pixels(path, header).sample(_SAMPLED)
    regions = _regions(header, sample, stills_by_content)
    outlines = [_probe(header, sample, region) for region in regions]
    name, rule = rules.anatomy(header)
    device = device_name(header, device_key)
    assert pixels.count is not None
    for number, scans in enumerate(_scans(pixels, regions, burnt_in_text)):
        for i, (scan, region, outline) in enumerate(zip(scans, regions, outlines, strict=True)):
            colour = _is_colour_doppler(scan, region, header)
            info = FrameInfo(
                frame=number,
                frames=pixels.count,
                region=i,
                regions=len(regions),
                region_rule=region.rule,
                anatomy=name,
                anatomy_rule=rule,
                probe=outline,
                device=device,
                pixel_spacing_mm=region.pixel_spacing_mm,
                depth_cm=region.depth_cm,
                color_doppler=colour,
                box=region.box,
            )
            yield (scan if colour else as_grey(scan)), info


def _scans(pixels: PixelData, regions: list[Region], burnt_in_text: str) -> Iterator[list[Pixels]]:
    """The scans of each frame, one per region, without text."""
    scans = ([region.cut(picture) for region in regions] for picture in pixels.frames())
    if burnt_in_text == burnt_in.KEEP:
        yield from scans
        return
    searches = [TextSearch() for _ in regions]
    if burnt_in_text == burnt_in.MASK:
        # Boxes of all frames are masked in each, so the file is decoded twice instead of kept.
        for frame in scans:
            for search, scan in zip(searches, frame, strict=True):
                search.add(scan)
        texts = [search.result() for search in searches]
        scans = (
            [
                text.mask(region.cut(picture), number)
                for region, text in zip(regions, texts, strict=True)
            ]
            for number, picture in enumerate(pixels.frames())
        )
        searches = [TextSearch() for _ in regions]
    for frame in scans:
        for search, scan in zip(searches, frame, strict=True):
            search.add(scan)
        yield frame
    # The masked frames are searched again: what the mask has not hidden refuses the file.
    if any(search.result() for search in searches):
        unmaskable = " and cannot be masked" if burnt_in_text == burnt_in.MASK else ""
        raise Refused(f"text is burnt into its scan{unmaskable}")


def _regions(header: Dataset, sample: list[Pixels], stills_by_content: bool) -> list[Region]:
    height, width = sample[0].shape[:2]
    try:
        tags = [Tag.from_item(item) for item in header.get("SequenceOfUltrasoundRegions") or []]
    except DAMAGE:
        # Unreadable tags count as missing: then the content decides.
        tags = []
    regions = tagged_regions(tags, height, width)
    if not regions:
        regions = _content_regions([as_grey(picture) for picture in sample], stills_by_content)
    # A clip may begin with blank frames, so the brightest frame of the sample decides.
    visible = [
        region
        for region in regions
        if max(float(crop(picture, region.box).std()) for picture in sample) >= _BLANK
    ]
    if not visible:
        raise Refused("no scan is found in it" if not regions else "its scan region is blank")
    return visible


def _content_regions(sample: list[Pixels], stills_by_content: bool) -> list[Region]:
    """The scan of a clip by its motion, of a still by its outline, or by its texture if allowed."""
    # Motion is surer than an outline; the texture of a still may take in text that touches it.
    region = None
    if len(sample) >= CLIP or stills_by_content:
        region = content_region(sample)
    if region is None:
        region = fan_region(sample)
    if region is None and len(sample) < CLIP and not stills_by_content:
        raise Refused(
            "it has no valid region tags, its scan has no clear outline, and it is no clip"
        )
    return [region] if region else []


def _probe(header: Dataset, sample: list[Pixels], region: Region) -> str:
    stated = dicom_rules.probe(header)
    if stated is not None:
        return stated
    brightest = np.stack([as_grey(crop(picture, region.box)) for picture in sample]).max(axis=0)
    return probe_by_outline(brightest)


def _is_colour_doppler(scan: Pixels, region: Region, header: Dataset) -> bool:
    """Whether enough pixels are coloured. Tags that allow colour lower the threshold."""
    tagged = region.colour_flow or str(header.get("UltrasoundColorDataPresent", "")) == "1"
    return coloured_fraction(scan) > (_COLOURED_IF_TAGGED if tagged else _COLOURED)

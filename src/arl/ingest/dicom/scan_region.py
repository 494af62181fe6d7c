"""The scan within an ultrasound screen: by region tags, by motion, or by texture.

Text beside the scan is cut away with the screen, so a region must not be too large.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from arl.corpus.record import Mask, Pixels
from arl.ingest.dicom.boxes import Box, area, overlap

CLIP = 3  # frames that show motion; fewer are stills
MIN_SIDE = 64  # pixels; a smaller scan is a thumbnail
# A pixel whose channels differ by more levels is coloured. JPEG noise on grey stays below.
COLOUR_LEVELS = 24
TISSUE, COLOUR_FLOW = 1, 2  # Region Data Type (0018,6014)
_TWO_D = 1  # Region Spatial Format (0018,6012)
_CENTIMETRES = 3  # Physical Units (0018,6024)
# Pixels that a region may reach over the edge: writers disagree on whether the maximum is included.
_OFF_BY = 2
LIT = 6  # grey level above JPEG noise on black
_FILLED = 0.7  # fraction of lit pixels around a pixel of speckle; text reaches half of it
# Standard deviation in time, grey levels; JPEG noise of a standing picture is below it.
_MOVING = 0.5
# A region of which this fraction lies in another one is a part of it, like a colour box.
_INSIDE = 0.9
_SPACING_MM = (0.001, 5.0)  # plausible sizes of a pixel; any other value is unknown


@dataclass(frozen=True)
class Tag:
    """An item of SequenceOfUltrasoundRegions (0018,6011); corners in pixels, inclusive."""

    spatial_format: int
    data_type: int
    corners: tuple[int, int, int, int]  # x0, y0, x1, y1
    units_y: int = 0
    delta_y: float = 0.0  # units a pixel

    @classmethod
    def from_item(cls, item: Dataset) -> "Tag":
        """The tag of an item.

        Raises:
            KeyError, AttributeError, TypeError, ValueError: an attribute is missing or no number.
        """
        names = (
            "RegionLocationMinX0",
            "RegionLocationMinY0",
            "RegionLocationMaxX1",
            "RegionLocationMaxY1",
        )
        x0, y0, x1, y1 = (int(item[name].value) for name in names)
        return cls(
            spatial_format=int(item.RegionSpatialFormat),
            data_type=int(item.RegionDataType),
            corners=(x0, y0, x1, y1),
            units_y=int(item.get("PhysicalUnitsYDirection") or 0),
            delta_y=float(item.get("PhysicalDeltaY") or 0.0),
        )

    def region(self, height: int, width: int) -> "Region | None":
        """The region in a picture of this size; None if the tag does not fit it."""
        x0, y0, x1, y1 = self.corners
        if min(x0, y0) < 0 or x1 > width - 1 + _OFF_BY or y1 > height - 1 + _OFF_BY:
            return None
        box = (y0, x0, min(y1, height - 1) + 1, min(x1, width - 1) + 1)
        if box[2] - box[0] < MIN_SIDE or box[3] - box[1] < MIN_SIDE:
            return None
        rule = "tag-clamped" if x1 > width - 1 or y1 > height - 1 else "tag"
        spacing: float | None = abs(self.delta_y) * 10 if self.units_y == _CENTIMETRES else None
        # The comparison is false for infinity and NaN, which some scanners write.
        if spacing is None or not _SPACING_MM[0] <= spacing <= _SPACING_MM[1]:
            spacing = None
        depth = None if spacing is None else spacing / 10 * (box[2] - box[0])
        return Region(box, rule, spacing, depth, self.data_type == COLOUR_FLOW)


@dataclass(frozen=True)
class Region:
    """A scan region, and the values of its tag."""

    box: Box
    rule: str  # tag | tag-clamped | variance | fan | content
    pixel_spacing_mm: float | None = None  # along the rows
    depth_cm: float | None = None
    colour_flow: bool = False
    # bool (height, width) of the box: the pixels of the scan; None: all of them
    inside: Mask | None = field(default=None, compare=False)

    def cut(self, picture: Pixels) -> Pixels:
        """The scan of a picture; pixels of the box that lie outside the scan are black."""
        scan = crop(picture, self.box)
        if self.inside is not None:
            scan[~self.inside] = 0
        return scan


def tagged_regions(tags: list[Tag], height: int, width: int) -> list[Region]:
    """The two-dimensional tissue and colour flow regions; none if a tag does not fit the picture.

    A tag that exceeds the edge by more than two pixels was written before the picture was resized
    or cut. Then all tags of the file are wrong.
    """
    scans = [
        tag
        for tag in tags
        if tag.spatial_format == _TWO_D and tag.data_type in (TISSUE, COLOUR_FLOW)
    ]
    regions = [tag.region(height, width) for tag in scans]
    valid = [region for region in regions if region is not None]
    return _merged(valid) if len(valid) == len(regions) else []


def _merged(regions: list[Region]) -> list[Region]:
    """Regions that are no parts of others; an image with a colour box becomes colour flow."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda region: -area(region.box)):
        parents = [i for i, other in enumerate(kept) if overlap(region.box, other.box) >= _INSIDE]
        if not parents:
            kept.append(region)
        elif region.colour_flow:
            kept[parents[0]] = replace(kept[parents[0]], colour_flow=True)
    return sorted(kept, key=lambda region: (region.box[0], region.box[1]))


def disk(size: int) -> npt.NDArray[np.uint8]:
    """A round structuring element of this diameter."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def textured(grey: Pixels) -> Mask:
    """Pixels of speckle: neither black nor flat like a banner, and surrounded by lit pixels."""
    window = max(5, min(grey.shape) // 24)
    # Letters are thinner than the disk, so the opening removes them.
    opened = cv2.morphologyEx(grey, cv2.MORPH_OPEN, disk(5)).astype(np.float32)
    spread = cv2.blur(opened**2, (9, 9)) - cv2.blur(opened, (9, 9)) ** 2
    filled = cv2.blur((grey > LIT).astype(np.float32), (window, window)) > _FILLED
    return np.asarray((opened > LIT) & (spread > 1.0) & filled, np.bool_)


def _largest(mask: Mask, closing: int) -> Box | None:
    """Bounding box of the largest connected part, after closing gaps of `closing` pixels."""
    # Without padding, closing joins a part to the edge of the picture.
    padded = np.pad(mask.astype(np.uint8), closing)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk(closing))
    count, _, stats, _ = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return None
    left, top, width, height, _ = (
        int(value) for value in stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    )
    top, left = max(0, top - closing), max(0, left - closing)
    return top, left, min(top + height, mask.shape[0]), min(left + width, mask.shape[1])


def content_region(pictures: list[Pixels]) -> Region | None:
    """The scan of a clip by its motion, of a still by its texture.

    Text, callipers and icons stand still in a clip. Tissue never does: its noise alone exceeds
    `_MOVING`. The box of a still may hold text that touches the scan.

    Args:
        pictures: grey frames of the file.
    """
    stack = np.stack(pictures)
    closing = max(9, min(stack.shape[1:]) // 24)
    # Two frames may show the same picture, which has no motion.
    if len(pictures) < CLIP:
        return _checked(_largest(textured(stack[0]), closing), "content")
    moving = cv2.morphologyEx(
        (stack.std(axis=0) > _MOVING).astype(np.uint8), cv2.MORPH_OPEN, disk(3)
    )
    return _checked(_largest(moving > 0, closing), "variance")


def _checked(box: Box | None, rule: str) -> Region | None:
    if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
        return None
    return Region(box, rule)


def crop(picture: Pixels, box: Box) -> Pixels:
    """The pixels of a box."""
    return np.ascontiguousarray(picture[box[0] : box[2], box[1] : box[3]])


def coloured_fraction(picture: Pixels) -> float:
    """Fraction of the pixels of an RGB picture (H, W, 3) that are coloured; 0 for grey (H, W)."""
    if picture.ndim == 2:
        return 0.0
    red, green, blue = cv2.split(picture)
    brightest, darkest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return float((cv2.subtract(brightest, darkest) > COLOUR_LEVELS).mean())


def probe_by_outline(grey: Pixels) -> str:
    """linear, convex, sector or unknown, by the width of the scan at its top."""
    content = textured(grey)
    box = _largest(content, max(9, min(grey.shape) // 24))
    if box is None:
        return "unknown"
    rows = content[box[0] : box[2], box[1] : box[3]]
    top = rows[: max(1, round(0.06 * len(rows)))].any(axis=0)
    spans = np.flatnonzero(top)
    if not len(spans):
        return "unknown"
    # a rectangle begins with its whole width, a convex scan with an arc, a sector with a point
    fraction = (spans[-1] - spans[0] + 1) / rows.shape[1]
    return "linear" if fraction > 0.9 else "sector" if fraction < 0.36 else "convex"

"""The outline of a scan without region tags: a rectangle, a trapezoid or a fan, with a confidence.

Older scanners write no region tags. The finder takes the largest connected area of tissue, fits
each outline to it by robust estimates of its edges, and compares the filled outline with the area.
A fit below `MIN_CONFIDENCE` is no region: a guess could keep text beside the scan.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from arl.corpus.record import Mask, Pixels
from arl.ingest.dicom.scan_region import LIT, MIN_SIDE, Region, disk, textured

MIN_CONFIDENCE = 0.9  # intersection over union of outline and tissue
_UNIFORM = 0.4  # fraction of the border in one grey level; less: the picture is a crop of a scan
_TEXTURED = 0.5  # fraction of an outline that is speckle; less: a banner or a page
_MIN_AREA = 0.06  # of the picture; smaller areas are icons and colour bars
_WORKING_SIDE = 512  # pixels of the long side, at which the outline is fitted
_STEEP = 0.04  # slope (pixels to the side per row) below which an edge is vertical
_TRIALS = 150  # pairs of points of the robust line fit
_NEAR = 2.5  # pixels from a line that agree with it

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Line:
    """x = intercept + slope * y."""

    intercept: float
    slope: float

    @classmethod
    def fit(
        cls, rows: npt.NDArray[np.intp], columns: Floats, lowest: int, sign: int
    ) -> "_Line | None":
        """The straight edge of one side, from the top to the row where the scan is widest.

        The line is a supporting one: it agrees with many rows and leaves little outside.
        """
        y, x = rows[: lowest + 1].astype(float), columns[: lowest + 1]
        if len(y) < 12:
            return None
        rng = np.random.default_rng(0)
        best, best_score = None, 0.0
        for _ in range(_TRIALS):
            i, j = rng.choice(len(y), 2, replace=False)
            if abs(y[i] - y[j]) < len(y) // 5:
                continue
            slope = (x[i] - x[j]) / (y[i] - y[j])
            distance = (x - (x[i] - slope * y[i]) - slope * y) * sign
            near = np.abs(distance) < _NEAR
            # rows whose tissue reaches over the line speak against it
            score = float(near.sum() - 2 * (distance < -_NEAR).sum())
            if score > best_score:
                best_score = score
                fit = np.polyfit(y[near], x[near], 1)
                best = cls(float(fit[1]), float(fit[0]))
        return best


def fan_region(sample: list[Pixels]) -> Region | None:
    """The scan region of grey frames of one file; None if no outline fits its tissue well.

    Args:
        sample: grey frames (H, W) of one size.
    """
    brightest = np.maximum.reduce(sample)
    outline, confidence = find_outline(brightest)
    if outline is None or confidence < MIN_CONFIDENCE:
        return None
    rows, columns = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    box = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
        return None
    return Region(box, "fan", inside=outline[box[0] : box[2], box[1] : box[3]])


def find_outline(grey: Pixels) -> tuple[Mask | None, float]:
    """The best outline of a scan, bool (H, W), and its confidence in [0, 1]."""
    scale = min(1.0, _WORKING_SIDE / max(grey.shape))
    small = grey
    if scale < 1:
        small = np.asarray(
            cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
    area = _tissue(small)
    if area is None:
        return None, 0.0
    best: tuple[float, Mask] | None = None
    for outline in _outlines(area):
        score = float((outline & area).sum() / (outline | area).sum())
        if best is None or score > best[0]:
            best = score, outline
    if best is None:
        return None, 0.0
    outline = best[1]
    if float(textured(small)[outline].mean()) < _TEXTURED:
        return None, 0.0
    if scale < 1:
        height, width = grey.shape
        enlarged = cv2.resize(
            outline.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR
        )
        outline = np.asarray(enlarged > 0, np.bool_)
    # the edge itself may be blurred with graphics beside it
    inner = cv2.erode(outline.astype(np.uint8), disk(3), borderValue=1)
    return np.asarray(inner > 0, np.bool_), best[0]


def _tissue(grey: Pixels) -> Mask | None:
    """The largest connected area that is lit and not flat, without holes."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    back = int(np.bincount(border, minlength=256).argmax())
    level = grey.astype(np.int16)
    uniform = float((np.abs(border.astype(np.int16) - back) <= 2).mean()) > _UNIFORM
    lit = (np.abs(level - back) > LIT) if uniform else level >= 0
    # letters and lines are thinner than this; tissue is not
    opened = cv2.morphologyEx(lit.astype(np.uint8), cv2.MORPH_OPEN, disk(5))
    wide = max(7, min(grey.shape) // 40) | 1
    padded = cv2.copyMakeBorder(opened, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk(wide))[wide:-wide, wide:-wide]
    separate = cv2.morphologyEx(closed, cv2.MORPH_OPEN, disk(wide))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(separate, connectivity=4)
    candidates = [
        (int(stats[i, cv2.CC_STAT_AREA]), i)
        for i in range(1, count)
        if stats[i, cv2.CC_STAT_AREA] >= _MIN_AREA * grey.size
        and float(grey[labels == i].std()) > 4
    ]
    if not candidates:
        return None
    mask = (labels == max(candidates)[1]).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return np.asarray(filled > 0, np.bool_)


def _outlines(area: Mask) -> Iterator[Mask]:
    """Outlines that fit the area: a rectangle, a trapezoid, and a fan about an apex."""
    rows = np.flatnonzero(area.any(axis=1))
    first = area.argmax(axis=1).astype(float)[rows]
    last = area.shape[1] - 1 - area[:, ::-1].argmax(axis=1).astype(float)[rows]
    yield _rectangle(area)
    left = _Line.fit(rows, first, lowest=int(first.argmin()), sign=1)
    right = _Line.fit(rows, last, lowest=int(last.argmax()), sign=-1)
    if left is None or right is None:
        return
    if abs(left.slope) > _STEEP or abs(right.slope) > _STEEP:
        yield _trapezoid(area, left, right)
        yield from _fans(area, left, right)


def _rectangle(area: Mask) -> Mask:
    """The rectangle whose sides are reached by half of the rows and columns."""
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    left = np.median(area[rows].argmax(axis=1))
    right = area.shape[1] - np.median(area[rows][:, ::-1].argmax(axis=1))
    top = np.median(area[:, columns].argmax(axis=0))
    bottom = area.shape[0] - np.median(area[::-1][:, columns].argmax(axis=0))
    outline = np.zeros_like(area)
    outline[int(top) : int(bottom), int(left) : int(right)] = True
    return outline


def _trapezoid(area: Mask, left: _Line, right: _Line) -> Mask:
    """Straight sides, flat top and bottom, as of steered linear probes."""
    rows = np.flatnonzero(area.any(axis=1))
    columns = np.flatnonzero(area.any(axis=0))
    middle = area[:, columns[len(columns) // 3] : columns[2 * len(columns) // 3]]
    inner = np.flatnonzero(middle.any(axis=0))
    top = float(np.median(middle[:, inner].argmax(axis=0))) if len(inner) else float(rows[0])
    bottom = float(rows[-1])
    corners = [
        (line.intercept + line.slope * y, y)
        for line, y in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
    outline = np.zeros(area.shape, np.uint8)
    cv2.fillPoly(outline, [np.round(np.array(corners)).astype(np.int32)], 1)
    return np.asarray(outline > 0, np.bool_)


def _fans(area: Mask, left: _Line, right: _Line) -> Iterator[Mask]:
    """Sectors of rings about the apex, where the sides meet; with a round and with a flat end."""
    if right.slope - left.slope < 2 * _STEEP:
        return
    apex_y = (left.intercept - right.intercept) / (right.slope - left.slope)
    apex_x = left.intercept + left.slope * apex_y
    y, x = np.indices(area.shape)
    down, aside = y - apex_y, x - apex_x
    radius = np.hypot(down, aside)
    between = (aside >= left.slope * down) & (aside <= right.slope * down) & (down > 0)
    radii = radius[area & between]
    if radii.size < 100:
        return
    angle = np.arctan2(aside, np.maximum(down, 1e-6))
    inner = _typical(radius, angle, area & between, far=False)
    outer = _typical(radius, angle, area & between, far=True)
    ring = between & (radius >= inner) & (radius <= outer)
    yield ring
    rows = np.flatnonzero(area.any(axis=1))
    yield ring & (y >= rows[0]) & (y <= rows[-1])
    # the picture may cut the sides and the end of a fan
    columns = np.flatnonzero(area.any(axis=0))
    yield ring & (x >= columns[0]) & (x <= columns[-1]) & (y <= rows[-1])


def _typical(radius: Floats, angle: Floats, area: Mask, *, far: bool) -> float:
    """The typical greatest or least radius with tissue, over the beams."""
    beam = np.digitize(angle[area], np.linspace(angle[area].min(), angle[area].max(), 48))
    values = radius[area]
    ends = [
        float(values[beam == i].max() if far else values[beam == i].min())
        for i in np.unique(beam)
        if (beam == i).sum() > 5
    ]
    # of the end, shadows take away; of the beginning, dark coupling does
    return float(np.percentile(ends, 75 if far else 35)) if ends else 0.0

"""Boxes in pictures: (top, left, bottom, right) in pixels, the last two exclusive."""

Box = tuple[int, int, int, int]


def area(box: Box) -> int:
    """Pixels of a box; 0 if it is empty."""
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def overlap(inner: Box, outer: Box) -> float:
    """Fraction of the inner box that lies in the outer one."""
    common = (
        max(inner[0], outer[0]),
        max(inner[1], outer[1]),
        min(inner[2], outer[2]),
        min(inner[3], outer[3]),
    )
    return area(common) / max(1, area(inner))


def clipped(box: Box, shape: tuple[int, ...]) -> Box:
    """The part of a box within a picture of this shape."""
    top, left, bottom, right = box
    return max(0, top), max(0, left), min(shape[0], bottom), min(shape[1], right)


def with_margin(box: Box, fraction: float, shape: tuple[int, ...]) -> Box:
    """The box with a margin of this fraction of its shorter side, and of one pixel."""
    top, left, bottom, right = box
    margin = round(fraction * min(bottom - top, right - left)) + 1
    return clipped((top - margin, left - margin, bottom + margin, right + margin), shape)


def merged(boxes: list[Box]) -> list[Box]:
    """Without boxes that lie in others, and with boxes that overlap mostly joined."""
    kept: list[Box] = []
    for box in sorted(boxes, key=area, reverse=True):
        for i, other in enumerate(kept):
            if overlap(box, other) > 0.7:
                kept[i] = (
                    min(box[0], other[0]),
                    min(box[1], other[1]),
                    max(box[2], other[2]),
                    max(box[3], other[3]),
                )
                break
        else:
            kept.append(box)
    return kept

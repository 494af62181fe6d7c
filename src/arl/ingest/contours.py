"""Masks of traced contours."""

import numpy as np
import numpy.typing as npt

from arl.corpus.record import Mask

Whole = npt.NDArray[np.int64]


def polygon_mask(columns: Whole, rows: Whole, height: int, width: int) -> Mask:
    """Mask bool (height, width) of the pixels whose centres lie inside of a closed polygon, or on its edge.

    By the crossings of the rays to the right and to the left, whose parities differ on an edge only
    (O'Rourke, Computational Geometry in C, 1998, 7.4); in whole numbers, so that nothing hangs on
    rounding. These are the pixels of `skimage.draw.polygon`, by which EchoNet-Dynamic's masks are
    defined; `cv2.fillPoly` draws other edges.

    Args:
        columns, rows: vertices (V,), pixels; they may lie outside of the picture.
    """
    y, x = np.ogrid[:height, :width]
    right, left, vertex = (np.zeros((height, width), np.bool_) for _ in range(3))
    for x0, y0, x1, y1 in zip(columns, rows, np.roll(columns, -1), np.roll(rows, -1), strict=True):
        side = ((x0 - x) * (y1 - y) - (x1 - x) * (y0 - y)) * np.sign(
            y1 - y0
        )  # > 0: the edge is right of the pixel
        right ^= ((y0 > y) != (y1 > y)) & (side > 0)
        left ^= ((y0 < y) != (y1 < y)) & (side < 0)
        vertex |= (x == x0) & (y == y0)
    return right | left | vertex

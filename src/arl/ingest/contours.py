"""Masks of traced contours."""

import numpy as np
import numpy.typing as npt

from arl.corpus.record import Mask

Integers = npt.NDArray[np.int64]


def polygon_mask(columns: Integers, rows: Integers, height: int, width: int) -> Mask:
    """Mask bool (height, width) of the pixels whose centres lie in a closed polygon or on its edge.

    A pixel is inside if the ray to the right crosses the polygon an odd number of times. On an edge
    the parities of the rays to the right and to the left differ (O'Rourke, Computational Geometry
    in C, 1998, 7.4). The arithmetic is in integers, so rounding has no effect. The result equals
    `skimage.draw.polygon`, which defines the masks of EchoNet-Dynamic; `cv2.fillPoly` draws other
    edges.

    Args:
        columns, rows: vertices (V,), pixels; they may lie outside the picture.
        height, width: of the mask, pixels.
    """
    y, x = np.ogrid[:height, :width]
    right, left, vertex = (np.zeros((height, width), np.bool_) for _ in range(3))
    for x0, y0, x1, y1 in zip(columns, rows, np.roll(columns, -1), np.roll(rows, -1), strict=True):
        # > 0: the edge is to the right of the pixel
        side = ((x0 - x) * (y1 - y) - (x1 - x) * (y0 - y)) * np.sign(y1 - y0)
        right ^= ((y0 > y) != (y1 > y)) & (side > 0)
        left ^= ((y0 < y) != (y1 < y)) & (side < 0)
        vertex |= (x == x0) & (y == y0)
    return right | left | vertex

"""Pictures with overlays, as an evaluation makes them and a page shows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arl.evaluation.metrics import Floats


@dataclass(frozen=True)
class Panel:
    """One picture of a grid of pictures, and what may be laid over it."""

    picture: npt.NDArray[Any]  # grey (H, W) in 0..255, or RGB (H, W, 3) in 0..1
    title: str = ""
    heat: Floats | None = None  # (h, w), of any unit: blue speaks against, red for
    arrows: tuple[Floats, Floats] | None = None  # tails and heads (n, 2), row and column in pixels
    outline: npt.NDArray[np.bool_] | None = None  # (H, W)

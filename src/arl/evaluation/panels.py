"""Pictures, points and tables, as an evaluation makes them and a page shows them."""

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Grid:
    """Pictures in rows and columns."""

    rows: Sequence[Sequence[Panel]]
    caption: str


@dataclass(frozen=True)
class Scatter:
    """Points on a plane, each in the colour of its group."""

    points: Floats  # (n, 2)
    groups: Sequence[str]  # of each point
    title: str


@dataclass(frozen=True)
class Section:
    """One section of a page: pictures, points or counts, and the table of their values."""

    title: str
    grid: Grid | None = None
    scatters: Sequence[Scatter] = ()
    counts: Sequence[tuple[str, int]] = ()
    remark: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    caption: str = ""  # of the table

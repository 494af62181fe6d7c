"""What a reader says about an image, and how it refuses an input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The manifest's part of an image; see `manifest.SCHEMA` for what is not explained here."""

    key: str  # unique in the source
    anatomy: str
    anatomy_rule: str = "source"
    site: str | None = None  # None: the source's name
    patient: str | None = None  # grouping keys within the source
    clip: str | None = None
    frame: int = 0
    region_rule: str | None = None
    probe: str = "unknown"
    device: str | None = None
    label: str | None = None
    mask_name: str | None = None
    pixel_spacing_mm: float | None = None  # of the image as given
    depth_cm: float | None = None
    color_doppler: bool = False
    synthetic: bool = False
    official: bool = False  # a frame that its dataset singles out, as end-diastole: never thinned; not in the manifest
    splits: Mapping[str, str] = field(default_factory=dict)  # protocol -> train, val or test


@dataclass(frozen=True)
class Record:
    """One image of an input: uint8 (H, W) or RGB (H, W, 3), and a mask (H, W) of what `entry.mask_name` says."""

    image: Pixels
    entry: Entry
    mask: Mask | None = None


class Refused(Exception):  # noqa: N818 - a verdict on an input, not an error of the program
    """An input cannot be accepted; the message is the reason that goes into quarantine and names no person."""


@dataclass(frozen=True)
class Input:
    """One thing given to ingest, a file or an entry of an index, and how to read its images.

    `records` may raise `Refused`, at any image: then none of the input's images is kept. It must be
    picklable.
    """

    name: str  # as quarantine names it: relative to the root, or a keyed hash for hospital data
    records: Callable[[], Iterable[Record]]


def refusal(name: str, reason: str) -> Input:
    """An input that cannot be accepted, as is known before it is opened."""
    return Input(name, partial(_refuse, reason))


def _refuse(reason: str) -> list[Record]:
    raise Refused(reason)

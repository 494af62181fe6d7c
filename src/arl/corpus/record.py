"""What a reader states about an image, and how it refuses an input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# What a label describes. All images of a clip, an examination or a patient carry its labels.
Level = Literal["image", "clip", "exam", "patient"]
LEVELS: tuple[Level, ...] = ("image", "clip", "exam", "patient")


@dataclass(frozen=True)
class Label:
    """One value of a named label.

    Attributes:
        value: A class name or grade (str), or a measurement (float).
        level: What the value describes.
    """

    value: str | float
    level: Level = "image"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The manifest columns of an image that its reader states; see `manifest.SCHEMA`.

    Attributes:
        key: Unique in the source.
        site: None stands for the source's name.
        patient: Grouping key inside the source, like `exam` and `clip`.
        label: The class of the image in the set's main task.
        labels: Further labels by name, of any kind.
        pixel_spacing_mm: Spacing of the image as given, along the rows.
        official: The dataset singles the frame out, for example as end-diastole. Thinning keeps
            it. Not in the manifest.
        splits: Protocol -> train, val or test.
        key_id: Id of the secret key that hashed the patient; None for public data.
        label_rows: Hashes of the rows of a label table that the image joins. Not in the manifest.
    """

    key: str
    anatomy: str
    anatomy_rule: str = "source"
    site: str | None = None
    patient: str | None = None
    exam: str | None = None
    clip: str | None = None
    frame: int = 0
    region_rule: str | None = None
    probe: str = "unknown"
    device: str | None = None
    label: str | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    mask_name: str | None = None
    pixel_spacing_mm: float | None = None
    depth_cm: float | None = None
    color_doppler: bool = False
    synthetic: bool = False
    official: bool = False
    splits: Mapping[str, str] = field(default_factory=dict)
    label_rows: tuple[str, ...] = ()
    key_id: str | None = None


@dataclass(frozen=True)
class Record:
    """One image of an input.

    Attributes:
        image: uint8 (H, W), or RGB (H, W, 3).
        mask: bool (H, W) of the structure that `entry.mask_name` names.
    """

    image: Pixels
    entry: Entry
    mask: Mask | None = None


class Refused(Exception):  # noqa: N818 - a verdict on an input, not an error of the program
    """The input cannot be accepted. The message goes into quarantine and names no person."""


@dataclass(frozen=True)
class Input:
    """One file, or one entry of an index, and how to read its images.

    Attributes:
        name: The name in quarantine: relative to the root, or a keyed hash for hospital data.
        records: Yields the images, and may raise `Refused` at any image: then none of the input's
            images is kept. It must be picklable.
        label: The class that the layout states before the input is opened, if it states one.
    """

    name: str
    records: Callable[[], Iterable[Record]]
    label: str | None = None


def refusal(name: str, reason: str) -> Input:
    """An input that is refused before it is opened."""
    return Input(name, partial(_refuse, reason))


def _refuse(reason: str) -> list[Record]:
    raise Refused(reason)

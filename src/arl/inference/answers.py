"""The prediction for one file."""

from collections.abc import Sequence
from dataclasses import dataclass

from arl.evaluation.panels import Panel


@dataclass(frozen=True)
class Facts:
    """The prediction for one file, as predictions.json holds it."""

    file: str
    pictures: int
    called: str | None  # the class; None for masks, and where no threshold is known
    # Calibrated if the model was evaluated; of masks, the fraction of the image inside.
    probabilities: dict[str, float]
    calibrated: bool
    frames: list[dict[str, float]]  # raw scores of each picture, with its frame and region
    notes: list[str]
    threshold: float | None = None  # of the last class's probability, on the same scale
    distance: float | None = None  # from the training images, in units of the limit of usual ones


@dataclass(frozen=True)
class Answer:
    """The prediction, and panels of some of its pictures."""

    facts: Facts
    panels: Sequence[Sequence[Panel]]

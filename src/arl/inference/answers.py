"""What a model says about one file."""

from collections.abc import Sequence
from dataclasses import dataclass

from arl.evaluation.panels import Panel


@dataclass(frozen=True)
class Facts:
    """What is said of one file, and goes into predictions.json."""

    file: str
    pictures: int
    called: str | None  # the class; None for masks, and where no threshold is known
    probabilities: dict[
        str, float
    ]  # calibrated if the model was evaluated; of masks: share of the image inside
    calibrated: bool
    frames: list[dict[str, float]]  # raw scores of each picture, with its frame and region
    notes: list[str]
    threshold: float | None = None  # of the last class's probability, on the same scale
    distance: float | None = None  # from the training images, in units of the limit of usual ones


@dataclass(frozen=True)
class Answer:
    """The facts, and some of the pictures with what the model looked at."""

    facts: Facts
    panels: Sequence[Sequence[Panel]]

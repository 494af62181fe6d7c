"""The metrics file of a pretraining: losses of each step and measurements of the features."""

from dataclasses import dataclass, field
from typing import ClassVar

from arl.documents import EXACT, Document


@dataclass(frozen=True)
class PretrainingMetrics(Document):
    """What `arl pretrain` writes into its metrics file.

    Attributes:
        images: images of the training split.
        steps: optimiser steps.
        history: named terms of each step: `step`, `loss`, the terms of eq. 6 and their weights.
        features: measurements of the released encoder's features: `step`, `rankme` and, if labels
            permit, `knn`.
        final: the last entry of the history.
        clamped_fraction: fraction of the steps with L_adv in which lambda was at its limit.
        warnings: signs of collapse and of a won or lost GAN, as sentences.
    """

    FORMAT: ClassVar[str] = "arl.pretraining"
    VERSION: ClassVar[int] = 2

    images: int
    steps: int
    history: list[dict[str, float]] = field(metadata=EXACT)
    features: list[dict[str, float]] = field(metadata=EXACT)
    final: dict[str, float] = field(metadata=EXACT)
    clamped_fraction: float
    warnings: list[str]

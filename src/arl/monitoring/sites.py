"""What the page of a drift test takes beside its result: the compared samples and the settings."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Samples:
    """What was compared, for the charts of the page."""

    current: pd.DataFrame  # one row per new patient, numbers adjusted for the anatomy
    reference: pd.DataFrame  # one row per patient of the training images
    embeddings: npt.NDArray[np.float32]  # (N, C), one row per image of both sides
    is_current: npt.NDArray[np.bool_]  # (N,)


@dataclass(frozen=True)
class Rules:
    """The settings that decide."""

    alpha: float
    drift_share: float
    permutations: int

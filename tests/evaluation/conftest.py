"""Tables of predictions with a known truth."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm


def origin(patients: int, images: int) -> pd.DataFrame:
    """`images` of each patient, who is at one of two sites and under one of two devices."""
    patient = np.repeat(np.arange(patients), images)
    return pd.DataFrame(
        {
            "id": [f"clinic:{i}" for i in range(len(patient))],
            "patient": [f"clinic:p{p}" for p in patient],
            "site": np.where(patient % 4 < 2, "north", "south"),
            "probe": "linear",
            "device": np.where(patient % 6 < 3, "A", "B"),
            "synthetic": False,
        }
    )


def classification(
    patients: int, *areas: float, images: int = 1, seed: int = 0, shared: float = 0.5
) -> list[pd.DataFrame]:
    """One table for each true AUROC, of models whose errors share that part of their variance."""
    rng = np.random.default_rng(seed)
    about = origin(patients, images)
    labels = np.repeat(np.arange(patients) % 2, images)
    common = np.sqrt(shared) * rng.normal(size=len(about))
    tables = []
    for area in areas:
        noise = common + np.sqrt(1 - shared) * rng.normal(size=len(about))
        score = norm.cdf(noise + labels * norm.ppf(area) * np.sqrt(2) - 1)
        tables.append(about.assign(label=labels, score_0=1 - score, score_1=score))
    return tables


def segmentation(patients: int, *means: float, seed: int = 0) -> list[pd.DataFrame]:
    """One table for each mean Dice."""
    rng = np.random.default_rng(seed)
    tables = []
    for mean in means:
        dice = (mean + rng.normal(0, 0.08, patients)).clip(0, 1)
        tables.append(origin(patients, 1).assign(dice=dice, iou=dice / (2 - dice)))
    return tables


Tables = Callable[..., list[pd.DataFrame]]


@pytest.fixture
def classifications() -> Tables:
    return classification


@pytest.fixture
def segmentations() -> Tables:
    return segmentation

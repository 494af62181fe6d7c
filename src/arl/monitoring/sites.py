"""What the comparison of new images with training images says, site by site."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.monitoring.drift import TabularDrift


@dataclass(frozen=True)
class Site:
    """New images of one site, the training images they are compared with, and what the comparison says."""

    site: str
    part: str  # "probe linear": only these of its images; empty: all
    compared_with: str
    patients: int
    reference_patients: int
    mmd2: float
    p_value: float
    p_adjusted: float  # Holm, over the sites and their parts
    usual: float | None  # squared MMD that a shift has to exceed; None: too few sites are known
    drifted: bool

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (self.site, self.part)))


@dataclass
class Findings:
    """The content of drift.json."""

    decision: str  # drift | no-drift | too-few | no-new-data
    reasons: list[str]
    batches: list[str] = field(default_factory=list)
    images: int = 0
    patients: int = 0
    reference_images: int = 0
    reference_patients: int = 0
    untested: dict[str, str] = field(default_factory=dict)  # site, or site and part -> why
    known: dict[str, float] = field(
        default_factory=dict
    )  # training site -> its squared MMD from the others
    sites: list[Site] = field(default_factory=list)
    tabular: TabularDrift | None = None


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

"""The result of a drift test, drift.json: one class writes it and every reader reads that class."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from arl.documents import Document

DriftDecision = Literal["drift", "no-drift", "too-few", "no-new-data"]
Trigger = Literal["retrain", "no-drift", "too-few"]
_TRIGGERS: dict[DriftDecision, Trigger] = {
    "drift": "retrain",
    "no-drift": "no-drift",
    "too-few": "too-few",
    "no-new-data": "too-few",
}


@dataclass(frozen=True)
class ColumnDrift:
    """The test of one column of image statistics or metadata.

    Attributes:
        method: `ks` (Kolmogorov-Smirnov) for numbers, `homogeneity` (chi-square) for names.
        reference_median, current_median: over patients, for numbers.
        reference_mode, current_mode: the most frequent name, for names.
    """

    column: str
    method: str
    p_value: float
    drifted: bool
    reference_median: float | None = None
    current_median: float | None = None
    reference_mode: str | None = None
    current_mode: str | None = None

    @property
    def reference(self) -> float | str | None:
        """The typical value of the reference patients."""
        return self.reference_mode if self.reference_median is None else self.reference_median

    @property
    def current(self) -> float | str | None:
        """The typical value of the new patients."""
        return self.current_mode if self.current_median is None else self.current_median


@dataclass(frozen=True)
class TabularDrift:
    """Tests of all columns, with one row per patient.

    Attributes:
        threshold: p-value below which one column drifts: alpha over the number of columns.
        drift_share: fraction of drifted columns from which the table as a whole drifts.
        left_out: column -> why it cannot be compared.
        drifted_fraction: fraction of the compared columns that drifted.
        decides: whether the table asks for a training; else it explains a shift.
    """

    columns: list[ColumnDrift]
    threshold: float
    drift_share: float
    left_out: dict[str, str]
    drifted_fraction: float
    drifted: bool
    decides: bool = False


@dataclass(frozen=True)
class SiteShift:
    """The comparison of a site's new images, or of one probe's or device's, with training images.

    Attributes:
        part: the probe or device, e.g. "probe linear"; empty for all images of the site.
        compared_with: name of the reference, e.g. "its own training images".
        patients: number of new patients.
        reference_patients: number of patients in the reference.
        mmd2: unbiased squared maximum mean discrepancy of the embeddings; may be negative.
        p_value: permutation test over patients.
        p_adjusted: Holm-adjusted over all sites and parts.
        usual: squared MMD that a shift must exceed; None where fewer than three sites are known.
    """

    site: str
    part: str
    compared_with: str
    patients: int
    reference_patients: int
    mmd2: float
    p_value: float
    p_adjusted: float
    usual: float | None
    drifted: bool

    @property
    def label(self) -> str:
        """Site and part, e.g. "clinic, probe linear"."""
        return ", ".join(filter(None, (self.site, self.part)))


@dataclass(frozen=True)
class DriftResult(Document):
    """The content of drift.json.

    Attributes:
        reasons: sentences that explain the decision.
        batches: "source/batch" of the new batches.
        untested: site, or site and part -> why it cannot be tested.
        site_distances: training site -> its squared MMD from the other training sites.
        sites: one entry per tested site and part.
        tabular: column tests; None where nothing was compared.
    """

    FORMAT: ClassVar[str] = "arl.drift"
    VERSION: ClassVar[int] = 1

    decision: DriftDecision
    reasons: list[str]
    batches: list[str] = field(default_factory=list)
    images: int = 0
    patients: int = 0
    reference_images: int = 0
    reference_patients: int = 0
    untested: dict[str, str] = field(default_factory=dict)
    site_distances: dict[str, float] = field(default_factory=dict)
    sites: list[SiteShift] = field(default_factory=list)
    tabular: TabularDrift | None = None

    @property
    def trigger(self) -> Trigger:
        """The action that the decision asks for; a pipeline branches on it."""
        return _TRIGGERS[self.decision]

"""The files of measured results: metrics.json of a model or a release, probe.json of an encoder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from arl.documents import EXACT, Document


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence limits."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """E.g. "0.947 (0.921 to 0.968)"."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def signed(self) -> str:
        """The same with signs, for a difference."""
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Estimate:
    """A metric; without limits where no interval is honest, as for the calibration error."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval) -> "Estimate":
        """The same numbers."""
        return cls(interval.value, interval.low, interval.high)


@dataclass(frozen=True)
class SliceMetric:
    """The main metric of one site, probe or device."""

    images: int
    patients: int
    estimate: Estimate | None = None  # None: undefined, see `note`
    note: str = ""  # why the metric or its interval is undefined


@dataclass(frozen=True)
class Calibration:
    """Calibration of the test images after temperature scaling."""

    ece: float
    brier: float


@dataclass(frozen=True)
class Metrics(Document):
    """metrics.json of an evaluation: one model on the test images of its task."""

    FORMAT: ClassVar[str] = "arl.metrics"
    VERSION: ClassVar[int] = 2
    FILE: ClassVar[str] = "metrics.json"

    task: str
    kind: str  # classification | segmentation
    classes: list[str]
    model_hash: str  # `files.tree_hash` of the model's folder
    images: int
    patients: int
    grouping: str  # what `patients` counts: patient, clip or image
    synthetic: bool  # some test image is a phantom
    main_metric: str  # auroc | top1 | dice
    confidence: float
    metrics: dict[str, Estimate]
    delong: Estimate | None  # AUROC of two classes with DeLong's interval over patients
    detectable_difference: float  # from a fixed value, with a power of 80 %
    confusion: list[list[int]] | None  # truth in rows; None for segmentation
    slices: dict[str, dict[str, SliceMetric]]  # site, probe, ... -> name -> metric
    # a threshold lies half-way between two scores, and rounding could move an image across it
    threshold: float | None = field(metadata=EXACT)
    temperature: float | None = field(metadata=EXACT)  # None for segmentation
    calibrated: Calibration | None
    temperature_at_limit: bool = False  # no finite temperature fits the validation images

    @property
    def main(self) -> Estimate:
        """The metric that the gate judges."""
        return self.metrics[self.main_metric]


def read_metrics(evaluation: Path) -> Metrics:
    """The metrics in the folder that `arl evaluate` wrote.

    Raises:
        FileNotFoundError, DocumentError: see `Document.read`.
    """
    return Metrics.read(evaluation / Metrics.FILE)


@dataclass(frozen=True)
class ReleaseMetrics(Document):
    """metrics.json of a release: the metrics of each task."""

    FORMAT: ClassVar[str] = "arl.release-metrics"
    VERSION: ClassVar[int] = 2
    FILE: ClassVar[str] = "metrics.json"

    tasks: dict[str, Metrics]


@dataclass(frozen=True)
class ProbeMetrics(Document):
    """The file of `arl probe`: a linear probe and k-NN on the features of a frozen encoder."""

    FORMAT: ClassVar[str] = "arl.probe"
    VERSION: ClassVar[int] = 1

    task: str
    classes: list[str]
    encoder_hash: str  # `files.tree_hash` of the checkpoint's folder
    pooling: str
    images: int
    patients: int
    grouping: str
    synthetic: bool
    fraction: float  # of the training patients of each label
    solver: str
    batch_norm: bool
    strength: float  # C of logistic regression, or the learning rate of SGD
    linear: dict[str, Estimate]
    knn: dict[str, Estimate]
    threshold: float | None = field(metadata=EXACT)

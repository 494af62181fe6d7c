"""The gate's decision and its file, decision.json."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from arl.documents import Document
from arl.evaluation.results import Interval
from arl.evaluation.spending import spent

Verdict = Literal["promote", "reject", "inconclusive"]


@dataclass(frozen=True)
class Settings:
    """How strict the gate is."""

    bootstrap: int  # resamples
    alpha: float  # one-sided over all tries of a task; one-sided over all slices of a decision
    min_patients: int  # fewer test patients release nothing
    min_slice_patients: int  # smaller slices are not tested
    max_trials: int  # decisions on one series of test sets
    max_calibration_error: float  # beyond it, and beyond chance, a model is rejected
    seed: int

    def __post_init__(self) -> None:
        # Settings come from params.yaml and from old decisions, so they are checked where they are
        # made.
        if not 0 < self.alpha < 1:
            raise ValueError(f"gate alpha {self.alpha:g} must be within 0 and 1")
        if self.max_trials < 1:
            raise ValueError(f"gate max_trials {self.max_trials} must be at least 1")

    def level(self, trial: int) -> float:
        """One-sided level of a try; 0 where the test set is exhausted."""
        return spent(self.alpha, trial, self.max_trials)

    def confidence(self, trial: int) -> float:
        """Two-sided confidence of the intervals of a try."""
        return 1 - 2 * self.level(trial)


@dataclass(frozen=True)
class SliceResult:
    """The comparison on one part of the test images, e.g. one site."""

    origin: str  # column: site, probe, device, sex, ...
    name: str
    metric: str  # main metric; sensitivity, specificity or accuracy where a class is missing
    images: int
    patients: int
    value: float | None = None  # difference of the point estimates
    difference: Interval | None = None
    p_value: float | None = None  # one-sided, adjusted
    worse: bool = False
    note: str = ""  # why it was not tested


@dataclass(frozen=True)
class CalibrationResult:
    """The calibration of the probabilities after temperature scaling."""

    ece: float
    limit: float
    chance: float  # a perfectly calibrated model exceeds this with probability alpha
    brier: float
    champion_brier: float | None = None
    p_value: float | None = None  # one-sided that the Brier score is not worse, adjusted
    worse: bool = False

    @property
    def off(self) -> bool:
        """Whether the calibration error is too large, beyond chance."""
        return self.ece > max(self.limit, self.chance)


@dataclass(frozen=True)
class TrialCount:
    """The number of this decision on its series of test sets."""

    number: int
    limit: int
    level: float  # one-sided, of this try
    test_set: str  # e.g. "breast, version 2"
    series: str
    frozen: bool  # False: the split "test" of the corpus, which no one froze
    changed: bool = False  # not frozen, and other images than the champion was judged on

    @property
    def exhausted(self) -> bool:
        """Whether no level is left."""
        return self.number > self.limit

    @property
    def sentence(self) -> str:
        """What this decision costs, after a space; empty for the first one."""
        if self.number == 1:
            return ""
        return (
            f" This is decision {self.number} of {self.limit} on test set {self.test_set},"
            f" at a one-sided level of {self.level:.5f}."
        )


@dataclass(frozen=True)
class TaskResult:
    """The comparison on the test images of one task."""

    task: str
    main_metric: str
    verdict: Verdict
    reasons: list[str]
    images: int
    patients: int
    margin: float
    floor: float
    synthetic: bool
    trial: TrialCount
    challenger: Interval | None = None
    champion: Interval | None = None
    difference: Interval | None = None
    best_release: str | None = None  # the best release of this lineage; None: the new model
    best_difference: Interval | None = None  # from the best release, where it is not the champion
    unseen: float | None = None  # loss by failures that none of so many patients need show
    detectable: float | None = None  # smallest true difference seen with a power of 80 %
    power: float | None = None  # probability that an equal model would have been promoted
    power_first: float | None = None  # the same at the first try
    power_last: float | None = None  # the same at the last try
    patients_needed: int | None = None  # for a power of 0.8
    calibration: CalibrationResult | None = None
    slices: list[SliceResult] = field(default_factory=list)

    @property
    def p_values(self) -> list[float]:
        """Of the tested slices, then of the calibration."""
        raw = [part.p_value for part in self.slices]
        raw.append(self.calibration.p_value if self.calibration else None)
        return [p for p in raw if p is not None]

    def with_adjusted(self, adjusted: Iterator[float], alpha: float) -> "TaskResult":
        """Replace `p_values`, in their order; what is below alpha is worse."""
        slices = []
        for part in self.slices:
            if part.p_value is not None:
                p = next(adjusted)
                part = replace(part, p_value=p, worse=p < alpha)
            slices.append(part)
        calibration = self.calibration
        if calibration is not None and calibration.p_value is not None:
            p = next(adjusted)
            calibration = replace(calibration, p_value=p, worse=p < alpha)
        return replace(self, slices=slices, calibration=calibration)


@dataclass(frozen=True)
class SourceTerms:
    """Licence and citation of a source."""

    licence: str
    citation: str


@dataclass(frozen=True)
class Decision(Document):
    """The verdict over all tasks, its reasons, and the files that it is about."""

    FORMAT: ClassVar[str] = "arl.decision"
    VERSION: ClassVar[int] = 2
    FILE: ClassVar[str] = "decision.json"

    verdict: Verdict
    reasons: list[str]
    tasks: dict[str, TaskResult]
    settings: Settings
    notes: list[str] = field(default_factory=list)  # facts beside the reasons
    champion: str | None = None  # the release that the models were compared with
    models: dict[str, str] = field(default_factory=dict)  # task -> `files.tree_hash` of its model
    sources: dict[str, SourceTerms] = field(default_factory=dict)  # of the corpus


def read_decision(folder: Path) -> Decision:
    """The decision in the folder that `arl gate` wrote.

    Raises:
        FileNotFoundError, DocumentError: see `Document.read`.
    """
    return Decision.read(folder / Decision.FILE)

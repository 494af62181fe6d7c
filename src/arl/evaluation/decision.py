"""The gate's decision and its file, decision.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from arl.documents import Document
from arl.evaluation.results import Interval

Verdict = Literal["promote", "reject", "inconclusive"]


@dataclass(frozen=True)
class Settings:
    """How strict the gate is."""

    bootstrap: int  # resamples
    alpha: float  # two-sided for a task's interval, one-sided and shared among all slices
    min_slice_patients: int  # smaller slices are not tested
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"gate alpha {self.alpha:g} must be within 0 and 1")

    @property
    def confidence(self) -> float:
        """Of a task's interval."""
        return 1 - self.alpha


@dataclass(frozen=True)
class SliceResult:
    """The comparison on one site, probe or device."""

    origin: str  # site | probe | device
    name: str
    images: int
    patients: int
    difference: Interval | None = None
    p_value: float | None = None  # one-sided, adjusted
    worse: bool = False
    note: str = ""  # why it was not tested


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
    challenger: Interval | None = None
    champion: Interval | None = None
    difference: Interval | None = None
    unseen: float | None = None  # loss by failures that none of so many patients need show
    detectable: float | None = None  # smallest true difference seen with a power of 80 %
    power: float | None = None  # probability that an equal model would have been promoted
    patients_needed: int | None = None  # for a power of 0.8
    slices: list[SliceResult] = field(default_factory=list)


@dataclass(frozen=True)
class SourceTerms:
    """Licence and citation of a source."""

    licence: str
    citation: str


@dataclass(frozen=True)
class Decision(Document):
    """The verdict over all tasks, its reasons, and the files that it is about."""

    FORMAT: ClassVar[str] = "arl.decision"
    VERSION: ClassVar[int] = 1
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

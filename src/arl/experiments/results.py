"""The results of an experiment: in memory for its pages, and as results.json."""

import shlex
from dataclasses import dataclass
from typing import ClassVar

from arl.documents import Document
from arl.evaluation.comparison import Figure, Replicate
from arl.evaluation.panels import Section
from arl.evaluation.results import Interval
from arl.experiments.spec import Experiment

# (protocol, task) -> row, or row and audit -> replicates
Cells = dict[tuple[str, str], dict[str, list[Replicate]]]
# (protocol, task) -> metric -> row -> figure
Results = dict[tuple[str, str], dict[str, dict[str, Figure]]]

PROTOCOL_TITLES = {"probe": "linear probe", "finetune": "fine-tuned"}
_TRAINING_STAGES = ("pretrain", "probe", "finetune")
_AUDIT_TITLES = {"none": "no anatomy", "shuffled": "wrong anatomy"}


@dataclass(frozen=True)
class Size:
    """Test images and patients over all replicates, each counted once."""

    images: int
    patients: int


@dataclass(frozen=True)
class StageTime(Document):
    """The time of one training or measurement, measured when it ran."""

    FORMAT: ClassVar[str] = "arl.stage-time"
    VERSION: ClassVar[int] = 1

    name: str  # folder
    seconds: float
    cpu: float  # processor seconds
    resumed: bool  # an earlier attempt was killed, and the times are of the last one

    @property
    def stage(self) -> str:
        """The stage that ran, e.g. "pretrain"."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class ExperimentRun:
    """An experiment at one scale, with all of its results."""

    experiment: Experiment
    scale: str
    changes: list[str]  # choices for every row, beside the scale's
    replicates: int
    cells: Cells
    results: Results
    sections: list[Section]
    used: dict[str, list[str]]  # row -> its trainings and measurements
    times: list[StageTime]
    absent: dict[str, str]  # row -> why it was not run
    synthetic: bool
    resamples: int
    confidence: float

    @property
    def command(self) -> str:
        """The command that makes this run again."""
        words = ["arl", "paper", self.experiment.name, "--scale", self.scale]
        if self.results and self.replicates < len(self.experiment.scales[self.scale].replicates):
            words += ["--replicates", str(self.replicates)]
        return shlex.join([*words, *(["--set", *self.changes] if self.changes else [])])

    def size(self, protocol: str, task: str) -> Size:
        """The size of a task's test set."""
        tables = [replicate.table for replicate in next(iter(self.cells[protocol, task].values()))]
        return Size(
            images=len({name for table in tables for name in table["id"]}),
            patients=len({name for table in tables for name in table["patient"]}),
        )

    def main_metric(self, task: str) -> str:
        """The metric that differences are tested by."""
        return self.experiment.metrics[task][0]

    def label(self, name: str) -> str:
        """A row's label; of an audit with the anatomy that the model received."""
        row, _, audit = name.partition(", ")
        label = next(one.label for one in self.experiment.rows if one.name == row)
        return f"{label}: {_AUDIT_TITLES[audit]}" if audit else label

    def claimed(self, protocol: str, task: str, metric: str, name: str) -> float | None:
        """The value in the paper; None where the paper has none."""
        claims = next((row.claimed for row in self.experiment.rows if row.name == name), {})
        return claims.get(protocol, {}).get(task, {}).get(metric)

    def minutes(self, name: str) -> str | None:
        """CPU minutes of a row's trainings for one replicate; None for an audit, which has none."""
        if name not in self.used:
            return None
        times = [
            time
            for time in self.times
            if time.name in self.used[name] and time.stage in _TRAINING_STAGES
        ]
        text = f"{sum(time.cpu for time in times) / 60 / self.replicates:.1f}"
        return f"at least {text}" if any(time.resumed for time in times) else text

    def explanation(self, protocol: str, task: str) -> str:
        """The caption of a table: its test set, its seeds and its intervals."""
        size, count = self.size(protocol, task), self.replicates
        confidence = f"{self.confidence:.0%}".replace("%", " %")
        seeds = f"the mean over {count} seeds" if count > 1 else "one seed"
        over = "patients and seeds" if count > 1 else "patients"
        text = (
            f"{size.images:,} test images of {size.patients:,} patients, {seeds}."
            f" Intervals: {confidence} over {over}"
            f" (BCa bootstrap, {self.resamples:,} resamples of whole patients"
        )
        if count == 1:
            return f"{text})."
        return f"{text}, widened by Student's t over the seeds, whose own values stand beside)."

    def compared(self, protocol: str) -> str:
        """The caption of the differences of a protocol's tables."""
        comparisons = sum(
            figure.corrected is not None
            for (other, _), figures in self.results.items()
            if other == protocol
            for figure in next(iter(figures.values())).values()
        )
        return (
            f"Differences: {self.label(self.experiment.reference)} minus the row, paired over the"
            f" same resamples; p two-sided, corrected (Holm) for the {comparisons} comparisons of"
            f" the {PROTOCOL_TITLES[protocol]} tables. The second p value uses no resampling and"
            " also sums over patients (AUROC: DeLong's by Obuchowski; shares: McNemar's exact"
            " test). Detectable: the smallest true difference that this test set shows with a"
            " power of 80 %."
        )


@dataclass(frozen=True)
class ResultCell:
    """One metric of one row of a table, as in `comparison.Figure`."""

    protocol: str
    task: str
    metric: str
    row: str
    images: int
    patients: int
    interval: Interval
    each: list[float]
    spread: float | None
    difference: Interval | None
    p_value: float | None
    corrected: float | None
    check: float | None
    check_corrected: float | None
    detectable: float | None


@dataclass(frozen=True)
class ExperimentResults(Document):
    """results.json of an experiment."""

    FORMAT: ClassVar[str] = "arl.experiment"
    VERSION: ClassVar[int] = 1
    FILE: ClassVar[str] = "results.json"

    experiment: str
    scale: str
    changes: list[str]
    replicates: int
    cells: list[ResultCell]
    absent: dict[str, str]
    tables: dict[str, list[list[str]]]  # title -> header and rows of the other tables
    times: list[StageTime]


def results_of(run: ExperimentRun) -> ExperimentResults:
    """The document of a run."""
    cells = [
        ResultCell(protocol, task, metric, row, **vars(run.size(protocol, task)), **vars(figure))
        for (protocol, task), figures in run.results.items()
        for metric, rows in figures.items()
        for row, figure in rows.items()
    ]
    return ExperimentResults(
        experiment=run.experiment.name,
        scale=run.scale,
        changes=run.changes,
        replicates=run.replicates,
        cells=cells,
        absent=run.absent,
        tables={
            section.title: [list(section.columns), *map(list, section.rows)]
            for section in run.sections
            if section.columns
        },
        times=run.times,
    )

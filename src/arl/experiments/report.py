"""An experiment's findings, and their tables in markdown."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from arl.evaluation.comparison import Figure, Replicate
from arl.evaluation.metrics import TITLES
from arl.evaluation.panels import Section
from arl.evaluation.results import Interval
from arl.experiments.spec import Experiment

Cells = dict[
    tuple[str, str], dict[str, list[Replicate]]
]  # (protocol, task) -> row, or row and audit -> replicates
Results = dict[
    tuple[str, str], dict[str, dict[str, Figure]]
]  # (protocol, task) -> metric -> row -> figure

PROTOCOL_TITLES = {"probe": "linear probe", "finetune": "fine-tuned"}
_TRAINED = ("pretrain", "probe", "finetune")


@dataclass(frozen=True)
class Size:
    """Test images and patients over all replicates, each counted once."""

    images: int
    patients: int


@dataclass(frozen=True)
class Findings:
    """What an experiment found, and with what."""

    found: Experiment
    scale: str
    changes: list[str]  # choices for every row, beside the scale's
    replicates: int
    cells: Cells
    results: Results
    shown: list[Section]
    used: dict[str, list[str]]  # row -> its trainings and measurements
    times: pd.DataFrame  # of them all, see `Runner.times`
    absent: dict[str, str]  # row -> why it was not run
    synthetic: bool
    resamples: int
    confidence: float

    @property
    def command(self) -> str:
        """What makes this again."""
        words = ["arl", "paper", self.found.name, "--scale", self.scale]
        if self.results and self.replicates < len(self.found.scales[self.scale].replicates):
            words += ["--replicates", str(self.replicates)]
        return shlex.join([*words, *(["--set", *self.changes] if self.changes else [])])

    def size(self, protocol: str, task: str) -> Size:
        """Of the test set."""
        tables = [replicate.table for replicate in next(iter(self.cells[protocol, task].values()))]
        return Size(
            images=len({name for table in tables for name in table["id"]}),
            patients=len({name for table in tables for name in table["patient"]}),
        )

    def label(self, name: str) -> str:
        """A row's label; of an audit what the model was told."""
        row, _, told = name.partition(", ")
        label = next(one.label for one in self.found.rows if one.name == row)
        return f"{label}: {'no anatomy' if told == 'none' else 'wrong anatomy'}" if told else label

    def claimed(self, protocol: str, task: str, metric: str, name: str) -> float | None:
        """What the paper says; None: nothing."""
        claims = next((row.claimed for row in self.found.rows if row.name == name), {})
        return claims.get(protocol, {}).get(task, {}).get(metric)

    def minutes(self, name: str) -> str | None:
        """Processor time of a row's trainings, a replicate; None for an audit, which trains nothing."""
        if name not in self.used:
            return None
        rows = self.times[
            self.times["name"].isin(self.used[name]) & self.times["stage"].isin(_TRAINED)
        ]
        text = f"{rows['cpu'].sum() / 60 / self.replicates:.1f}"
        return f"at least {text}" if rows["resumed"].any() else text

    def explanation(self, protocol: str, task: str) -> str:
        """What the numbers of a table are."""
        size, count = self.size(protocol, task), self.replicates
        share = f"{self.confidence:.0%}".replace("%", " %")
        seeds = f"the mean over {count} seeds" if count > 1 else "one seed"
        text = (
            f"{size.images:,} test images of {size.patients:,} patients, {seeds}. Intervals: {share} over patients "
            f"(BCa bootstrap, {self.resamples:,} resamples of whole patients"
        )
        if count > 1:
            text += " of that mean); they hold for these seeds, whose own values stand beside them"
        else:
            text += ")"
        return f"{text}."

    def compared(self, protocol: str) -> str:
        """What the differences of a protocol's tables are."""
        comparisons = sum(
            figure.corrected is not None
            for (of, _), figures in self.results.items()
            if of == protocol
            for figure in next(iter(figures.values())).values()
        )
        return (
            f"Differences: {self.label(self.found.reference)} minus the row, paired over the same resamples; "
            f"p two-sided, corrected (Holm) for the {comparisons} comparisons of the {PROTOCOL_TITLES[protocol]} tables; "
            "the second p does without resampling and sums over patients, too (AUROC: DeLong's by Obuchowski; shares: "
            "McNemar's exact test). "
            "Detectable: the smallest true difference that this test set shows with a power of 80 %."
        )


def interval_text(interval: Interval, form: str = ".3f") -> str:
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def p_text(value: float | None) -> str | None:
    return None if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


# --- markdown --------------------------------------------------------------------------------


def markdown(findings: Findings) -> str:
    """Every table with what its numbers are, and the command; to be put into a README as it is."""
    parts = []
    if findings.synthetic:
        parts.append("The corpus holds **synthetic** images: no figure here is clinical.")
    for protocol, task in findings.results:
        parts += [
            f"**{task}, {PROTOCOL_TITLES[protocol]}**",
            _markdown_table(findings, protocol, task),
        ]
        parts.append(findings.explanation(protocol, task))
        if (
            findings.found.reference
            in findings.results[protocol, task][main_metric_of(findings, task)]
        ):
            parts[-1] += f" {findings.compared(protocol)}"
    parts += as_markdown(findings.shown)
    absent = [f"{findings.label(name)} ({reason})" for name, reason in findings.absent.items()]
    if absent:
        parts.append(f"Not run: {'; '.join(absent)}.")
    trained = (
        "CPU minutes: of a row's trainings for one seed, probe and fine-tuning. "
        if findings.results
        else ""
    )
    parts.append(f"{trained}Made by `{findings.command}`.")
    return "\n\n".join(parts) + "\n"


def main_metric_of(findings: Findings, task: str) -> str:
    return findings.found.metrics[task][0]


def _markdown_table(findings: Findings, protocol: str, task: str) -> str:
    figures = findings.results[protocol, task]
    main, others = main_metric_of(findings, task), findings.found.metrics[task][1:]
    claims = any(findings.claimed(protocol, task, main, name) is not None for name in figures[main])
    columns = [
        "",
        TITLES[main],
        *(["claimed"] if claims else []),
        *(["each seed"] if findings.replicates > 1 else []),
    ]
    checked = check_title(main, figures[main])
    columns += [
        "difference",
        "p",
        *checked,
        "detectable",
        *(TITLES[name] for name in others),
        "CPU minutes",
    ]
    rows = []
    for name, figure in figures[main].items():
        row = [findings.label(name), interval_text(figure.interval)]
        if claims:
            row.append(_or_dash(findings.claimed(protocol, task, main, name), ".3f"))
        if findings.replicates > 1:
            row.append(", ".join(f"{value:.3f}" for value in figure.each))
        row += [
            interval_text(figure.difference, "+.3f") if figure.difference else "–",
            p_text(figure.corrected) or "–",
        ]
        row += [p_text(figure.check_corrected) or "–"] if checked else []
        row.append(_or_dash(figure.detectable, ".3f"))
        row += [f"{figures[other][name].interval.value:.3f}" for other in others]
        rows.append([*row, findings.minutes(name) or "–"])
    return "\n".join(_line(cells) for cells in [columns, ["---"] * len(columns), *rows])


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def check_title(metric: str, figures: dict[str, Figure]) -> list[str]:
    """What the second p value of a table is called; none where no row has one."""
    if all(figure.check is None for figure in figures.values()):
        return []
    return ["p, DeLong" if metric == "auroc" else "p, McNemar"]


def as_markdown(shown: Sequence[Section]) -> list[str]:
    """The tables of what is shown."""
    parts = []
    for one in shown:
        if one.columns:
            lines = [one.columns, ["---"] * len(one.columns), *one.rows]
            parts += [
                f"**{one.title}**",
                "\n".join("| " + " | ".join(line) + " |" for line in lines),
            ]
            parts += [one.caption] if one.caption else []
    return parts

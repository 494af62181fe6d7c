"""The report of a run: its decision, tasks, corpus, pretraining and drift on one page."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from arl.corpus.checks.result import ValidationResult
from arl.corpus.manifest import read_manifest, read_quarantine
from arl.evaluation.decision import Decision
from arl.evaluation.metrics import TITLES, auroc
from arl.evaluation.predictions import labels, read_predictions, scores
from arl.evaluation.results import Metrics
from arl.evaluation.summary import calibration_pairs
from arl.monitoring.drift_result import DriftResult
from arl.reports import charts, formatting, gate, html, pictures, tables
from arl.reports.chart_data import calibration_bins, roc_band, roc_curve_of
from arl.reports.charts import Chart, Confusion
from arl.reports.elements import Badge, Bars, IntervalCell, Link, Table
from arl.reports.stamp import RunStamp

_MAX_SAMPLES = 36
_PAGES = {
    "Report": "index.html",
    "Gate": "decision/index.html",
    "Corpus validation": "validation/index.html",
    "Drift": "drift/index.html",
}
# names in the history of a pretraining, in the order of the paper's objective
TERMS = {
    "loss": "loss",
    "mim": "L_MIM (eq. 3)",
    "adv": "L_adv (eq. 4)",
    "sd": "L_SD (eq. 5)",
    "lambda": "λ (eq. 6)",
    "generator": "λ L_adv",
    "d": "discriminator loss",
    "d_accuracy": "discriminator accuracy",
    "teacher_entropy": "teacher entropy, nat",
    "feature_std": "feature standard deviation",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "rankme": "RankMe",
    "knn": "k-NN accuracy",
}


@dataclass(frozen=True)
class RunResults:
    """What the stages of a run wrote."""

    experiment: str
    seed: int
    tasks: Sequence[str]
    decision: Decision
    version: str | None  # of the release; None: nothing was released
    evaluations: Sequence[tuple[Metrics, Path]]  # metrics and folder of each
    validation: ValidationResult
    history: Sequence[Mapping[str, float]]  # of the pretraining, one entry per step
    features: Sequence[Mapping[str, float]]  # their quality, every some steps
    drift: DriftResult

    @property
    def summary(self) -> str:
        """What became of the new models."""
        champion = self.decision.champion
        if self.decision.verdict == "promote":
            before = f"release {champion}" if champion else "no earlier release"
            return (
                f"The new models became release {self.version}. They were compared with {before}."
            )
        stays = f"Release {champion} stays in use" if champion else "Nothing was released"
        reason = {
            "reject": "a task or a slice of it is not good enough",
            "inconclusive": "the test patients are too few",
        }[self.decision.verdict]
        return f"{stays}: {reason}."

    @property
    def next_step(self) -> str:
        """What a user can do now."""
        if not self.version:
            return gate.next_step(self.decision)
        return (
            f"`arl predict FILE` asks release {self.version} about images, `arl watch` monitors"
            " new ones."
        )

    @property
    def task_table(self) -> Table:
        """The main metric of each task."""
        measured = [metrics for metrics, _ in self.evaluations]
        rows = [
            [
                metrics.task,
                Badge("synthetic") if metrics.synthetic else "real",
                TITLES[metrics.main_metric],
                IntervalCell(metrics.main),
                metrics.detectable_difference,
                metrics.images,
                metrics.patients,
            ]
            for metrics in measured
        ]
        level = formatting.percent(measured[0].confidence) if measured else ""
        caption = (
            f"Main metric on the test images. Intervals of this section: {level} over patients. The"
            " gate's intervals above have the gate's level."
        )
        columns = ["task", "data", "metric", "value", "detectable", "images", "patients"]
        return Table(columns, rows, caption)


@dataclass(frozen=True)
class TaskSection:
    """What the page says about one task."""

    metrics: Metrics
    predictions: pd.DataFrame

    @property
    def facts(self) -> dict[str, IntervalCell]:
        """All metrics, those with a title first."""
        metrics = self.metrics.metrics
        order = [name for name in TITLES if name in metrics]
        order += sorted(metrics.keys() - set(order))
        return {TITLES.get(name, name): IntervalCell(metrics[name]) for name in order}

    @property
    def check(self) -> str:
        """The second interval of the AUROC, named so that it is not taken for the first."""
        if self.metrics.delong is None:
            return ""
        return (
            "The interval of the AUROC is the BCa bootstrap's. As a check, DeLong's formula over"
            f" patients gives {formatting.limits(self.metrics.delong)}."
        )

    @property
    def charts(self) -> list[Chart]:
        """Dice of each image, or the ROC curve of two classes and the calibration."""
        metrics, table = self.metrics, self.predictions
        suffix = f"{metrics.task}{' (synthetic)' if metrics.synthetic else ''}."
        if metrics.main_metric == "dice":
            title = f"Dice of each image, {suffix}"
            dice = table["dice"].to_numpy(np.float64)
            return [charts.fractions_histogram(dice, title=title, x_label="Dice")]
        # Only a binary task has a threshold, and only then is there one ROC curve.
        drawn = [] if metrics.threshold is None else [self.roc(metrics.threshold, suffix)]
        # Calibrated probabilities, since these are what a user sees.
        outcomes, probabilities = calibration_pairs(labels(table), scores(table))
        bins = calibration_bins(outcomes, probabilities, table["patient"])
        return [*drawn, charts.calibration(bins, title=f"Calibration, {suffix}")]

    def roc(self, threshold: float, suffix: str) -> Chart:
        """The ROC curve with the operating point."""
        truth, positive = labels(self.predictions), scores(self.predictions)[:, 1]
        called = positive >= threshold
        point = (float(called[truth == 0].mean()), float(called[truth == 1].mean()), threshold)
        band = roc_band(truth, positive, self.predictions["patient"], resamples=500, seed=0)
        return charts.roc(
            [roc_curve_of("AUROC", truth, positive, auroc(truth, positive))],
            title=f"ROC curve, {suffix}",
            band=band,
            operating_point=point,
            caption=f"Positive class: {self.metrics.classes[1]}.",
        )

    @property
    def confusion(self) -> Confusion | None:
        """The confusion matrix of a classification."""
        matrix = self.metrics.confusion
        if matrix is None:
            return None
        caption = "Rows: truth. Columns: class called. Percent of the row."
        return Confusion("Confusion matrix.", self.metrics.classes, matrix, caption)

    @property
    def slices(self) -> Table | None:
        """The main metric by site, probe and device; one origin alone repeats the whole."""
        rows = [
            [
                origin,
                name,
                IntervalCell(part.estimate) if part.estimate else None,
                part.images,
                part.patients,
                part.note,
            ]
            for origin, parts in self.metrics.slices.items()
            if len(parts) > 1
            for name, part in parts.items()
        ]
        columns = ["by", "name", TITLES[self.metrics.main_metric], "images", "patients", "note"]
        return Table(columns, rows, "By site, probe and device.") if rows else None


def write_page(run: RunResults, corpus: Path, stamp: RunStamp, folder: Path) -> None:
    """Write <folder>/index.html."""
    rows, refused = read_manifest(corpus), read_quarantine(corpus)
    _, validation_summary, _ = tables.validation_verdict(run.validation.rules)
    subtitle = f"Experiment {run.experiment}, seed {run.seed}."
    # The first image of each anatomy in each source, then the second ones.
    ordered = rows.sort_values("id")
    turn = ordered.groupby(["source", "anatomy"]).cumcount()
    ranked = ordered.assign(turn=turn).sort_values(["turn", "anatomy", "source"])
    samples = ranked.head(_MAX_SAMPLES).sort_values(["anatomy", "source", "turn"])
    last = run.history[-1]
    html.write(
        folder / "index.html",
        "run.html.j2",
        html.Head("Report", subtitle, stamp, page_links("Report", folder)),
        run=run,
        facts={
            "images": len(rows),
            "synthetic": formatting.percent(float(rows["synthetic"].mean())),
            "known patients": int(rows["patient"].nunique()),
            "sites": int(rows["site"].nunique()),
            "tasks": len(run.tasks),
            "release": run.version or "none",
        },
        decision_table=gate.task_table(run.decision),
        tasks=[
            TaskSection(metrics, read_predictions(evaluation / "predictions.parquet"))
            for metrics, evaluation in run.evaluations
        ],
        validation_summary=validation_summary,
        anatomies=anatomy_bars(rows),
        sources=tables.image_counts(rows, ["source", "site", "probe"]),
        samples=pictures.contact_sheet(
            corpus,
            samples,
            lambda row: [pictures.describe(row, "anatomy", "label"), str(row["source"])],
        ),
        quarantine=tables.quarantine(refused),
        last_step={title: last[name] for name, title in TERMS.items() if name in last},
        curves=curves(run.history),
        features=curves(run.features),
        drift_badge=Badge(run.drift.decision),
    )


def copy_pages(sources: Mapping[str, Path], target: Path) -> None:
    """Copy the pages of stages into the report's folder and link them with each other.

    Args:
        sources: name of the folder in the report -> folder of the stage.
        target: folder of the report, which has its own page already.
    """
    for name, source in sources.items():
        (target / name).mkdir(exist_ok=True)
        # Pages only: the tables of a stage stay in its folder.
        for file in sorted(source.glob("*.html")):
            shutil.copyfile(file, target / name / file.name)
    # after copying, so that every page links to all that are there
    for title, page in _PAGES.items():
        file = target / page
        if file.is_file():
            html.link_pages(file, page_links(title, target))


def page_links(current: str, folder: Path) -> list[Link]:
    """Links from one page of a report to the others that exist; the current one has no address."""
    up = "" if current == "Report" else "../"
    return [
        Link("" if title == current else f"{up}{page}", title)
        for title, page in _PAGES.items()
        if title == current or (folder / page).is_file() or title == "Report"
    ]


def anatomy_bars(rows: pd.DataFrame) -> Bars:
    """Images by anatomy, the most frequent first; real and synthetic ones apart if both exist."""
    counts = pd.crosstab(rows["anatomy"], rows["synthetic"]).reindex(
        columns=[False, True], fill_value=0
    )
    ordered = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    values = {
        str(name): [int(count) for count in row]
        for name, row in zip(ordered.index, ordered.to_numpy(), strict=True)
    }
    return Bars(values, ["real", "synthetic"])


def curves(history: Sequence[Mapping[str, float]]) -> list[charts.Chart]:
    """One chart per quantity by step; a quantity that starts late begins at its first step."""
    seen = {name for record in history for name in record} - {"step"}
    # New terms of an objective appear without a change of this page, after the known ones.
    names = [name for name in TERMS if name in seen] + sorted(seen - TERMS.keys())
    return [
        charts.curve(
            [(record["step"], record[name]) for record in history if name in record],
            title=TERMS.get(name, name),
        )
        for name in names
    ]

"""The report of a run: its decision, tasks, corpus, pretraining and drift on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from arl.corpus.manifest import read_manifest, read_quarantine
from arl.corpus.pixels import encode_png, fit, letterbox
from arl.corpus.record import Pixels
from arl.corpus.shard_reader import read_images
from arl.evaluation.decision import Decision
from arl.evaluation.metrics import TITLES
from arl.evaluation.predictions import labels, read_predictions, scores
from arl.evaluation.pretraining import PretrainingMetrics
from arl.evaluation.results import Estimate, Interval, Metrics
from arl.evaluation.summary import calibration_pairs
from arl.reports import html, monitoring_plots
from arl.reports import plots as results
from arl.reports.counts import counts
from arl.storage.metadata import Receipt

_THUMBNAIL = 176  # long side, pixels

_THUMBNAILS = 36


_SECTIONS = ["Decision", "Tasks", "Corpus", "Pretraining", "Drift"]


@dataclass(frozen=True)
class RunResults:
    """What the stages of a run wrote."""

    experiment: str
    seed: int
    tasks: list[str]
    decided: Decision
    receipt: Receipt
    measured: Sequence[tuple[Metrics, Path]]  # metrics and folder of each evaluation
    validated: dict[str, Any]
    pretraining: PretrainingMetrics
    drift: dict[str, Any]
    has_evidently: bool


def write_page(run: RunResults, corpus: Path, folder: Path) -> None:
    """Write <folder>/index.html."""
    body = (
        _head(run, corpus)
        + html.section("Decision", _decision(run))
        + html.section("Tasks", _tasks(run.measured))
        + html.section("Corpus", _corpus(corpus, run.validated))
        + html.section("Pretraining", _pretraining(run.pretraining))
        + html.section("Drift", _drift(run.drift, run.has_evidently))
    )
    page = html.page("Report", body, subtitle=f"Experiment {run.experiment}, seed {run.seed}.")
    (folder / "index.html").write_text(page, encoding="utf-8")


def _head(run: RunResults, corpus: Path) -> Markup:
    decided, receipt = run.decided, run.receipt
    rows = read_manifest(corpus)
    notes = (html.note(note, "warn") for note in decided.notes)
    return (
        html.verdict(decided.verdict, _summary(decided, receipt))
        + Markup("").join(notes)
        + html.facts(
            {
                "images": len(rows),
                "of them synthetic": f"{rows['synthetic'].mean():.0%}",
                "known patients": rows["patient"].nunique(),
                "sites": rows["site"].nunique(),
                "tasks": len(run.tasks),
                "release": receipt.version or "none",
            }
        )
        + html.contents(_SECTIONS)
    )


def _summary(decided: Decision, receipt: Receipt) -> str:
    before = f"release {decided.champion}" if decided.champion else "no release before it"
    if decided.verdict == "promote":
        return f"The new models became release {receipt.version}; compared with {before}."
    stays = (
        f"Release {decided.champion} stays in use" if decided.champion else "Nothing was released"
    )
    because = {
        "reject": "a task or a part of it is not good enough",
        "inconclusive": "there are too few patients",
    }
    return f"{stays}: {because[decided.verdict]}."


def _decision(run: RunResults) -> Markup:
    decided = run.decided
    columns = [
        "task",
        "verdict",
        "metric",
        "new",
        "in use",
        "difference",
        "margin",
        "floor",
        "images",
        "patients",
    ]
    rows = [
        [
            name,
            html.badge(task.verdict),
            TITLES[task.main_metric],
            _interval(task.challenger),
            _interval(task.champion),
            _interval(task.difference, sign="+"),
            task.margin,
            task.floor,
            task.images,
            task.patients,
        ]
        for name in run.tasks
        if (task := decided.tasks.get(name))
    ]
    link = html.link("decision/index.html", "The gate in full, with sites, probes and devices")
    return (
        html.bullets(decided.reasons)
        + html.table(columns, rows)
        + Markup("<p>{}</p>\n").format(link)
    )


def _interval(entry: Estimate | Interval | None, sign: str = "") -> str | None:
    if entry is None:
        return None
    value = f"{entry.value:{sign}.3f}"
    return (
        value if entry.low is None else f"{value} ({entry.low:{sign}.3f} to {entry.high:{sign}.3f})"
    )


def _tasks(found: Sequence[tuple[Metrics, Path]]) -> Markup:
    rows = [
        [
            about.task,
            html.badge("synthetic") if about.synthetic else "real",
            about.images,
            about.patients,
            TITLES[about.main_metric],
            _interval(about.main),
            _interval(about.delong),
            about.detectable_difference,
        ]
        for about, _ in found
    ]
    caption = (
        "Main metric on the test images, with its interval over patients (BCa bootstrap; of AUROC also DeLong's, by "
        "Obuchowski). Detectable: the smallest true distance from a fixed value that so many patients show with a "
        "power of 80 %. Synthetic rows say nothing of patients."
    )
    columns = ["task", "data", "images", "patients", "metric", "value", "DeLong", "detectable"]
    table = html.table(columns, rows, caption)
    return table + Markup("").join(
        html.section(about.task, _task(about, at), 3) for about, at in found
    )


def _task(about: Metrics, folder: Path) -> Markup:
    values = {
        TITLES.get(name, name): _fact(entry)
        for name, entry in sorted(about.metrics.items(), key=_order)
    }
    return html.facts(values) + html.gallery(
        _task_figures(about, read_predictions(folder / "predictions.parquet"))
    )


def _fact(entry: Estimate) -> Markup:
    value = Markup("{:.3f}").format(entry.value)
    if entry.low is None:
        return value
    return value + Markup("<small>{:.3f} to {:.3f}</small>").format(entry.low, entry.high)


def _order(entry: tuple[str, Estimate]) -> tuple[int, str]:
    """Metrics as TITLES lists them, others after."""
    names = list(TITLES)
    return (names.index(entry[0]) if entry[0] in names else len(names), entry[0])


def _task_figures(about: Metrics, table: pd.DataFrame) -> list[Markup]:
    title = f"{about.task}{' (synthetic)' if about.synthetic else ''}"
    if about.main_metric == "dice":
        return [_overlap(table, title)]
    drawings = [] if about.threshold is None else [_roc(table, about, title)]
    matrix = results.confusion(np.array(about.confusion), about.classes, title=title)
    reliability = results.calibration(*calibration_pairs(labels(table), scores(table)), title=title)
    return [
        *drawings,
        html.figure(matrix, "Confusion matrix of the test images.", f"Confusion matrix of {title}"),
        html.figure(
            reliability, "Calibration.", f"Predicted probability against observed share for {title}"
        ),
    ]


def _roc(table: pd.DataFrame, about: Metrics, title: str) -> Markup:
    curve = results.roc(
        labels(table),
        scores(table)[:, 1],
        table["patient"],
        title=title,
        threshold=about.threshold,
    )
    return html.figure(
        curve, f"ROC curve, positive class {about.classes[1]}.", f"ROC curve of {title}"
    )


def _overlap(table: pd.DataFrame, title: str) -> Markup:
    image = html.png(monitoring_plots.histogram(table["dice"], "Dice", title))
    return html.figure(image, "Dice of each test image.", f"Histogram of Dice of {title}")


def _corpus(corpus: Path, validated: dict[str, Any]) -> Markup:
    rows, quarantine = read_manifest(corpus), read_quarantine(corpus)
    kind = np.where(rows["synthetic"], "synthetic", "real")
    anatomies = pd.crosstab(rows["anatomy"], kind).reindex(
        columns=["real", "synthetic"], fill_value=0
    )
    bars = html.png(monitoring_plots.stacked_bars(anatomies))
    link = html.link("validation/index.html", "All rules and batches")
    return (
        _validated(validated)
        + Markup("<p>{}</p>\n").format(link)
        + html.figure(
            bars, "Images by anatomy.", "Bars of real and synthetic images by anatomy", width=760
        )
        + counts(rows, ["source", "site", "probe"])
        + html.section("Samples", _samples(corpus, rows), 3)
        + html.section("Quarantine", _quarantine(quarantine), 3)
    )


def _validated(validated: dict[str, Any]) -> Markup:
    failed = validated["failed"]
    if not validated["passed"]:
        return html.note(f"The corpus breaks {failed['critical']} critical rules.", "bad")
    warnings = failed["warning"]
    rest = (
        f"{warnings} {'gives' if warnings == 1 else 'give'} a warning"
        if warnings
        else "none gives a warning"
    )
    return html.paragraph(
        f"The corpus keeps to all critical rules of {len(validated['rules'])} rules; {rest}."
    )


def _samples(corpus: Path, rows: pd.DataFrame) -> Markup:
    """The first image of each anatomy in each source, then second ones, as far as the sheet goes."""
    ordered = rows.sort_values("id")
    turn = ordered.groupby(["source", "anatomy"]).cumcount()
    chosen = ordered.assign(turn=turn).sort_values(["turn", "anatomy", "source"]).head(_THUMBNAILS)
    chosen = chosen.sort_values(["anatomy", "source", "turn"])
    images = read_images(corpus, chosen)
    return html.sheet(
        _thumbnail(row, image) for (_, row), image in zip(chosen.iterrows(), images, strict=True)
    )


def _thumbnail(row: "pd.Series[Any]", image: Pixels) -> Markup:
    height, width = fit(image.shape[0], image.shape[1], _THUMBNAIL)
    small = letterbox(image, _THUMBNAIL)[0][:height, :width]
    words = ", ".join(str(row[name]) for name in ("anatomy", "label") if pd.notna(row[name]))
    mark = Markup(" ") + html.badge("synthetic") if row["synthetic"] else Markup("")
    caption = Markup("{}<br>{}{}").format(words, row["source"], mark)
    kind = "Synthetic image" if row["synthetic"] else "Ultrasound image"
    return html.figure(encode_png(np.ascontiguousarray(small)), caption, f"{kind}: {words}")


def _quarantine(quarantine: pd.DataFrame) -> Markup:
    if quarantine.empty:
        return html.paragraph("Every input was accepted.")
    counts = quarantine.groupby(["source", "reason"], sort=True).size().reset_index(name="inputs")
    return html.table(
        ["source", "reason", "inputs"], counts.to_numpy().tolist(), "Refused inputs and why."
    )


def _pretraining(metrics: PretrainingMetrics) -> Markup:
    history, final = metrics.history, metrics.final
    drawing = html.png(monitoring_plots.curves(history))
    last = {title: final[name] for name, title in monitoring_plots.TERMS.items() if name in final}
    return (
        html.paragraph(f"{len(history):,} steps; the values of the last one:")
        + html.facts(last)
        + html.figure(
            drawing, "The terms of the objective by step.", "Curves of the pretraining losses"
        )
    )


def _drift(found: dict[str, Any], has_evidently: bool) -> Markup:
    links = [html.link("drift/index.html", "The tests in full")]
    if has_evidently:
        links.append(html.link("drift/evidently.html", "Image statistics by Evidently"))
    return (
        Markup("<p>{} {}</p>\n").format(html.badge(found["decision"]), ", ".join(found["batches"]))
        + html.bullets(found["reasons"])
        + Markup("<p>{}</p>\n").format(Markup(" · ").join(links))
    )

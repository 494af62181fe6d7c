"""The pages of experiments: tables in the manner of the paper, and figures of an encoder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arl.evaluation.comparison import Figure, one_matrix
from arl.evaluation.metrics import TITLES
from arl.evaluation.panels import Section
from arl.evaluation.predictions import labels, scores
from arl.evaluation.results import Interval
from arl.experiments.results import PROTOCOL_TITLES, ExperimentRun, StageTime
from arl.reports import charts, formatting, html, pictures
from arl.reports.chart_data import roc_band, roc_curve_of
from arl.reports.charts import Chart
from arl.reports.elements import Bars, IntervalCell, Picture, Table
from arl.reports.stamp import RunStamp

_TEST_SETS = range(135, 161)  # images that the paper's breast test set may have had
_MATRIX = ("accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class PageSection:
    """A section as the template draws it."""

    title: str
    anchor: str
    remark: str = ""
    bars: Bars | None = None
    pictures: Sequence[Sequence[tuple[Picture, str]]] = ()
    pictures_caption: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class PageExperiment:
    """An experiment as the template draws it."""

    title: str
    note: str = ""
    sections: Sequence[PageSection] = field(default_factory=list)
    command: str = ""


def write_page(run: ExperimentRun, stamp: RunStamp, folder: Path) -> None:
    """Write <folder>/index.html: one experiment."""
    _write([run], run.experiment.title, stamp, folder)


def write_report(runs: Sequence[ExperimentRun], stamp: RunStamp, folder: Path) -> None:
    """Write <folder>/index.html: several experiments in the order of their titles' numbers."""
    # Table 10 after Table 9.
    ordered = sorted(
        runs, key=lambda one: [part.zfill(3) for part in re.split(r"(\d+)", one.experiment.title)]
    )
    _write(ordered, "The paper's tables and figures", stamp, folder)


def write_figures(
    sections: Sequence[Section], synthetic: float, subtitle: str, stamp: RunStamp, folder: Path
) -> None:
    """Write <folder>/index.html: figures of an encoder; `synthetic` is a fraction of images."""
    warning = (
        f"{formatting.percent(synthetic)} of the images are synthetic. These figures say nothing"
        " about patients."
    )
    title = "What the encoder sees"
    page = PageExperiment(title, sections=[_figure_section(one, "") for one in sections])
    html.write(
        folder / "index.html",
        "experiment.html.j2",
        html.Head(title, subtitle, stamp),
        warning=warning if synthetic else "",
        experiments=[page],
    )


def _write(runs: Sequence[ExperimentRun], title: str, stamp: RunStamp, folder: Path) -> None:
    first = runs[0]
    # All experiments of a page are run with the same scale and changes.
    choices = [*first.experiment.scales[first.scale].choices, *first.changes]
    warning = "The corpus holds synthetic images. No number on this page is clinical."
    prefixes = [
        f"{one.experiment.title.partition(',')[0]}: " if len(runs) > 1 else "" for one in runs
    ]
    html.write(
        folder / "index.html",
        "experiment.html.j2",
        html.Head(title, f"Scale {first.scale}: {' '.join(choices)}", stamp),
        warning=warning if first.synthetic else "",
        experiments=[_experiment(one, prefix) for one, prefix in zip(runs, prefixes, strict=True)],
    )


def _experiment(run: ExperimentRun, prefix: str) -> PageExperiment:
    """`prefix` separates the titles of an experiment from those of others on the same page."""
    sections = [_task_section(run, *key, prefix) for key in run.results]
    sections += [_figure_section(one, prefix) for one in run.sections]
    absent = [[run.label(name), reason] for name, reason in run.absent.items()]
    tables = {}
    if absent:
        tables["Rows that were not run"] = Table(["row", "reason"], absent)
    if len(run.times):
        tables["Time"] = _times(run.times)
    sections += [
        PageSection(prefix + title, html.anchor(prefix + title), tables=[table])
        for title, table in tables.items()
    ]
    return PageExperiment(run.experiment.title, run.experiment.note, sections, run.command)


def _figure_section(section: Section, prefix: str) -> PageSection:
    drawn = [charts.scatter(one.points, one.groups, title=one.title) for one in section.scatters]
    table = Table(section.columns, section.rows, section.caption) if section.columns else None
    return PageSection(
        prefix + section.title,
        html.anchor(prefix + section.title),
        section.remark,
        Bars({name: [count] for name, count in section.counts}) if section.counts else None,
        pictures.panels(section.grid.rows) if section.grid else (),
        section.grid.caption if section.grid else "",
        drawn,
        [table] if table else [],
    )


# --- a task ----------------------------------------------------------------------------------


def _task_section(run: ExperimentRun, protocol: str, task: str, prefix: str) -> PageSection:
    figures = run.results[protocol, task]
    main = run.main_metric(task)
    title = f"{prefix}{task}, {PROTOCOL_TITLES[protocol]}"
    drawn = [_curve(run, main, figures[main]), _roc(run, protocol, task)]
    tables = [
        _main_table(run, protocol, task, figures),
        _comparisons(run, protocol, main, figures[main]),
        consistency(
            {one.label: one.claimed.get(protocol, {}).get(task, {}) for one in run.experiment.rows}
        ),
    ]
    return PageSection(
        title,
        html.anchor(title),
        charts=[chart for chart in drawn if chart],
        tables=[table for table in tables if table],
    )


def _main_table(
    run: ExperimentRun, protocol: str, task: str, figures: dict[str, dict[str, Figure]]
) -> Table:
    names = [row.name for row in run.experiment.rows]
    claimed = {
        metric: any(run.claimed(protocol, task, metric, name) is not None for name in names)
        for metric in figures
    }
    columns = ["row"]
    for metric in figures:
        columns += [TITLES[metric], *(["claimed"] if claimed[metric] else [])]
    rows: list[list[object]] = []
    for name in figures[run.main_metric(task)]:
        cells: list[object] = [run.label(name)]
        for metric in figures:
            cells.append(_cell(figures[metric][name]))
            if claimed[metric]:
                cells.append(run.claimed(protocol, task, metric, name))
        rows.append([*cells, run.minutes(name)])
    caption = f"{run.explanation(protocol, task)} CPU minutes: of a row's trainings for one seed."
    return Table([*columns, "CPU minutes"], rows, caption)


def _cell(figure: Figure) -> IntervalCell:
    remarks = [] if figure.spread is None else [f"± {figure.spread:.3f} over seeds"]
    if len(figure.each) > 1:
        remarks.append("seeds " + " ".join(f"{value:.3f}" for value in figure.each))
    return IntervalCell(figure.interval, remarks=remarks)


def _curve(run: ExperimentRun, metric: str, figures: dict[str, Figure]) -> Chart | None:
    """The metric against the fraction of the data, if the rows differ in it."""
    series: dict[str, list[tuple[float, Interval]]] = {}
    for row in run.experiment.rows:
        if row.fraction is not None and row.name in figures:
            points = series.setdefault(row.series or row.label, [])
            points.append((row.fraction, figures[row.name].interval))
    if not series:
        return None
    # Rows stand in the order of the table, a curve needs that of its axis.
    ordered = {name: sorted(points, key=lambda one: one[0]) for name, points in series.items()}
    title = f"{TITLES[metric]} by fraction of the data, with intervals over patients."
    return charts.efficiency(ordered, title=title, metric=TITLES[metric])


def _roc(run: ExperimentRun, protocol: str, task: str) -> Chart | None:
    """Curves of all rows by the first seed, with the band of the reference row."""
    methods = {name: replicates[0].table for name, replicates in run.cells[protocol, task].items()}
    reference = run.experiment.reference
    if (
        reference not in methods
        or run.main_metric(task) != "auroc"
        or scores(methods[reference]).shape[1] != 2
    ):
        return None
    table = methods.pop(reference)
    rows = {row.name for row in run.experiment.rows}
    curves = [roc_curve_of(run.label(reference), labels(table), scores(table)[:, 1])]
    curves += [
        roc_curve_of(run.label(name), labels(other), scores(other)[:, 1])
        for name, other in methods.items()
        if name in rows
    ]
    # 500 resamples are enough for a band; a p value needs more.
    band = roc_band(labels(table), scores(table)[:, 1], table["patient"], resamples=500, seed=0)
    seed = " First seed." if run.replicates > 1 else ""
    caption = f"AUROC in the legend. The band is that of {run.label(reference)}.{seed}"
    return charts.roc(curves, title=f"ROC curves of {task}.", band=band, caption=caption)


def _comparisons(
    run: ExperimentRun, protocol: str, main: str, figures: dict[str, Figure]
) -> Table | None:
    check = check_title(main, figures)
    rows = [
        [
            run.label(name),
            IntervalCell(figure.difference, signed=True),
            formatting.p_value(figure.corrected),
            *([formatting.p_value(figure.check_corrected)] if check else []),
            figure.detectable,
        ]
        for name, figure in figures.items()
        if figure.difference is not None
    ]
    columns = ["row", "difference", "p", *check, "detectable"]
    return Table(columns, rows, run.compared(protocol)) if rows else None


def consistency(claims: Mapping[str, Mapping[str, float]]) -> Table | None:
    """Whether claimed accuracy, sensitivity and specificity can be of one confusion matrix.

    Args:
        claims: label of a row -> metric -> value as printed; rows without all three are left out.
    """
    printed = {
        label: [claim[name] for name in _MATRIX]
        for label, claim in claims.items()
        if set(_MATRIX) <= claim.keys()
    }
    if not printed:
        return None
    # A number keeps no trailing zeros, so the longest value of a column gives its decimals.
    digits = [
        max(len(str(value).partition(".")[2]) for value in column)
        for column in zip(*printed.values(), strict=True)
    ]
    rows = []
    for label, values in printed.items():
        accuracy, sensitivity, specificity = values
        matrix = one_matrix(
            accuracy, sensitivity, specificity, _TEST_SETS, (digits[0], digits[1], digits[2])
        )
        text = f"{matrix[0]} of {matrix[1]} and {matrix[2]} of {matrix[3]}" if matrix else "none"
        rows.append([label, *values, text])
    caption = (
        "Whether the claimed figures can come from one confusion matrix of 135 to 160 test images."
    )
    return Table(["row", *_MATRIX, "matrix"], rows, caption)


def _times(times: Sequence[StageTime]) -> Table:
    rows = []
    for stage in sorted({time.stage for time in times}):
        # The sum over all rows: a stage that tables share is counted once.
        of_stage = [time for time in times if time.stage == stage]
        seconds, cpu = sum(time.seconds for time in of_stage), sum(time.cpu for time in of_stage)
        rows.append([stage, len(of_stage), seconds, cpu])
    caption = "Wall-clock and CPU seconds, on the machine that ran each stage."
    if any(time.resumed for time in times):
        caption += " Of an interrupted and resumed stage only the last part counts."
    return Table(["stage", "runs", "seconds", "CPU seconds"], rows, caption)


def check_title(metric: str, figures: dict[str, Figure]) -> list[str]:
    """The title of the column of second p values; empty where no row has one."""
    if all(figure.check is None for figure in figures.values()):
        return []
    return ["p, DeLong" if metric == "auroc" else "p, McNemar"]

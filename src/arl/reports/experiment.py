"""The page of an experiment in the manner of the paper's tables."""

import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from arl.evaluation.comparison import Figure, one_matrix
from arl.evaluation.metrics import TITLES
from arl.evaluation.panels import Section
from arl.evaluation.predictions import labels, scores
from arl.evaluation.results import Interval
from arl.experiments.results import PROTOCOL_TITLES, ExperimentRun, StageTime
from arl.reports import html, plots
from arl.reports.plots import efficiency, roc

_TEST_SETS = range(135, 161)  # images that the paper's breast test set may have had


_MATRIX = ("accuracy", "sensitivity", "specificity")


def write_page(run: ExperimentRun, folder: Path) -> None:
    """Write <folder>/index.html."""
    page = html.page(run.experiment.title, _warning(run) + _body(run), subtitle=_scale(run))
    (folder / "index.html").write_text(page, encoding="utf-8")


def write_report(runs: Sequence[ExperimentRun], folder: Path) -> None:
    """Write <folder>/index.html: several experiments in the order of their titles' numbers."""
    ordered = sorted(runs, key=lambda one: _natural(one.experiment.title))
    body = _warning(ordered[0]) + html.contents(one.experiment.title for one in ordered)
    for one in ordered:
        body += html.section(
            one.experiment.title, _body(one, f"{one.experiment.title.partition(',')[0]}: ", level=3)
        )
    page = html.page("The paper's tables and figures", body, subtitle=_scale(ordered[0]))
    (folder / "index.html").write_text(page, encoding="utf-8")


def interval_text(interval: Interval, form: str = ".3f") -> str:
    """Value and limits, e.g. "0.812 (0.771 to 0.849)"."""
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def p_text(value: float | None) -> str | None:
    """A p value with three decimals."""
    return None if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def check_title(metric: str, figures: dict[str, Figure]) -> list[str]:
    """The title of the column of second p values; empty where no row has one."""
    if all(figure.check is None for figure in figures.values()):
        return []
    return ["p, DeLong" if metric == "auroc" else "p, McNemar"]


def _natural(title: str) -> list[str]:
    """Table 10 after Table 9."""
    return [part.zfill(3) for part in re.split(r"(\d+)", title)]


def _warning(run: ExperimentRun) -> Markup:
    text = "The corpus holds synthetic images: no figure on this page is clinical."
    return html.note(text, "warn") if run.synthetic else Markup("")


def _scale(run: ExperimentRun) -> str:
    choices = " ".join([*run.experiment.scales[run.scale].choices, *run.changes])
    return f"Scale {run.scale}: {choices}"


def _body(run: ExperimentRun, prefix: str = "", level: int = 2) -> Markup:
    """The sections of an experiment; the prefix tells their titles from those of others on the same page."""
    sections = {
        f"{task}, {PROTOCOL_TITLES[protocol]}": _section(run, protocol, task)
        for protocol, task in run.results
    } | {one.title: section_body(one) for one in run.sections}
    absent = [[run.label(name), reason] for name, reason in run.absent.items()]
    if absent:
        sections["Rows that were not run"] = html.table(["row", "why"], absent)
    if len(run.times):
        sections["Time"] = _times(run.times)
    body = html.note(run.experiment.note) if run.experiment.note else Markup("")
    for title, content in sections.items():
        body += html.section(f"{prefix}{title}", content, level)
    return body + Markup("<p>{} {}</p>\n").format("Made by", html.code(run.command))


def _section(run: ExperimentRun, protocol: str, task: str) -> Markup:
    figures = run.results[protocol, task]
    main = run.main_metric(task)
    claims = {metric: any(_claims(run, protocol, task, metric)) for metric in figures}
    columns = ["row"]
    for metric in figures:
        columns += [TITLES[metric], *(["claimed"] if claims[metric] else [])]
    rows: list[list[object]] = []
    for name in figures[main]:
        cells: list[object] = [run.label(name)]
        for metric in figures:
            cells.append(_cell(figures[metric][name]))
            cells += [run.claimed(protocol, task, metric, name)] if claims[metric] else []
        rows.append([*cells, run.minutes(name)])
    caption = f"{run.explanation(protocol, task)} CPU minutes: of a row's trainings for one seed."
    return (
        _curve(run, main, figures[main])
        + html.table([*columns, "CPU minutes"], rows, caption)
        + _roc(run, protocol, task)
        + _comparisons(run, protocol, main, figures[main])
        + _consistency(run, protocol, task)
    )


def _claims(run: ExperimentRun, protocol: str, task: str, metric: str) -> list[bool]:
    names = [row.name for row in run.experiment.rows]
    return [run.claimed(protocol, task, metric, name) is not None for name in names]


def _cell(figure: Figure) -> Markup:
    spread = "" if figure.spread is None else f" ± {figure.spread:.3f}"
    low, high = figure.interval.low, figure.interval.high
    cell = Markup("{:.3f}{}<br><small>{:.3f} to {:.3f}</small>").format(
        figure.interval.value, spread, low, high
    )
    if len(figure.each) == 1:
        return cell
    return cell + Markup("<br><small>seeds {}</small>").format(
        " ".join(f"{value:.3f}" for value in figure.each)
    )


def _curve(run: ExperimentRun, metric: str, figures: dict[str, Figure]) -> Markup:
    """The metric against the fraction, where the rows of the experiment differ in one."""
    series: dict[str, list[tuple[float, Interval]]] = {}
    for row in run.experiment.rows:
        if row.fraction is not None and row.name in figures:
            series.setdefault(row.series or row.label, []).append(
                (row.fraction, figures[row.name].interval)
            )
    if not series:
        return Markup("")
    title = TITLES[metric]
    drawing = efficiency(
        {name: sorted(points, key=lambda at: at[0]) for name, points in series.items()},
        metric=title,
    )
    return html.figure(drawing, "With the interval over patients.", f"{title} against the fraction")


def _roc(run: ExperimentRun, protocol: str, task: str) -> Markup:
    """The curves of all rows by the first seed, with the band of the row that the others are compared with."""
    methods = {name: replicates[0].table for name, replicates in run.cells[protocol, task].items()}
    name = run.experiment.reference
    if (
        name not in methods
        or run.main_metric(task) != "auroc"
        or scores(methods[name]).shape[1] != 2
    ):
        return Markup("")
    table = methods.pop(name)
    others = [
        (run.label(other), labels(of), scores(of)[:, 1])
        for other, of in methods.items()
        if other in {row.name for row in run.experiment.rows}
    ]
    title = f"{task}, {run.label(name)}"
    drawing = roc(labels(table), scores(table)[:, 1], table["patient"], title=title, others=others)
    seed = " First seed." if run.replicates > 1 else ""
    return html.figure(
        drawing, f"The band is that of {run.label(name)}.{seed}", f"ROC curves of {task}"
    )


def _comparisons(
    run: ExperimentRun, protocol: str, main: str, figures: dict[str, Figure]
) -> Markup:
    checked = check_title(main, figures)
    rows = [
        [
            run.label(name),
            interval_text(figure.difference, "+.3f"),
            p_text(figure.corrected),
            *([p_text(figure.check_corrected)] if checked else []),
            figure.detectable,
        ]
        for name, figure in figures.items()
        if figure.difference is not None
    ]
    if not rows:
        return Markup("")
    return html.table(
        ["row", "difference", "p", *checked, "detectable"], rows, run.compared(protocol)
    )


def _consistency(run: ExperimentRun, protocol: str, task: str) -> Markup:
    """Whether the claimed accuracy, sensitivity and specificity of a row can be of one confusion matrix."""
    claims = {row.label: row.claimed.get(protocol, {}).get(task, {}) for row in run.experiment.rows}
    printed = {
        label: [claim[name] for name in _MATRIX]
        for label, claim in claims.items()
        if set(_MATRIX) <= claim.keys()
    }
    if not printed:
        return Markup("")
    decimals = {
        name: max(_places(values[at]) for values in printed.values())
        for at, name in enumerate(_MATRIX)
    }
    rows = [[label, *values, _matrix(values, decimals)] for label, values in printed.items()]
    caption = (
        "Whether the claimed figures can come from one confusion matrix of 135 to 160 test images."
    )
    return html.table(["row", *_MATRIX, "matrix"], rows, caption)


def _places(printed: float) -> int:
    """Decimals of a claim; a column is printed with as many as its longest, as zeros at the end are not kept."""
    return len(str(printed).partition(".")[2])


def _matrix(values: Sequence[float], decimals: dict[str, int]) -> str:
    accuracy, sensitivity, specificity = values
    places = (decimals["accuracy"], decimals["sensitivity"], decimals["specificity"])
    found = one_matrix(accuracy, sensitivity, specificity, _TEST_SETS, places)
    return "none" if found is None else f"{found[0]} of {found[1]} and {found[2]} of {found[3]}"


def _times(times: Sequence[StageTime]) -> Markup:
    rows = [
        [stage, len(of_stage), sum(t.seconds for t in of_stage), sum(t.cpu for t in of_stage)]
        for stage in sorted({time.stage for time in times})
        for of_stage in [[time for time in times if time.stage == stage]]
    ]
    caption = "Wall-clock and processor seconds, measured on the machine that ran the stage."
    if any(time.resumed for time in times):
        caption += " Of an interrupted and resumed stage only the last part counts."
    return html.table(["stage", "runs", "seconds", "CPU seconds"], rows, caption)


def section_body(section: Section) -> Markup:
    """The pictures, points, counts and table of a section."""
    body = html.paragraph(section.remark) if section.remark else Markup("")
    if section.counts:
        drawing = plots.bars(section.counts, title="images by anatomy")
        body += html.figure(drawing, section.caption, section.title)
    if section.grid:
        body += html.figure(plots.panels(section.grid.rows), section.grid.caption, section.title)
    if section.scatters:
        body += html.gallery(
            html.figure(
                plots.scatter(one.points, one.groups, title=one.title), one.title, one.title
            )
            for one in section.scatters
        )
    if section.columns:
        body += html.table(section.columns, section.rows, section.caption)
    return body


def write_figures(
    sections: Sequence[Section], synthetic: float, subtitle: str, folder: Path
) -> None:
    """Write <folder>/index.html, the page of `arl figures`; `synthetic` is a fraction of images."""
    text = f"{synthetic:.0%} of the images are synthetic: what is seen of them is no finding about patients."
    body = html.note(text, "warn") if synthetic else Markup("")
    body += Markup("").join(html.section(one.title, section_body(one)) for one in sections)
    page = html.page("What the encoder sees", body, subtitle=subtitle)
    (folder / "index.html").write_text(page, encoding="utf-8")

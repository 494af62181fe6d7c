"""The page of the gate's decision."""

from pathlib import Path

from markupsafe import Markup

from arl.evaluation.decision import Decision, SliceResult, TaskResult
from arl.evaluation.gate import NAMES
from arl.evaluation.results import Interval
from arl.reports import html, plots


def write_page(judged: Decision, folder: Path) -> None:
    """Write <folder>/index.html."""
    results = list(judged.tasks.values())
    body = html.verdict(judged.verdict, _summary(judged))
    for note in judged.notes:
        body += html.note(note, "warn")
    body += html.section("Reasons", html.bullets(judged.reasons))
    body += html.section("Tasks", _tasks_table(results) + _forest(results))
    slices = [(result, part) for result in results for part in result.slices]
    body += html.section("Sites, probes and devices", _slices_table(slices))
    page = html.page("Gate", body, subtitle="May the new models replace the ones in use?")
    (folder / "index.html").write_text(page, encoding="utf-8")


def _summary(judged: Decision) -> str:
    against = f"against release {judged.champion}" if judged.champion else "as a first release"
    meaning = {
        "promote": "no task is worse than its margin allows, and no site, probe or device is worse",
        "reject": "at least one task, site, probe or device is not good enough",
        "inconclusive": "nothing is shown to be worse, but there are too few patients to show the contrary",
    }
    return f"Judged {against}: {meaning[judged.verdict]}."


def _text(interval: Interval | None, form: str) -> str | None:
    if interval is None:
        return None
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def _tasks_table(tasks: list[TaskResult]) -> Markup:
    columns = [
        "task",
        "verdict",
        "metric",
        "images",
        "patients",
        "new",
        "current",
        "difference",
        "margin",
        "floor",
        "detectable",
        "power",
    ]
    rows = [
        [
            result.task,
            html.badge(result.verdict),
            NAMES[result.main_metric],
            result.images,
            result.patients,
            _text(result.challenger, ".3f"),
            _text(result.champion, ".3f"),
            _text(result.difference, "+.3f"),
            result.margin,
            result.floor,
            result.detectable,
            None if result.power is None else f"{result.power:.0%}",
        ]
        for result in tasks
    ]
    return html.table(columns, rows) + html.paragraph(
        "Intervals are over patients. Detectable: the smallest true difference that these patients show with a power "
        "of 80 %. Power: the probability that an equally good model would have been accepted."
    )


def _forest(tasks: list[TaskResult]) -> Markup:
    rows = [
        (result.task, result.difference, result.margin) for result in tasks if result.difference
    ]
    if not rows:
        return Markup("")
    text = "Difference of the main metric with its interval. Not worse: the whole line is right of the red mark."
    return html.figure(
        plots.differences(rows), text, "Difference of new and current model for each task", 720
    )


def _slices_table(slices: list[tuple[TaskResult, SliceResult]]) -> Markup:
    if not slices:
        return html.paragraph(
            "Nothing to compare: no current model, or one site, probe and device only."
        )
    columns = ["task", "by", "name", "images", "patients", "difference", "adjusted p", "result"]
    rows = [
        [
            result.task,
            part.origin,
            part.name,
            part.images,
            part.patients,
            _text(part.difference, "+.3f"),
            None if part.p_value is None else f"{part.p_value:.3f}",
            html.badge("reject") if part.worse else part.note or "not worse",
        ]
        for result, part in slices
    ]
    return html.table(
        columns, rows, "Tested for being worse at all, corrected for the number of slices (Holm)."
    )

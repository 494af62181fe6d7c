"""The page of the gate's decision."""

from pathlib import Path

from arl.evaluation.decision import Decision, TaskResult
from arl.evaluation.metrics import TITLES
from arl.reports import charts, formatting, html
from arl.reports.elements import Badge, IntervalCell, Table
from arl.reports.stamp import RunStamp

_MEANING = {
    "promote": "No task is worse than its margin allows, and no site, probe or device is worse.",
    "reject": "At least one task, site, probe or device is not good enough.",
    "inconclusive": "Nothing is shown to be worse, but the patients are too few to show the"
    " contrary.",
}
_TASK_COLUMNS = [
    "task",
    "verdict",
    "metric",
    "new",
    "current",
    "difference",
    "margin",
    "floor",
    "detectable",
    "power",
    "images",
    "patients",
]


def write_page(decision: Decision, stamp: RunStamp, folder: Path) -> None:
    """Write <folder>/index.html."""
    html.write(
        folder / "index.html",
        "gate.html.j2",
        html.Head("Gate", "May the new models replace the current ones?", stamp),
        decision=decision,
        summary=summary(decision),
        next=next_step(decision),
        tasks=task_table(decision),
        trials=trial_table(decision),
        chart=_forest(decision),
        slices=_slice_table(decision),
    )


def summary(decision: Decision) -> str:
    """What was compared, and what the verdict means."""
    against = f"release {decision.champion}" if decision.champion else "the required minimum only"
    return f"Compared with {against}. {_MEANING[decision.verdict]}"


def next_step(decision: Decision) -> str:
    """What a user can do about the verdict."""
    if decision.verdict == "promote":
        return "`arl release` publishes the models, and `arl predict` uses them."
    if decision.verdict == "inconclusive":
        # The task that needs most decides, since a release needs all tasks.
        needed = [task.patients_needed for task in decision.tasks.values() if task.patients_needed]
        many = f" About {max(needed):,} test patients would decide." if needed else ""
        return f"Add test patients, or accept a larger margin before the next comparison.{many}"
    if any(task.synthetic for task in decision.tasks.values()):
        return (
            "A short training on phantoms often ends here, and nothing is broken. Read the reasons,"
            " train longer (pretrain.max_steps, finetune.epochs), or train on real images."
        )
    return (
        "Read the reasons. They name the task, site, probe or device. The current release stays in"
        " use."
    )


def task_table(decision: Decision) -> Table:
    """One row per task."""
    rows = [
        [
            task.task,
            Badge(task.verdict),
            TITLES[task.main_metric],
            IntervalCell(task.challenger),
            IntervalCell(task.champion),
            IntervalCell(task.difference, signed=True),
            task.margin,
            task.floor,
            task.detectable,
            None if task.power is None else formatting.percent(task.power),
            task.images,
            task.patients,
        ]
        for task in decision.tasks.values()
    ]
    caption = "Intervals are over patients, at the confidence of the try (see below)."
    return Table(_TASK_COLUMNS, rows, caption)


def trial_table(decision: Decision) -> Table:
    """The count of decisions on each test set, and what it costs."""
    columns = [
        "task",
        "test set",
        "decision",
        "of",
        "confidence",
        "power at the first",
        "power at the last",
        "from the best release",
        "calibration error",
        "limit",
        "beyond chance above",
        "Brier score",
        "current Brier score",
    ]
    rows = [_trial_row(task, decision) for task in decision.tasks.values()]
    caption = (
        "Each decision on the same test patients is a try. The level falls with the tries, so that"
        " all of them together release a model that is worse by the margin with a probability of at"
        f" most {formatting.percent(decision.settings.alpha)}. Power: of an equally good model."
    )
    return Table(columns, rows, caption)


def _trial_row(task: TaskResult, decision: Decision) -> list[object]:
    trial, calibration = task.trial, task.calibration
    powers = [
        None if value is None else formatting.percent(value)
        for value in (task.power_first, task.power_last)
    ]
    return [
        task.task,
        trial.test_set,
        trial.number,
        trial.limit,
        f"{decision.settings.confidence(trial.number):.2%}",
        *powers,
        IntervalCell(task.best_difference, signed=True),
        calibration.ece if calibration else None,
        calibration.limit if calibration else None,
        calibration.chance if calibration else None,
        calibration.brier if calibration else None,
        calibration.champion_brier if calibration else None,
    ]


def _forest(decision: Decision) -> charts.Chart | None:
    rows = [
        charts.Bar(task.task, task.difference, -task.margin)
        for task in decision.tasks.values()
        if task.difference
    ]
    if not rows:
        return None
    return charts.forest(
        rows,
        title="Difference of the main metric.",
        x_label="new model − current model",
        caption="A task promotes if its whole line is to the right of the red mark.",
        limit_name="minus the margin",
    )


def _slice_table(decision: Decision) -> Table | None:
    # Slices of all tasks in one table: Holm's correction covers them together.
    rows = [row for task in decision.tasks.values() for row in _slice_rows(task)]
    columns = [
        "task",
        "by",
        "name",
        "metric",
        "images",
        "patients",
        "difference",
        "adjusted p",
        "result",
    ]
    caption = "Each slice is tested for being worse at all. Holm's correction covers all slices."
    return Table(columns, rows, caption) if rows else None


def _slice_rows(task: TaskResult) -> list[list[object]]:
    return [
        [
            task.task,
            part.origin,
            part.name,
            TITLES[part.metric],
            part.images,
            part.patients,
            IntervalCell(part.difference, signed=True),
            formatting.p_value(part.p_value),
            Badge("worse") if part.worse else part.note or "not worse",
        ]
        for part in task.slices
    ]

"""Is a challenger at least as good as the champion? A decision with its reasons in words.

For each task the difference challenger - champion of the main metric is bootstrapped over patients,
on the same images. The challenger is *not worse* when the lower limit is above -margin; *worse*
when the upper limit is below it. The lower limit also allows for failures that patients like these
need not show: too few patients promote nothing. Slices by site, probe and device are tested
one-sidedly for being worse at all, with Holm's correction over all slices of all tasks. Any
undefined or missing prediction, a main metric below the task's floor, a worse task or a worse slice
rejects; a task that is neither shown to be worse nor not to be leaves the verdict inconclusive.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from arl.evaluation.decision import Decision, Settings, SliceResult, TaskResult, Verdict
from arl.evaluation.predictions import ORIGINS, independent_units, main_statistic, measured
from arl.evaluation.results import Interval
from arl.evaluation.statistics import (
    Difference,
    Resampled,
    bootstrap_interval,
    cluster_bootstrap,
    detectable_difference,
    holm,
    paired_difference,
    patients_needed,
    power,
)

NAMES = {"auroc": "AUROC", "top1": "Top-1 accuracy", "dice": "Dice"}
_TARGET_POWER = 0.8
_SEVERITY: tuple[Verdict, ...] = ("promote", "inconclusive", "reject")


@dataclass(frozen=True)
class PairedTask:
    """The test images of a task with the predictions of both models; see `predictions` for the tables."""

    name: str
    main_metric: str  # auroc | top1 | dice
    margin: float  # largest loss that still counts as not worse
    floor: float  # lowest main metric a release may have
    images: Sequence[str]  # ids of all test images
    challenger: pd.DataFrame
    champion: pd.DataFrame | None  # None: no champion has this task

    def __post_init__(self) -> None:
        if self.margin <= 0:
            raise ValueError(
                f"task {self.name}: a margin of {self.margin:g} can never be shown; it must be positive"
            )


def decide(tasks: Sequence[PairedTask], settings: Settings) -> Decision:
    """Judge a challenger on all of its tasks.

    Raises:
        ValueError: there is no task, or one is named twice.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the gate needs one entry for each task, got {names}")
    results = _with_slices([_judge(task, settings) for task in tasks], settings)
    return Decision(
        verdict=max((result.verdict for result in results), key=_SEVERITY.index),
        reasons=[reason for result in results for reason in result.reasons],
        tasks={result.task: result for result in results},
        settings=settings,
    )


def _judge(task: PairedTask, settings: Settings) -> TaskResult:
    """The verdict on a task as a whole, and its slices with p values that are not adjusted yet."""
    result = TaskResult(
        task=task.name,
        main_metric=task.main_metric,
        verdict="reject",
        reasons=[],
        images=len(task.images),
        patients=int(task.challenger["patient"].nunique()),
        margin=task.margin,
        floor=task.floor,
        synthetic=bool(task.challenger["synthetic"].any()),
    )
    problems = _problems(task)
    if problems:
        return replace(result, reasons=[f"{task.name}: {problem}" for problem in problems])
    challenger = task.challenger.sort_values("id", ignore_index=True)
    try:
        if task.champion is None:
            [drawn] = _bootstrap([challenger], task.main_metric, settings)
            return _first(
                replace(result, challenger=_interval(drawn, challenger, task.main_metric, settings))
            )
        champion = task.champion.sort_values("id", ignore_index=True)
        return _compared(result, challenger, champion, settings)
    except ValueError as error:
        return replace(
            result, reasons=[f"{task.name}: {NAMES[task.main_metric]} cannot be measured: {error}."]
        )


def _problems(task: PairedTask) -> list[str]:
    """Why the tables cannot be compared: missing, repeated, undefined or contradictory predictions."""
    tables = {"the new model": task.challenger}
    if task.champion is not None:
        tables["the current model"] = task.champion
    problems = [
        problem
        for name, table in tables.items()
        for problem in _gaps(name, table, set(task.images))
    ]
    if problems or task.champion is None or "label" not in task.challenger:
        return problems
    ours, theirs = task.challenger.set_index("id")["label"], task.champion.set_index("id")["label"]
    differing = int((ours != theirs.reindex(ours.index)).sum())
    if differing:
        problems.append(
            f"{differing} images have another label in the current model's table than in the new one's."
        )
    return problems


def _gaps(name: str, table: pd.DataFrame, images: set[str]) -> list[str]:
    problems = []
    missing, strange = images - set(table["id"]), set(table["id"]) - images
    if missing:
        problems.append(
            f"{name} gives no prediction for {len(missing)} of {len(images)} test images ({min(missing)})."
        )
    if strange:
        problems.append(
            f"{name} has predictions for {len(strange)} images outside the test set ({min(strange)})."
        )
    if table["id"].duplicated().any():
        problems.append(
            f"{name} has several predictions for {int(table['id'].duplicated().sum())} images."
        )
    undefined = table["id"].to_numpy()[~np.isfinite(measured(table)).all(axis=1)]
    if len(undefined):
        problems.append(
            f"{name} gives {len(undefined)} predictions that are not a number ({undefined[0]})."
        )
    return problems


def _bootstrap(tables: list[pd.DataFrame], main: str, settings: Settings) -> list[Resampled]:
    """The main metric of tables of the same images, in the same resamples of their patients."""
    statistics = [main_statistic(table, main) for table in tables]
    return cluster_bootstrap(
        statistics, tables[0]["patient"], resamples=settings.bootstrap, seed=settings.seed
    )


def _interval(drawn: Resampled, table: pd.DataFrame, main: str, settings: Settings) -> Interval:
    return bootstrap_interval(drawn, independent_units(table, main), settings.confidence)


def _below_floor(result: TaskResult) -> list[str]:
    assert result.challenger is not None
    if result.challenger.value >= result.floor:
        return []
    measured_value = f"{NAMES[result.main_metric]} {result.challenger.value:.3f}"
    return [f"{result.task}: {measured_value} is below the required minimum of {result.floor:.3f}."]


def _first(result: TaskResult) -> TaskResult:
    below = _below_floor(result)
    if below:
        return replace(result, reasons=below)
    assert result.challenger is not None
    reason = (
        f"{result.task}: there is no current model to compare with; {NAMES[result.main_metric]} "
        f"{_plain(result.challenger)} on {_amount(result.images, result.patients)} reaches the required minimum "
        f"of {result.floor:.3f}."
    )
    return replace(result, verdict="promote", reasons=[reason])


def _compared(
    result: TaskResult, challenger: pd.DataFrame, champion: pd.DataFrame, settings: Settings
) -> TaskResult:
    main, units = result.main_metric, independent_units(challenger, result.main_metric)
    ours, theirs = _bootstrap([challenger, champion], main, settings)
    found = _difference(challenger, champion, ours, theirs, units, settings)
    result = replace(
        result,
        challenger=_interval(ours, challenger, main, settings),
        champion=_interval(theirs, champion, main, settings),
        difference=Interval(*found[:3]),
        unseen=found.unseen,
        detectable=max(detectable_difference(found.error, settings.confidence), found.unseen),
        power=power(found.error, result.margin, units, settings.confidence),
        patients_needed=_needed(result, units, found.error, settings),
        slices=_slices(challenger, champion, main, settings),
    )
    verdict, reason = _compare_with_margin(result, settings)
    below = _below_floor(result)
    return replace(result, verdict="reject" if below else verdict, reasons=[*below, reason])


def _difference(
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    ours: Resampled,
    theirs: Resampled,
    units: int,
    settings: Settings,
) -> Difference:
    if np.array_equal(measured(challenger), measured(champion)):
        return Difference(
            0.0, 0.0, 0.0, p_worse=1.0, error=0.0, unseen=0.0
        )  # the same model, for all one can see
    return paired_difference(ours, theirs, units=units, confidence=settings.confidence)


def _needed(result: TaskResult, units: int, error: float, settings: Settings) -> int | None:
    if units < 1:
        return None
    return patients_needed(
        result.patients, units, error, result.margin, _TARGET_POWER, settings.confidence
    )


def _compare_with_margin(result: TaskResult, settings: Settings) -> tuple[Verdict, str]:
    assert result.difference is not None
    assert result.challenger is not None
    assert result.champion is not None
    name = NAMES[result.main_metric]
    measured_values = (
        f"{result.task}: {name} {result.challenger.value:.3f}, the current model {result.champion.value:.3f}; "
        f"difference {_signed(result.difference)} on {_amount(result.images, result.patients)}"
    )
    if result.difference.low > -result.margin:
        return "promote", f"{measured_values}. A loss of {result.margin:.3f} or more is ruled out."
    if result.difference.high < -result.margin:
        return (
            "reject",
            f"{measured_values}. The loss is larger than the {result.margin:.3f} that may be accepted.",
        )
    return (
        "inconclusive",
        f"{measured_values}. A loss of {result.margin:.3f} or more is not ruled out{_unseen(result)}{_chance(result)}.",
    )


def _unseen(result: TaskResult) -> str:
    """Said where the number of patients alone forbids a promotion of an equal model."""
    if result.unseen is None or result.unseen < result.margin:
        return ""
    return f", as a model that fails {result.unseen:.1%} of patients may fail none of so few"


def _chance(result: TaskResult) -> str:
    if result.power is None or result.patients_needed is None:
        return ""
    chance = f"; with these patients an equally good model would have been accepted {result.power:.0%} of the time"
    if result.patients_needed > result.patients:
        chance += f", and {result.patients_needed:,} patients would make that {_TARGET_POWER:.0%}"
    return chance


def _slices(
    challenger: pd.DataFrame, champion: pd.DataFrame, main: str, settings: Settings
) -> list[SliceResult]:
    """Every site, probe and device that is not the whole test set."""
    return [
        _slice(
            origin, str(name), challenger.loc[part.index], champion.loc[part.index], main, settings
        )
        for origin in ORIGINS
        if challenger[origin].nunique() > 1
        for name, part in challenger.groupby(origin, sort=True)
    ]


def _slice(
    origin: str,
    name: str,
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    main: str,
    settings: Settings,
) -> SliceResult:
    result = SliceResult(origin, name, len(challenger), int(challenger["patient"].nunique()))
    if result.patients < settings.min_slice_patients:
        return replace(result, note=f"fewer than {settings.min_slice_patients} patients")
    try:
        ours, theirs = _bootstrap([challenger, champion], main, settings)
        found = _difference(
            challenger, champion, ours, theirs, independent_units(challenger, main), settings
        )
    except ValueError as error:
        return replace(result, note=str(error))
    return replace(result, difference=Interval(*found[:3]), p_value=found.p_worse)


def _with_slices(results: list[TaskResult], settings: Settings) -> list[TaskResult]:
    """Adjust the slices' p values over all tasks and reject tasks that have a worse one."""
    raw = [part.p_value for result in results for part in result.slices if part.p_value is not None]
    adjusted = iter(holm(raw))
    return [
        _judge_slices(result, _adjusted(result.slices, adjusted, settings.alpha))
        for result in results
    ]


def _adjusted(
    slices: list[SliceResult], adjusted: Iterator[float], alpha: float
) -> list[SliceResult]:
    """The tested slices with the next adjusted p values."""
    done = []
    for part in slices:
        if part.p_value is not None:
            p = next(adjusted)
            part = replace(part, p_value=p, worse=p < alpha)
        done.append(part)
    return done


def _judge_slices(result: TaskResult, slices: list[SliceResult]) -> TaskResult:
    worse = [_slice_reason(result, part) for part in slices if part.worse]
    verdict: Verdict = "reject" if worse else result.verdict
    return replace(result, slices=slices, verdict=verdict, reasons=[*result.reasons, *worse])


def _slice_reason(result: TaskResult, part: SliceResult) -> str:
    assert part.difference is not None
    assert part.p_value is not None
    return (
        f"{result.task}: for {part.origin} {part.name} the new model is worse than the current one:"
        f" {NAMES[result.main_metric]} {_signed(part.difference)} on"
        f" {_amount(part.images, part.patients)} (adjusted p = {part.p_value:.4f})."
    )


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _plain(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _amount(images: int, patients: int) -> str:
    return f"{images:,} images of {patients:,} patients"

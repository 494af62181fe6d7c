"""Is a challenger at least as good as the champion? A decision with its reasons in words.

For each task the difference challenger - champion of the main metric is bootstrapped over patients,
on the same images. The challenger is *not worse* if the lower limit is above -margin, and *worse*
if the upper limit is below it. The lower limit also allows for failures that few patients need not
show. The same holds against the best release of the lineage, so that small losses do not add up
over releases. A first release needs its lower limit above the floor. The level of these limits
falls with each decision on the same series of test sets (`spending`).

Slices are tested one-sidedly for being worse at all, the Brier score for being worse by more than
0.01, with Holm's correction over all of them. A slice that lacks a class is judged by sensitivity
or specificity. A slice that
is too small to be tested and worse is named in the reasons. A calibration error beyond its limit
and beyond chance rejects, as does an undefined or missing prediction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from arl.evaluation import metrics
from arl.evaluation.calibration import chance_calibration_error, with_temperature
from arl.evaluation.decision import (
    CalibrationResult,
    Decision,
    Settings,
    SliceResult,
    TaskResult,
    TrialCount,
    Verdict,
)
from arl.evaluation.metrics import Floats
from arl.evaluation.predictions import (
    independent_units,
    labels,
    main_statistic,
    measured,
    scores,
    slice_columns,
)
from arl.evaluation.results import Interval
from arl.evaluation.statistics import (
    Difference,
    Resampled,
    Statistic,
    bootstrap_interval,
    cluster_bootstrap,
    detectable_difference,
    holm,
    lower_bounded,
    mean_statistic,
    paired_difference,
    patients_needed,
    power,
)
from arl.evaluation.summary import calibration_pairs

NAMES = {
    "auroc": "AUROC",
    "top1": "Top-1 accuracy",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
}
_TARGET_POWER = 0.8
_BRIER_TOLERANCE = 0.01  # a smaller true loss is no reason to reject
_SEVERITY: tuple[Verdict, ...] = ("promote", "inconclusive", "reject")


@dataclass(frozen=True)
class ModelPredictions:
    """A model's predictions on the test images of a task.

    Attributes:
        table: see `predictions`.
        threshold: of score_1, for two classes.
        temperature: that makes scores probabilities.
        release: the release of the model; None: it is not released.
    """

    table: pd.DataFrame
    threshold: float | None = None
    temperature: float | None = None
    release: str | None = None


@dataclass(frozen=True)
class PairedTask:
    """The test images of a task with the predictions of the models."""

    name: str
    main_metric: str  # auroc | top1 | dice
    margin: float  # largest loss that still counts as not worse
    floor: float  # main metric that a first release must exceed
    images: Sequence[str]  # ids of all test images
    challenger: ModelPredictions
    champion: ModelPredictions | None  # None: no champion has this task
    best: ModelPredictions | None  # the best release of the lineage, where it is another
    trial: TrialCount

    def __post_init__(self) -> None:
        if self.margin <= 0:
            raise ValueError(
                f"task {self.name}: a margin of {self.margin:g} can never be shown;"
                " it must be positive"
            )

    @property
    def models(self) -> dict[str, ModelPredictions]:
        """Name in sentences -> model."""
        named = {
            "the new model": self.challenger,
            "the current model": self.champion,
            "the best earlier model": self.best,
        }
        return {name: model for name, model in named.items() if model is not None}


def decide(tasks: Sequence[PairedTask], settings: Settings) -> Decision:
    """Judge a challenger on all of its tasks.

    Raises:
        ValueError: there is no task, or one is named twice.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the gate needs one entry for each task, got {names}")
    results = _adjust([_judge(task, settings) for task in tasks], settings)
    return Decision(
        verdict=max((result.verdict for result in results), key=_SEVERITY.index),
        reasons=[reason for result in results for reason in result.reasons],
        tasks={result.task: result for result in results},
        settings=settings,
    )


def _judge(task: PairedTask, settings: Settings) -> TaskResult:
    """The result of a task, with p values of slices and calibration that are not adjusted yet."""
    table = task.challenger.table
    result = TaskResult(
        task=task.name,
        main_metric=task.main_metric,
        verdict="reject",
        reasons=[],
        images=len(task.images),
        patients=int(table["patient"].nunique()),
        margin=task.margin,
        floor=task.floor,
        synthetic=bool(table["synthetic"].any()),
        trial=task.trial,
    )
    problems = _problems(task)
    if problems:
        return replace(result, reasons=[f"{task.name}: {problem}" for problem in problems])
    if task.trial.exhausted:
        return replace(result, verdict="inconclusive", reasons=[_exhausted(task)])
    if task.trial.changed:
        return replace(result, verdict="inconclusive", reasons=[_changed(task)])
    task = _sorted(task)
    try:
        result = replace(result, calibration=_calibration(task, settings))
        if task.champion is None:
            return _judge_first(result, task, settings)
        return _judge_challenger(result, task, task.champion, settings)
    except ValueError as error:
        reason = f"{task.name}: {NAMES[task.main_metric]} cannot be measured: {error}."
        return replace(result, reasons=[reason])


def _exhausted(task: PairedTask) -> str:
    return (
        f"{task.name}: test set {task.trial.test_set} is exhausted: {task.trial.limit} decisions"
        f" were made on its patients. Renew it: arl testset renew --task {task.name}."
    )


def _changed(task: PairedTask) -> str:
    return (
        f"{task.name}: the test images are not those that the current model was judged on, and no"
        f" one has frozen them. Look at them, then: arl testset add --task {task.name}."
    )


def _sorted(task: PairedTask) -> PairedTask:
    """The task with all tables in the order of the ids."""

    def ordered(model: ModelPredictions) -> ModelPredictions:
        return replace(model, table=model.table.sort_values("id", ignore_index=True))

    return replace(
        task,
        challenger=ordered(task.challenger),
        champion=ordered(task.champion) if task.champion else None,
        best=ordered(task.best) if task.best else None,
    )


# --- what cannot be compared -----------------------------------------------------------------


def _problems(task: PairedTask) -> list[str]:
    """Missing, repeated, undefined or contradictory predictions."""
    models = task.models
    problems = [
        problem
        for name, model in models.items()
        for problem in _gaps(name, model.table, set(task.images))
    ]
    challenger = task.challenger.table
    if problems or "label" not in challenger:
        return problems
    ours = challenger.set_index("id")["label"]
    for name, model in models.items():
        theirs = model.table.set_index("id")["label"]
        differing = int((ours != theirs.reindex(ours.index)).sum())
        if differing:
            problems.append(
                f"{differing} images have another label in the table of {name}"
                " than in the new one's."
            )
    return problems


def _gaps(name: str, table: pd.DataFrame, images: set[str]) -> list[str]:
    problems = []
    missing, strange = images - set(table["id"]), set(table["id"]) - images
    if missing:
        problems.append(
            f"{name} gives no prediction for {len(missing)} of {len(images)} test images"
            f" ({min(missing)})."
        )
    if strange:
        problems.append(
            f"{name} has predictions for {len(strange)} images outside the test set"
            f" ({min(strange)})."
        )
    if table["id"].duplicated().any():
        repeated = int(table["id"].duplicated().sum())
        problems.append(f"{name} has several predictions for {repeated} images.")
    undefined = table["id"].to_numpy()[~np.isfinite(measured(table)).all(axis=1)]
    if len(undefined):
        problems.append(
            f"{name} gives {len(undefined)} predictions that are not a number ({undefined[0]})."
        )
    return problems


# --- the main metric -------------------------------------------------------------------------


def _resample(
    tables: Sequence[pd.DataFrame], statistics: Sequence[Statistic], settings: Settings
) -> list[Resampled]:
    """Statistics of tables of the same images, in the same resamples of their patients."""
    return cluster_bootstrap(
        statistics, tables[0]["patient"], resamples=settings.bootstrap, seed=settings.seed
    )


def _main(models: Sequence[ModelPredictions], main: str, settings: Settings) -> list[Resampled]:
    tables = [model.table for model in models]
    return _resample(tables, [main_statistic(table, main) for table in tables], settings)


def _judge_first(result: TaskResult, task: PairedTask, settings: Settings) -> TaskResult:
    main, units = task.main_metric, independent_units(task.challenger.table, task.main_metric)
    confidence = settings.confidence(task.trial.number)
    [resampled] = _main([task.challenger], main, settings)
    limits = lower_bounded(resampled, units=units, confidence=confidence)
    interval = Interval(limits.value, max(0.0, limits.low), min(1.0, limits.high))
    result = replace(result, challenger=interval, unseen=limits.unseen)
    verdict, reason = _compare_with_floor(result)
    few = _too_few(result, settings)
    verdict = max(verdict, "inconclusive" if few else "promote", key=_SEVERITY.index)
    return replace(result, verdict=verdict, reasons=[reason, *few])


def _compare_with_floor(result: TaskResult) -> tuple[Verdict, str]:
    assert result.challenger is not None
    text = (
        f"{result.task}: there is no current model to compare with;"
        f" {NAMES[result.main_metric]} {_plain(result.challenger)} on"
        f" {_amount(result.images, result.patients)}"
    )
    floor = f"the required minimum of {result.floor:.3f}"
    # A floor of 0 demands nothing.
    if result.challenger.low > result.floor or result.floor == 0:
        return "promote", f"{text}. The whole interval is above {floor}.{_try_text(result.trial)}"
    if result.challenger.value < result.floor:
        return "reject", f"{text} is below {floor}."
    return (
        "inconclusive",
        f"{text}. The interval reaches down to {floor}: more patients must show that the model is"
        f" above it.{_try_text(result.trial)}",
    )


def _too_few(result: TaskResult, settings: Settings) -> list[str]:
    if result.patients >= settings.min_patients:
        return []
    return [
        f"{result.task}: {result.patients} test patients are fewer than the"
        f" {settings.min_patients} that a release needs."
    ]


def _judge_challenger(
    result: TaskResult, task: PairedTask, champion: ModelPredictions, settings: Settings
) -> TaskResult:
    main, units = task.main_metric, independent_units(task.challenger.table, task.main_metric)
    confidence = settings.confidence(task.trial.number)
    models = [task.challenger, champion, *([task.best] if task.best else [])]
    ours, theirs, *best = _main(models, main, settings)
    against = _difference(task.challenger, champion, ours, theirs, units, confidence)
    result = replace(
        result,
        challenger=bootstrap_interval(ours, units, confidence),
        champion=bootstrap_interval(theirs, units, confidence),
        difference=Interval(*against[:3]),
        best_release=_best_release(task, champion, ours, theirs, best),
        unseen=against.unseen,
        slices=_slices(task, champion, settings),
    )
    result = _with_powers(result, against, units, settings)
    if task.best:
        creep = _difference(task.challenger, task.best, ours, best[0], units, confidence)
        result = replace(result, best_difference=Interval(*creep[:3]))
    findings = [
        _compare_with_margin(result),
        *_compare_with_best(result, task.best),
        *(("inconclusive", few) for few in _too_few(result, settings)),
        *(("reject", below) for below in _below_floor(result)),
    ]
    verdict: Verdict = max((verdict for verdict, _ in findings), key=_SEVERITY.index)
    return replace(result, verdict=verdict, reasons=[reason for _, reason in findings])


def _difference(
    challenger: ModelPredictions,
    other: ModelPredictions,
    ours: Resampled,
    theirs: Resampled,
    units: int,
    confidence: float,
) -> Difference:
    # The same predictions are the same model, as far as these images can tell.
    if np.array_equal(measured(challenger.table), measured(other.table)):
        return Difference(0.0, 0.0, 0.0, p_worse=1.0, error=0.0, unseen=0.0)
    return paired_difference(ours, theirs, units=units, confidence=confidence)


def _best_release(
    task: PairedTask,
    champion: ModelPredictions,
    ours: Resampled,
    theirs: Resampled,
    best: list[Resampled],
) -> str | None:
    """The release with the greatest main metric; None if that is the challenger."""
    values = {champion.release: theirs.value}
    if task.best:
        values[task.best.release] = best[0].value
    name = max(values, key=lambda release: values[release])
    return name if values[name] > ours.value else None


def _with_powers(
    result: TaskResult, against: Difference, units: int, settings: Settings
) -> TaskResult:
    error, margin = against.error, result.margin
    trials = (result.trial.number, 1, settings.max_trials)
    now, first, last = (settings.confidence(trial) for trial in trials)
    needed = None
    if units:
        needed = patients_needed(result.patients, units, error, margin, _TARGET_POWER, now)
    return replace(
        result,
        detectable=max(detectable_difference(error, now), against.unseen),
        power=power(error, margin, units, now),
        power_first=power(error, margin, units, first),
        power_last=power(error, margin, units, last),
        patients_needed=needed,
    )


def _below_floor(result: TaskResult) -> list[str]:
    assert result.challenger is not None
    if result.challenger.value >= result.floor:
        return []
    value = f"{NAMES[result.main_metric]} {result.challenger.value:.3f}"
    return [f"{result.task}: {value} is below the required minimum of {result.floor:.3f}."]


def _compare_with_margin(result: TaskResult) -> tuple[Verdict, str]:
    assert result.difference is not None
    assert result.challenger is not None
    assert result.champion is not None
    text = (
        f"{result.task}: {NAMES[result.main_metric]} {result.challenger.value:.3f},"
        f" the current model {result.champion.value:.3f};"
        f" difference {_signed(result.difference)} on {_amount(result.images, result.patients)}"
    )
    loss = f"{result.margin:.3f}"
    trial = _try_text(result.trial)
    if result.difference.low > -result.margin:
        return "promote", f"{text}. A loss of {loss} or more is ruled out.{trial}"
    if result.difference.high < -result.margin:
        return "reject", f"{text}. The loss is larger than the {loss} that may be accepted.{trial}"
    return (
        "inconclusive",
        f"{text}. A loss of {loss} or more is not ruled out"
        f"{_unseen(result)}{_chance(result)}.{trial}",
    )


def _compare_with_best(
    result: TaskResult, best: ModelPredictions | None
) -> list[tuple[Verdict, str]]:
    """The comparison with the best earlier release, where it limits the verdict."""
    if best is None or result.best_difference is None:
        return []
    text = (
        f"{result.task}: against release {best.release}, the best so far, the difference is"
        f" {_signed(result.best_difference)}"
    )
    if result.best_difference.high < -result.margin:
        return [("reject", f"{text}: small losses have added up to more than the margin.")]
    if result.best_difference.low <= -result.margin:
        loss = f"{result.margin:.3f}"
        return [("inconclusive", f"{text}: a loss of {loss} or more is not ruled out.")]
    return []


def _try_text(trial: TrialCount) -> str:
    if trial.number == 1:
        return ""
    return (
        f" This is decision {trial.number} of {trial.limit} on test set {trial.test_set},"
        f" at a one-sided level of {trial.level:.5f}."
    )


def _unseen(result: TaskResult) -> str:
    """Why the number of patients alone forbids the promotion of an equal model."""
    if result.unseen is None or result.unseen < result.margin:
        return ""
    return f", as a model that fails {result.unseen:.1%} of patients may fail none of so few"


def _chance(result: TaskResult) -> str:
    if result.power is None or result.patients_needed is None:
        return ""
    text = (
        "; with these patients an equally good model would have been accepted"
        f" {result.power:.0%} of the time"
    )
    if result.patients_needed > result.patients:
        text += f", and {result.patients_needed:,} patients would make that {_TARGET_POWER:.0%}"
    return text


# --- slices ----------------------------------------------------------------------------------


def _slices(task: PairedTask, champion: ModelPredictions, settings: Settings) -> list[SliceResult]:
    """Every site, probe, device and further group that is not the whole test set."""
    table = task.challenger.table
    return [
        _slice(column, str(name), part.index, task, champion, settings)
        for column in slice_columns(table)
        if table[column].nunique() > 1
        for name, part in table.groupby(column, sort=True)
    ]


def _slice(
    origin: str,
    name: str,
    index: pd.Index,
    task: PairedTask,
    champion: ModelPredictions,
    settings: Settings,
) -> SliceResult:
    models = [
        replace(model, table=model.table.loc[index].reset_index(drop=True))
        for model in (task.challenger, champion)
    ]
    table = models[0].table
    metric = _slice_metric(table, task.main_metric)
    patients = int(table["patient"].nunique())
    result = SliceResult(origin, name, metric, len(table), patients)
    try:
        statistics = [_slice_statistic(model, metric) for model in models]
        ours, theirs = (float(one(np.ones((1, len(table))))[0]) for one in statistics)
        result = replace(result, value=ours - theirs)
        if patients < settings.min_slice_patients:
            return replace(result, note=f"fewer than {settings.min_slice_patients} patients")
        drawn = _resample([model.table for model in models], statistics, settings)
        units = independent_units(table, metric) if metric == "auroc" else patients
        confidence = 1 - settings.alpha
        difference = _difference(models[0], models[1], drawn[0], drawn[1], units, confidence)
    except ValueError as error:
        return replace(result, note=str(error))
    return replace(result, difference=Interval(*difference[:3]), p_value=difference.p_worse)


def _slice_metric(table: pd.DataFrame, main: str) -> str:
    """The main metric, or the one that a slice without all classes can be judged by."""
    if main != "auroc":
        return main
    classes, present = scores(table).shape[1], sorted(set(labels(table)))
    if len(present) == classes:
        return main
    if classes > 2:
        return "accuracy"
    return "sensitivity" if present == [1] else "specificity"


def _slice_statistic(model: ModelPredictions, metric: str) -> Statistic:
    if metric in ("auroc", "top1", "dice"):
        return main_statistic(model.table, metric)
    y, s = labels(model.table), scores(model.table)
    called = s.argmax(axis=1)
    if model.threshold is not None:
        called = (s[:, 1] >= model.threshold).astype(np.int64)
    return mean_statistic(called == y)


def _adjust(results: list[TaskResult], settings: Settings) -> list[TaskResult]:
    """Adjust the p values of slices and calibration over all tasks, and reject what is worse."""
    raw = [p for result in results for p in _p_values(result)]
    adjusted = iter(holm(raw))
    return [_judge_parts(_with_adjusted(result, adjusted, settings.alpha)) for result in results]


def _p_values(result: TaskResult) -> list[float]:
    raw = [part.p_value for part in result.slices]
    raw.append(result.calibration.p_value if result.calibration else None)
    return [p for p in raw if p is not None]


def _with_adjusted(result: TaskResult, adjusted: Iterator[float], alpha: float) -> TaskResult:
    slices = []
    for part in result.slices:
        if part.p_value is not None:
            p = next(adjusted)
            part = replace(part, p_value=p, worse=p < alpha)
        slices.append(part)
    calibration = result.calibration
    if calibration is not None and calibration.p_value is not None:
        p = next(adjusted)
        calibration = replace(calibration, p_value=p, worse=p < alpha)
    return replace(result, slices=slices, calibration=calibration)


def _judge_parts(result: TaskResult) -> TaskResult:
    worse = [_worse_slice(result.task, part) for part in result.slices if part.worse]
    worse += _bad_calibration(result)
    small = [
        _small_slice(result.task, part)
        for part in result.slices
        if part.p_value is None and part.value is not None and part.value < 0
    ]
    verdict: Verdict = "reject" if worse else result.verdict
    return replace(result, verdict=verdict, reasons=[*result.reasons, *worse, *small])


def _worse_slice(task: str, part: SliceResult) -> str:
    assert part.difference is not None
    assert part.p_value is not None
    return (
        f"{task}: for {part.origin} {part.name} the new model is worse than the current one:"
        f" {NAMES[part.metric]} {_signed(part.difference)} on"
        f" {_amount(part.images, part.patients)} (adjusted p = {part.p_value:.4f})."
    )


def _small_slice(task: str, part: SliceResult) -> str:
    assert part.value is not None
    return (
        f"{task}: {part.origin} {part.name} is too small to be tested"
        f" ({_amount(part.images, part.patients)}), and the new model is worse there:"
        f" {NAMES[part.metric]} {part.value:+.3f}. Look at these images."
    )


# --- calibration -----------------------------------------------------------------------------


def _probabilities(model: ModelPredictions) -> Floats:
    raw = scores(model.table)
    return raw if model.temperature is None else with_temperature(raw, model.temperature)


def _calibration(task: PairedTask, settings: Settings) -> CalibrationResult | None:
    """The calibration of a classification; None for a segmentation."""
    table = task.challenger.table
    if task.main_metric == "dice":
        return None
    y, ours = labels(table), _probabilities(task.challenger)
    outcomes, probabilities = calibration_pairs(y, ours)
    losses = metrics.brier_losses(y, ours)
    result = CalibrationResult(
        ece=metrics.expected_calibration_error(outcomes, probabilities),
        limit=settings.max_calibration_error,
        chance=chance_calibration_error(
            probabilities, table["patient"], level=settings.alpha, seed=settings.seed
        ),
        brier=float(losses.mean()),
    )
    if task.champion is None:
        return result
    others = metrics.brier_losses(y, _probabilities(task.champion))
    [gain] = _resample([table], [mean_statistic(others - losses)], settings)
    draws = gain.defined()
    p_worse = (1 + int((draws >= -_BRIER_TOLERANCE).sum())) / (1 + len(draws))
    return replace(result, champion_brier=float(others.mean()), p_value=p_worse)


def _bad_calibration(result: TaskResult) -> list[str]:
    calibration = result.calibration
    if calibration is None:
        return []
    reasons = []
    if calibration.off:
        reasons.append(
            f"{result.task}: the calibration error {calibration.ece:.3f} is above the limit of"
            f" {calibration.limit:.3f}, and above the {calibration.chance:.3f} that chance"
            " explains: train longer, or with more validation images."
        )
    if calibration.worse:
        assert calibration.champion_brier is not None
        assert calibration.p_value is not None
        reasons.append(
            f"{result.task}: the probabilities are worse than the current model's: Brier score"
            f" {calibration.brier:.3f}, the current model {calibration.champion_brier:.3f}"
            f" (adjusted p = {calibration.p_value:.4f})."
        )
    return reasons


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _plain(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _amount(images: int, patients: int) -> str:
    return f"{images:,} images of {patients:,} patients"

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

from collections.abc import Sequence
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
from arl.evaluation.measure import Measure
from arl.evaluation.metrics import TITLES, Floats
from arl.evaluation.predictions import labels, scores, slice_columns
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

    @property
    def probabilities(self) -> Floats:
        """The scores (n, k), after temperature scaling where there is a temperature."""
        raw = scores(self.table)
        return raw if self.temperature is None else with_temperature(raw, self.temperature)


@dataclass(frozen=True)
class PairedTask:
    """The test images of a task with the predictions of the models."""

    name: str
    measure: Measure
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

    def ordered(self) -> "PairedTask":
        """The task with all tables in the order of the ids."""

        def by_id(model: ModelPredictions) -> ModelPredictions:
            return replace(model, table=model.table.sort_values("id", ignore_index=True))

        return replace(
            self,
            challenger=by_id(self.challenger),
            champion=by_id(self.champion) if self.champion else None,
            best=by_id(self.best) if self.best else None,
        )


def decide(tasks: Sequence[PairedTask], settings: Settings) -> Decision:
    """Judge a challenger on all of its tasks.

    Raises:
        ValueError: there is no task, or one is named twice.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the gate needs one entry for each task, got {names}")
    # The p values of all tasks are adjusted together: each further slice is a further chance of a
    # false alarm, whatever task it belongs to.
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
        main_metric=task.measure.main,
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
    refusal = _refusal(task)
    if refusal:
        return replace(result, verdict="inconclusive", reasons=[refusal])
    # Pairs are formed by row, so all tables need one order.
    task = task.ordered()
    try:
        result = replace(result, calibration=_calibration(task, settings))
        if task.champion is None:
            return _judge_first(result, task, settings)
        return _judge_challenger(result, task, task.champion, settings)
    except ValueError as error:
        reason = f"{task.name}: {TITLES[task.measure.main]} cannot be measured: {error}."
        return replace(result, reasons=[reason])


def _refusal(task: PairedTask) -> str:
    """Why no decision is made on the task's test set; empty where one can be made."""
    # Nothing is left to spend on this test set, and any promotion would exceed alpha.
    if task.trial.exhausted:
        return (
            f"{task.name}: test set {task.trial.test_set} is exhausted: {task.trial.limit}"
            " decisions were made on its patients. Renew it: arl testset renew --task"
            f" {task.name}."
        )
    # Whoever adds images could otherwise choose the test set, and with it the verdict.
    if task.trial.changed:
        return (
            f"{task.name}: the test images are not those that the current model was judged on, and"
            f" no one has frozen them. Look at them, then: arl testset add --task {task.name}."
        )
    return ""


# --- what cannot be compared -----------------------------------------------------------------


def _problems(task: PairedTask) -> list[str]:
    """Missing, repeated, undefined or contradictory predictions."""
    models = task.models
    problems = [
        problem
        for name, model in models.items()
        for problem in _gaps(name, task.measure, model.table, set(task.images))
    ]
    challenger = task.challenger.table
    truth = list(task.measure.truth_columns)
    if problems or not truth:
        return problems
    # Two models that were scored against other labels are not compared on the same test.
    ours = challenger.set_index("id")[truth]
    for name, model in models.items():
        theirs = model.table.set_index("id")[truth]
        differing = int((ours != theirs.reindex(ours.index)).any(axis=1).sum())
        if differing:
            problems.append(
                f"{differing} images have another label in the table of {name}"
                " than in the new one's."
            )
    return problems


def _gaps(name: str, measure: Measure, table: pd.DataFrame, images: set[str]) -> list[str]:
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
    undefined = table["id"].to_numpy()[~np.isfinite(measure.outputs(table)).all(axis=1)]
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


def _judge_first(result: TaskResult, task: PairedTask, settings: Settings) -> TaskResult:
    units = task.measure.units(task.challenger.table)
    confidence = settings.confidence(task.trial.number)
    table = task.challenger.table
    [resampled] = _resample([table], [task.measure.statistic(table)], settings)
    # The lower limit alone decides, since a point estimate of few patients passes any floor by
    # chance.
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
        f" {TITLES[result.main_metric]} {result.challenger.text} on"
        f" {_amount(result.images, result.patients)}"
    )
    floor = f"the required minimum of {result.floor:.3f}"
    # A floor of 0 demands nothing.
    if result.challenger.low > result.floor or result.floor == 0:
        return "promote", f"{text}. The whole interval is above {floor}.{result.trial.sentence}"
    if result.challenger.value < result.floor:
        return "reject", f"{text} is below {floor}."
    return (
        "inconclusive",
        f"{text}. The interval reaches down to {floor}: more patients must show that the model is"
        f" above it.{result.trial.sentence}",
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
    units = task.measure.units(task.challenger.table)
    confidence = settings.confidence(task.trial.number)
    models = [task.challenger, champion, *([task.best] if task.best else [])]
    # One call, so that all models see the same resamples: a paired difference has a smaller error.
    tables = [model.table for model in models]
    statistics = [task.measure.statistic(table) for table in tables]
    ours, theirs, *best = _resample(tables, statistics, settings)
    against = _difference(task.measure, task.challenger, champion, ours, theirs, units, confidence)
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
        creep = _difference(
            task.measure, task.challenger, task.best, ours, best[0], units, confidence
        )
        result = replace(result, best_difference=Interval(*creep[:3]))
    findings = [
        _compare_with_margin(result),
        *_compare_with_best(result, task.best),
        *(("inconclusive", few) for few in _too_few(result, settings)),
    ]
    if ours.value < task.floor:
        value = f"{TITLES[task.measure.main]} {ours.value:.3f}"
        below = f"{task.name}: {value} is below the required minimum of {task.floor:.3f}."
        findings.append(("reject", below))
    # The most severe finding is the verdict; all findings are reasons.
    verdict: Verdict = max((verdict for verdict, _ in findings), key=_SEVERITY.index)
    return replace(result, verdict=verdict, reasons=[reason for _, reason in findings])


def _difference(
    measure: Measure,
    challenger: ModelPredictions,
    other: ModelPredictions,
    ours: Resampled,
    theirs: Resampled,
    units: int,
    confidence: float,
) -> Difference:
    # The same predictions are the same model, as far as these images can tell.
    if np.array_equal(measure.outputs(challenger.table), measure.outputs(other.table)):
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
    # The release that later challengers are compared with. Without it, ten releases could each lose
    # a little less than the margin.
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
        # No smaller loss can be excluded than the one that these patients need not show at all.
        detectable=max(detectable_difference(error, now), against.unseen),
        power=power(error, margin, units, now),
        power_first=power(error, margin, units, first),
        power_last=power(error, margin, units, last),
        patients_needed=needed,
    )


def _compare_with_margin(result: TaskResult) -> tuple[Verdict, str]:
    assert result.difference is not None
    assert result.challenger is not None
    assert result.champion is not None
    text = (
        f"{result.task}: {TITLES[result.main_metric]} {result.challenger.value:.3f},"
        f" the current model {result.champion.value:.3f};"
        f" difference {result.difference.signed} on {_amount(result.images, result.patients)}"
    )
    loss = f"{result.margin:.3f}"
    trial = result.trial.sentence
    # Non-inferiority: the whole interval lies above -margin.
    if result.difference.low > -result.margin:
        return "promote", f"{text}. A loss of {loss} or more is ruled out.{trial}"
    if result.difference.high < -result.margin:
        return "reject", f"{text}. The loss is larger than the {loss} that may be accepted.{trial}"
    return (
        "inconclusive",
        f"{text}. A loss of {loss} or more is not ruled out{_patients_short(result)}.{trial}",
    )


def _compare_with_best(
    result: TaskResult, best: ModelPredictions | None
) -> list[tuple[Verdict, str]]:
    """The comparison with the best earlier release, where it limits the verdict."""
    if best is None or result.best_difference is None:
        return []
    text = (
        f"{result.task}: against release {best.release}, the best so far, the difference is"
        f" {result.best_difference.signed}"
    )
    # Small losses of each release pass the comparison with the last one, and add up.
    if result.best_difference.high < -result.margin:
        return [("reject", f"{text}: small losses have added up to more than the margin.")]
    if result.best_difference.low <= -result.margin:
        loss = f"{result.margin:.3f}"
        return [("inconclusive", f"{text}: a loss of {loss} or more is not ruled out.")]
    return []


def _patients_short(result: TaskResult) -> str:
    """What the number of patients has to do with a loss that is not ruled out."""
    text = ""
    # The number of patients is the reason only where the unseen loss alone exceeds the margin.
    if result.unseen is not None and result.unseen >= result.margin:
        text = f", as a model that fails {result.unseen:.1%} of patients may fail none of so few"
    if result.power is None or result.patients_needed is None:
        return text
    text += (
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
        # A column with one value is the whole test set, which the main comparison judges.
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
    metric = task.measure.slice_metric(table)
    patients = int(table["patient"].nunique())
    result = SliceResult(origin, name, metric, len(table), patients)
    try:
        statistics = [
            task.measure.slice_statistic(model.table, metric, model.threshold) for model in models
        ]
        ours, theirs = (float(one(np.ones((1, len(table))))[0]) for one in statistics)
        result = replace(result, value=ours - theirs)
        if patients < settings.min_slice_patients:
            return replace(result, note=f"fewer than {settings.min_slice_patients} patients")
        drawn = _resample([model.table for model in models], statistics, settings)
        # Sensitivity and specificity are means over images of one class, so each patient is a
        # trial.
        units = task.measure.units(table) if metric == task.measure.main else patients
        # Slices are tested for harm at alpha over all of them (Holm). They spend nothing of the
        # tries: a false alarm rejects, and never promotes.
        confidence = 1 - settings.alpha
        difference = _difference(
            task.measure, models[0], models[1], drawn[0], drawn[1], units, confidence
        )
    except ValueError as error:
        return replace(result, note=str(error))
    return replace(result, difference=Interval(*difference[:3]), p_value=difference.p_worse)


def _adjust(results: list[TaskResult], settings: Settings) -> list[TaskResult]:
    """Adjust the p values of slices and calibration over all tasks, and reject what is worse."""
    raw = [p for result in results for p in result.p_values]
    # Holm's order is that of `p_values`; `with_adjusted` takes the values in the same order.
    adjusted = iter(holm(raw))
    return [_judge_parts(result.with_adjusted(adjusted, settings.alpha)) for result in results]


def _judge_parts(result: TaskResult) -> TaskResult:
    worse = [_worse_slice(result.task, part) for part in result.slices if part.worse]
    worse += _bad_calibration(result)
    small = [
        _small_slice(result.task, part)
        for part in result.slices
        # Too small to be tested is not the same as good: a person looks at these images.
        if part.p_value is None and part.value is not None and part.value < 0
    ]
    verdict: Verdict = "reject" if worse else result.verdict
    return replace(result, verdict=verdict, reasons=[*result.reasons, *worse, *small])


def _worse_slice(task: str, part: SliceResult) -> str:
    assert part.difference is not None
    assert part.p_value is not None
    return (
        f"{task}: for {part.origin} {part.name} the new model is worse than the current one:"
        f" {TITLES[part.metric]} {part.difference.signed} on"
        f" {_amount(part.images, part.patients)} (adjusted p = {part.p_value:.4f})."
    )


def _small_slice(task: str, part: SliceResult) -> str:
    assert part.value is not None
    return (
        f"{task}: {part.origin} {part.name} is too small to be tested"
        f" ({_amount(part.images, part.patients)}), and the new model is worse there:"
        f" {TITLES[part.metric]} {part.value:+.3f}. Look at these images."
    )


# --- calibration -----------------------------------------------------------------------------


def _calibration(task: PairedTask, settings: Settings) -> CalibrationResult | None:
    """The calibration of a classification; None for a kind without class probabilities."""
    table = task.challenger.table
    if not task.measure.has_probabilities:
        return None
    y, ours = labels(table), task.challenger.probabilities
    outcomes, probabilities = calibration_pairs(y, ours)
    # Brier's score rather than the calibration error: it is a mean over images, so that its
    # difference can be resampled without bias.
    losses = metrics.brier_losses(y, ours)
    result = CalibrationResult(
        ece=metrics.expected_calibration_error(outcomes, probabilities),
        limit=settings.max_calibration_error,
        # A limit alone would reject good models on few patients, whose calibration error is large
        # by chance.
        chance=chance_calibration_error(
            probabilities, table["patient"], level=settings.alpha, seed=settings.seed
        ),
        brier=float(losses.mean()),
    )
    if task.champion is None:
        return result
    others = metrics.brier_losses(y, task.champion.probabilities)
    [gain] = _resample([table], [mean_statistic(others - losses)], settings)
    draws = gain.defined()
    # With 1 added to both counts (Davison & Hinkley 1997, 4.2): a resampled p value is never 0.
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


def _amount(images: int, patients: int) -> str:
    return f"{images:,} images of {patients:,} patients"

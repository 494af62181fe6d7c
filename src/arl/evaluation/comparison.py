"""Compare methods on the same test images, over seeds and folds.

Comparisons are paired by patient, and p values are corrected over all of them.

A replicate is one training of every method, with its own seed and perhaps its own fold. A method's
figure is the mean over its replicates; patients are resampled over all of them together, so that a
patient who is tested in several replicates is one patient. Where the replicates are seeds on the
same images, intervals and p values also hold for other seeds. Replicates on other folds differ in
their patients too, so their spread stays out of the interval, which would count patients twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.evaluation import metrics
from arl.evaluation.metrics import Bools, Floats
from arl.evaluation.predictions import independent_units, labels, scores
from arl.evaluation.results import Interval
from arl.evaluation.statistics import (
    Resampled,
    Statistic,
    bootstrap_interval,
    cluster_bootstrap,
    clustered_test,
    detectable_difference,
    error_over_seeds,
    holm,
    macro_auroc_statistic,
    mean_statistic,
    over_seeds,
    sign_test,
    student_limits,
    student_test,
    unseen_loss,
)


class Replicate(NamedTuple):
    """One method's predictions on the test images, with the threshold of its validation images."""

    table: pd.DataFrame
    threshold: float | None


@dataclass(frozen=True)
class Figure:
    """A metric of a method."""

    interval: Interval  # of the mean over replicates, over patients and seeds
    each: list[float]  # of each replicate
    spread: float | None  # standard deviation over replicates; None: there is one
    difference: Interval | None = None  # reference - this
    p_value: float | None = None  # two-sided, that there is none
    corrected: float | None = None  # p_value after `correct`
    check: float | None = (
        None  # p value without resampling, see `_checked`; None: there is none for this metric
    )
    check_corrected: float | None = None
    detectable: float | None = None  # smallest difference that is found with a power of 80 %


def metric_statistic(replicate: Replicate, metric: str) -> Statistic:
    """The weighted metric of one table.

    Raises:
        ValueError: an unknown metric, or one that the table cannot give.
    """
    table = replicate.table
    if metric in ("dice", "iou"):
        return mean_statistic(table[metric])
    if metric == "auroc":
        return macro_auroc_statistic(labels(table), scores(table))
    return mean_statistic(*_hits(replicate, metric))


def _hits(replicate: Replicate, metric: str) -> tuple[Bools, Bools]:
    """Which images are answered rightly, and which count."""
    y, s = labels(replicate.table), scores(replicate.table)
    everyone = np.ones(len(y), bool)
    if metric in ("top1", "top3"):
        return metrics.top_k_hits(y, s, int(metric[-1])), everyone
    # Without a threshold the class of the highest score is called.
    threshold = replicate.threshold
    called = s.argmax(axis=1) if threshold is None else (s[:, 1] >= threshold).astype(np.int64)
    where: dict[str, Bools] = {"accuracy": everyone, "sensitivity": y == 1, "specificity": y == 0}
    if metric not in where:
        raise ValueError(
            f"unknown metric {metric!r}: expected auroc, {', '.join(where)}, top1, top3, dice"
            " or iou"
        )
    return np.asarray(called == y), where[metric]


def replicated(parts: Sequence[Statistic], sizes: Sequence[int]) -> Statistic:
    """The mean of statistics of tables that lie one after the other, of `sizes` images."""
    bounds = np.cumsum([0, *sizes])

    def statistic(weights: Floats) -> Floats:
        each = [part(weights[:, bounds[i] : bounds[i + 1]]) for i, part in enumerate(parts)]
        return np.asarray(np.mean(each, axis=0))

    return statistic


def compare(
    methods: dict[str, list[Replicate]],
    metric: str,
    *,
    reference: str | None,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Figure]:
    """The metric of each method, and its difference from the reference's.

    Raises:
        ValueError: methods of other images or numbers of replicates, or an undefined metric.
    """
    _check_same_images(methods)
    first = next(iter(methods.values()))
    # A patient who is tested in several folds is one cluster over all of them.
    clusters = np.concatenate([replicate.table["patient"].to_numpy(str) for replicate in first])
    sizes = [len(replicate.table) for replicate in first]
    each = {
        name: [metric_statistic(one, metric) for one in replicates]
        for name, replicates in methods.items()
    }
    drawn = cluster_bootstrap(
        [replicated(parts, sizes) for parts in each.values()],
        clusters,
        resamples=resamples,
        seed=seed,
    )
    resampled = dict(zip(methods, drawn, strict=True))
    values = {
        name: [float(part(np.ones((1, size)))[0]) for part, size in zip(parts, sizes, strict=True)]
        for name, parts in each.items()
    }
    units = independent(first, metric)
    seeds = {
        name: np.asarray(parts if _same_images(first) else []) for name, parts in values.items()
    }
    figures = {
        name: Figure(
            over_seeds(
                bootstrap_interval(resampled[name], units, confidence), seeds[name], confidence
            ),
            values[name],
            # One replicate has no spread.
            float(np.std(values[name], ddof=1)) if len(values[name]) > 1 else None,
        )
        for name in methods
    }
    if reference is None:
        return figures
    compared = _against(figures, resampled, seeds, reference, units, confidence)
    return {
        name: figure
        if name == reference
        else replace(figure, check=_checked(methods[reference], methods[name], metric))
        for name, figure in compared.items()
    }


def _checked(a: Sequence[Replicate], b: Sequence[Replicate], metric: str) -> float | None:
    """Two-sided p value without resampling: DeLong's of AUROC, the sign test of shares.

    Both sum over patients.


    DeLong needs two classes and replicates of the same images.
    """
    if metric in ("dice", "iou"):
        return None
    if metric != "auroc":
        return sign_test(*(_patient_shares(replicates, metric) for replicates in (a, b)))
    # DeLong's covariance needs the same images from every reader. Folds differ, and have the
    # bootstrap alone.
    table = a[0].table
    if not _same_images(a) or scores(table).shape[1] != 2:
        return None
    of_a, of_b = ([scores(one.table)[:, 1] for one in replicates] for replicates in (a, b))
    return clustered_test(labels(table), of_a, of_b, table["patient"].to_numpy(str))[1]


def _same_images(replicates: Sequence[Replicate]) -> bool:
    """Whether the replicates are seeds on one test set, and not folds."""
    first = list(replicates[0].table["id"])
    return all(list(one.table["id"]) == first for one in replicates)


def _patient_shares(replicates: Sequence[Replicate], metric: str) -> Floats:
    """Share of right answers of each patient, over their images and all replicates."""
    parts = [
        one.table.assign(right=right)[where]
        for one in replicates
        for right, where in [_hits(one, metric)]
    ]
    return pd.concat(parts).groupby("patient")["right"].mean().to_numpy(np.float64)


def _check_same_images(methods: dict[str, list[Replicate]]) -> None:
    name, first = next(iter(methods.items()))
    for other, replicates in methods.items():
        if [list(one.table["id"]) for one in replicates] != [
            list(one.table["id"]) for one in first
        ]:
            raise ValueError(
                f"{other} was not measured on the same images and replicates as {name}"
            )


def independent(replicates: Sequence[Replicate], metric: str) -> int:
    """Independent trials: patients, or for AUROC the disjoint pairs of the rarest class."""
    table = pd.concat([replicate.table for replicate in replicates])
    if metric in ("sensitivity", "specificity"):
        table = table[table["label"] == int(metric == "sensitivity")]
    return independent_units(table, metric)


def _against(
    figures: dict[str, Figure],
    resampled: dict[str, Resampled],
    seeds: dict[str, Floats],
    reference: str,
    units: int,
    confidence: float,
) -> dict[str, Figure]:
    rest = [name for name in figures if name != reference]
    differences = {name: resampled[reference].minus(resampled[name]) for name in rest}
    # Paired: a seed shuffles the same images for the reference and for the row.
    paired = {name: seeds[reference] - seeds[name] for name in rest}
    unseen = unseen_loss(units, 1 - confidence)
    compared = {
        name: replace(
            figures[name],
            difference=_difference(differences[name], units, unseen, confidence, paired[name]),
            # Student's interval and p value agree with each other; BCa's interval and a bootstrap p
            # value need not.
            p_value=student_test(differences[name], units, paired[name]),
            detectable=max(
                detectable_difference(
                    error_over_seeds(differences[name], units, paired[name])[0], confidence
                ),
                unseen,
            ),
        )
        for name in rest
    }
    return figures | compared


def correct(tables: Sequence[dict[str, Figure]]) -> list[dict[str, Figure]]:
    """The figures with p values that Holm corrects over all comparisons of these tables."""
    main = _holm([[figure.p_value for figure in table.values()] for table in tables])
    checks = _holm([[figure.check for figure in table.values()] for table in tables])
    return [
        {
            name: replace(figure, corrected=corrected, check_corrected=check)
            for (name, figure), corrected, check in zip(
                table.items(), main[i], checks[i], strict=True
            )
        }
        for i, table in enumerate(tables)
    ]


def _holm(p_values: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """The same table of p values, corrected for all of it."""
    # Holm over all tables together: each table is one more chance to find a difference that is
    # none.
    adjusted = iter(holm([value for row in p_values for value in row if value is not None]))
    return [[None if value is None else next(adjusted) for value in row] for row in p_values]


def _difference(
    drawn: Resampled, units: int, unseen: float, confidence: float, each: Floats
) -> Interval:
    if np.ptp(drawn.defined()) == 0:
        return Interval(drawn.value, drawn.value - unseen, drawn.value + unseen)
    return Interval(drawn.value, *student_limits(drawn, units, confidence, each))


def one_matrix(
    accuracy: float,
    sensitivity: float,
    specificity: float,
    images: npt.ArrayLike,
    decimals: tuple[int, int, int] = (4, 4, 4),
) -> tuple[int, int, int, int] | None:
    """The confusion matrix behind three printed figures; None where there is none.

    Returns true positives, positives, true negatives and negatives.


    Shares in 0..1, each either rounded or cut to its number of `decimals`; `images` are the
    possible sizes of the test set.
    """
    whole, among_positives, among_negatives = decimals
    # The printed figures fix the counts only jointly, so all possible sizes are tried.
    for total in np.atleast_1d(np.asarray(images)).tolist():
        for positives in range(1, total):
            negatives = total - positives
            for right in _counts(sensitivity, positives, among_positives):
                for spared in _counts(specificity, negatives, among_negatives):
                    if _prints_as((right + spared) / total, accuracy, whole):
                        return right, positives, spared, negatives
    return None


def _counts(fraction: float, whole: int, decimals: int) -> list[int]:
    unit = 10.0**-decimals
    near = range(
        max(0, int((fraction - unit) * whole)), min(whole, int((fraction + unit) * whole) + 1) + 1
    )
    return [n for n in near if _prints_as(n / whole, fraction, decimals)]


def _prints_as(value: float, printed: float, decimals: int) -> bool:
    unit = 10.0**-decimals
    # From half a unit below (rounded up) to one unit above (cut off): papers do both.
    return printed - unit / 2 - 1e-12 <= value < printed + unit - 1e-12

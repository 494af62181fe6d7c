"""Intervals and paired tests: DeLong, exact binomial tests, and the patient-cluster bootstrap.

Images of one patient are not independent, so whole patients are resampled, and variances are summed
over patients. A `Statistic` takes the weight of every image in every resample, (b, n), and returns
the statistic of each resample, (b,); nan where a resample leaves it undefined.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binomtest, norm, rankdata
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.multitest import multipletests

from arl.evaluation.metrics import Floats, Ints, check_classes, check_scores
from arl.evaluation.results import Interval

Statistic = Callable[[Floats], Floats]

_CELLS = 1 << 19  # weights held at a time: 4 MiB, which stays in the cache
_MAX_UNDEFINED = 0.05  # share of resamples without a value beyond which there is no interval
_GROUPS = 400  # groups of patients of the jackknife, where there are more patients
_ROUNDING = 1e-12
_POWER = 0.8  # of a detectable difference


# --- AUROC without resampling ----------------------------------------------------------------


def delong_covariance(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    """AUROCs (r,) of r readers' scores (r, n) on the same images, and their covariance (r, r).

    DeLong et al., Biometrics 44 (1988) 837, by midranks (Sun & Xu, IEEE SPL 21 (2014) 1389): O(n
    log n).

    Raises:
        ValueError: fewer than two images of a class; see also `metrics.check_scores`.
    """
    y, s = _readers(labels, scores)
    of_positive, of_negative = _placements(y, s)
    m, n = of_positive.shape[1], of_negative.shape[1]
    if min(m, n) < 2:
        raise ValueError(
            f"DeLong's variance needs 2 images of each class, got {m} positive and {n} negative"
        )
    covariance = np.atleast_2d(np.cov(of_positive)) / m + np.atleast_2d(np.cov(of_negative)) / n
    return of_positive.mean(axis=1), covariance


def _readers(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Labels (n,) of 0 and 1, and scores (r, n)."""
    s = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    for one in s:
        y, _ = check_scores(labels, one)
    check_classes(y, 2)
    return y, s


def _placements(y: Ints, s: Floats) -> tuple[Floats, Floats]:
    """Shares of negatives below each positive (r, m), of positives above each negative (r, n)."""
    positive, negative = s[:, y == 1], s[:, y == 0]
    m, n = positive.shape[1], negative.shape[1]
    # The rank among all images less the rank within the own class counts the other class below.
    # Midranks give a tie one half, as the AUROC does.
    ranks = rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    return (ranks[:, :m] - rankdata(positive, axis=1)) / n, 1 - (
        ranks[:, m:] - rankdata(negative, axis=1)
    ) / m


def clustered_covariance(
    labels: npt.ArrayLike, scores: npt.ArrayLike, clusters: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """AUROCs (r,) of r readers' scores (r, n) and their covariance (r, r) over patients.

    `clusters` (n,) names the patients.

    Obuchowski, Biometrics 53 (1997) 567: DeLong's components are summed over the images of a
    patient, who may have images of both classes. With one image a patient it is DeLong's.

    Raises:
        ValueError: fewer than two patients with a positive or with a negative image; see also
            `delong_covariance`.
    """
    y, s = _readers(labels, scores)
    _, patient = np.unique(np.asarray(clusters), return_inverse=True)
    of_positive, of_negative = _placements(y, s)
    areas = of_positive.mean(axis=1)
    from_positive, with_positive = _patient_sums(
        of_positive - areas[:, None], patient[y == 1], patient.max() + 1
    )
    from_negative, with_negative = _patient_sums(
        of_negative - areas[:, None], patient[y == 0], patient.max() + 1
    )
    if min(with_positive, with_negative) < 2:
        raise ValueError(
            f"the variance needs 2 patients of each class, got {with_positive} positive"
            f" and {with_negative} negative"
        )
    m, n, everyone = of_positive.shape[1], of_negative.shape[1], patient.max() + 1
    # A patient with images of both classes ties the two components together. DeLong's formula has
    # no such term, and is too short for such patients.
    both = from_positive @ from_negative.T * everyone / (everyone - 1) / (m * n)
    covariance = (
        from_positive @ from_positive.T * with_positive / (with_positive - 1) / m**2
        + from_negative @ from_negative.T * with_negative / (with_negative - 1) / n**2
        + both
        + both.T
    )
    return areas, covariance


def _patient_sums(components: Floats, patient: Ints, patients: int) -> tuple[Floats, int]:
    """Sums (r, patients) of components (r, n), and the number of patients who have one."""
    sums: Floats = np.stack(
        [np.bincount(patient, one, patients).astype(np.float64) for one in components]
    )
    return sums, len(np.unique(patient))


def delong_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, confidence: float = 0.95
) -> Interval:
    """AUROC with DeLong's interval on the logit scale, within 0..1; for independent images.

    A perfect AUROC has no variance to estimate; its limit is that of as many right disjoint pairs.

    Raises:
        ValueError: see `delong_covariance`.
    """
    areas, covariance = delong_covariance(labels, scores)
    positives = int(np.sum(np.asarray(labels) == 1))
    pairs = min(positives, len(np.asarray(labels)) - positives)
    return _logit_interval(float(areas[0]), float(np.sqrt(covariance[0, 0])), pairs, confidence)


def clustered_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, clusters: npt.ArrayLike, confidence: float = 0.95
) -> Interval:
    """AUROC with the interval of `clustered_covariance`, for several images a patient.

    Raises:
        ValueError: see `clustered_covariance`.
    """
    areas, covariance = clustered_covariance(labels, scores, clusters)
    error = float(np.sqrt(max(covariance[0, 0], 0)))
    return _logit_interval(float(areas[0]), error, disjoint_pairs(labels, clusters), confidence)


def _logit_interval(area: float, error: float, pairs: int, confidence: float) -> Interval:
    # The logit is infinite here, and the estimated variance is zero.
    if area in (0.0, 1.0):
        return Interval(area, *clopper_pearson(round(area) * pairs, pairs, confidence))
    if error < _ROUNDING:
        return _unseen_interval(area, pairs, confidence)
    z = float(norm.ppf((1 + confidence) / 2)) * error / (area * (1 - area))
    # On the logit scale the limits stay within 0 and 1, and are asymmetric near 1 as they must be.
    logit = np.log(area / (1 - area))
    return Interval(area, float(1 / (1 + np.exp(z - logit))), float(1 / (1 + np.exp(-z - logit))))


def _unseen_interval(value: float, units: float, confidence: float) -> Interval:
    """The interval of a metric in 0..1 whose data show no variation, e.g. of a constant score."""
    reach = unseen_loss(units, 1 - confidence)
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def delong_test(
    labels: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike
) -> tuple[float, float]:
    """AUROC(a) - AUROC(b) on the same images and DeLong's two-sided p value.

    Raises:
        ValueError: see `delong_covariance`.
    """
    areas, covariance = delong_covariance(
        labels, np.stack([np.asarray(scores_a), np.asarray(scores_b)])
    )
    return _contrast(areas, covariance, np.array([1.0, -1.0]))


def clustered_test(
    labels: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike, clusters: npt.ArrayLike
) -> tuple[float, float]:
    """Mean AUROC of a's scores (s, n) less that of b's (t, n), and the two-sided p value.

    A row of scores is one training; s and t of 1 compare two models. The variance is
    `clustered_covariance`'s.

    Raises:
        ValueError: see `clustered_covariance`.
    """
    a, b = np.atleast_2d(np.asarray(scores_a)), np.atleast_2d(np.asarray(scores_b))
    areas, covariance = clustered_covariance(labels, np.concatenate([a, b]), clusters)
    # The contrast compares means over trainings, so their errors are averaged with their
    # covariance.
    weights = np.r_[np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))]
    return _contrast(areas, covariance, weights)


def _contrast(areas: Floats, covariance: Floats, weights: Floats) -> tuple[float, float]:
    difference, variance = float(weights @ areas), float(weights @ covariance @ weights)
    # Identical readers have no variance: they are equal for certain, or differ for certain.
    if variance <= _ROUNDING**2:
        return difference, 1.0 if abs(difference) < _ROUNDING else 0.0
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


# --- exact binomial --------------------------------------------------------------------------


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact limits of a proportion (Clopper & Pearson, Biometrika 26 (1934) 404).

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    limits = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(limits.low), float(limits.high)


def clustered_proportion(
    right: npt.ArrayLike, clusters: npt.ArrayLike, confidence: float = 0.95
) -> Interval:
    """Proportion of right answers (n,) with Clopper and Pearson's limits over patients.

    `clusters` (n,) names the patients. The number of images is divided by the design effect and
    corrected for few patients (Korn & Graubard, Survey Methodology 24 (1998) 193); one image a
    patient gives the exact ones.

    Raises:
        ValueError: no images.
    """
    hits = np.asarray(right, dtype=np.float64)
    _, patient = np.unique(np.asarray(clusters), return_inverse=True)
    if not len(hits) or len(hits) != len(patient):
        raise ValueError(
            f"{len(hits)} answers on images of {len(patient)} patients are not a proportion"
        )
    proportion = float(hits.mean())
    alpha = (1 - confidence) / 2
    # Clopper and Pearson take whole trials. Beta quantiles extend their limits to the fractional
    # number of independent images that clustered ones are worth.
    worth = _worth(hits - proportion, patient, alpha)
    low, high = 0.0, 1.0
    if proportion > 0:
        low = beta.ppf(alpha, proportion * worth, (1 - proportion) * worth + 1)
    if proportion < 1:
        high = beta.ppf(1 - alpha, proportion * worth + 1, (1 - proportion) * worth)
    return Interval(proportion, float(low), float(high))


def _worth(deviations: Floats, patient: Ints, alpha: float) -> float:
    """The number of independent images that the patients are worth, 1 to all of them."""
    images, patients = len(patient), int(patient.max()) + 1
    if patients in (1, images):
        return float(patients)
    sums = np.bincount(patient, deviations)
    variance = patients / (patients - 1) * float(sums @ sums) / images**2
    if variance < _ROUNDING:
        return float(
            patients
        )  # all are right, or all wrong: nothing tells how alike a patient's images are
    # The ratio of the variance under independence to the variance over patients is the inverse of
    # the design effect.
    independent = 1 + float(deviations @ deviations) / images / variance
    # A variance from few patients is itself uncertain: Student's quantile is wider than the normal
    # one.
    few = (student.ppf(alpha, images - 1) / student.ppf(alpha, patients - 1)) ** 2
    return float(np.clip(independent * few, 1, images))


def sign_test(shares_a: npt.ArrayLike, shares_b: npt.ArrayLike) -> float:
    """Exact two-sided p value that a and b serve patients equally often better; shares (n,).

    With one image a patient it is McNemar's.
    """
    difference = np.asarray(shares_a, np.float64) - np.asarray(shares_b, np.float64)
    return mcnemar(difference > _ROUNDING, difference < -_ROUNDING)


def mcnemar(right_a: npt.ArrayLike, right_b: npt.ArrayLike) -> float:
    """Exact two-sided p value that a and b are right (n,) equally often; 1 if they never differ.

    Raises:
        ValueError: other lengths.
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"answers of shape {a.shape} and {b.shape} are not of the same images")
    # Only the discordant pairs count in the exact test; statsmodels takes the whole table.
    table = [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), int((~a & ~b).sum())]]
    return float(exact_mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm, Scand. J. Statist. 6 (1979) 65), in the order given.

    Raises:
        ValueError: a p value outside 0..1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values {list(p_values)} are not all within 0..1")
    # statsmodels fails on an empty list: a decision without slices corrects nothing.
    return [float(value) for value in multipletests(p, method="holm")[1]] if len(p) else []


# --- the patient-cluster bootstrap -----------------------------------------------------------


def auroc_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Weighted AUROC of labels 0 and 1 (n,) and scores (n,); ties count one half.

    Raises:
        ValueError: see `metrics.auroc`.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, 2)
    # The order is computed once for all resamples. Each resample then costs one cumulative sum
    # instead of a sort.
    order = np.argsort(s, kind="stable")
    positive, negative = order[y[order] == 1], order[y[order] == 0]
    below = np.searchsorted(s[negative], s[positive], "left")
    not_above = np.searchsorted(s[negative], s[positive], "right")
    ties = not np.array_equal(below, not_above)

    def statistic(weights: Floats) -> Floats:
        p = weights[:, positive]
        n = np.zeros((len(weights), len(negative) + 1))
        np.cumsum(weights[:, negative], axis=1, out=n[:, 1:])
        # Without ties the two counts are equal, and one look-up per positive image is saved.
        lower = (n[:, below] + n[:, not_above]) / 2 if ties else n[:, below]
        return _ratio(np.einsum("ij,ij->i", lower, p), p.sum(axis=1) * n[:, -1])

    return statistic


def macro_auroc_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Weighted `metrics.macro_auroc` of scores (n, k); nan where a resample misses a class.

    Raises:
        ValueError: see `metrics.macro_auroc`.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, s.shape[1])
    if s.shape[1] == 2:
        return auroc_statistic(y, s[:, 1])
    # One class against the rest, as `metrics.macro_auroc`.
    each = [auroc_statistic((y == c).astype(int), s[:, c]) for c in range(s.shape[1])]
    return lambda weights: np.asarray(np.mean([statistic(weights) for statistic in each], axis=0))


def mean_statistic(values: npt.ArrayLike, where: npt.ArrayLike | None = None) -> Statistic:
    """Weighted mean of values (n,), over the images `where` (n,) is true.

    Raises:
        ValueError: other lengths, or a value that is not finite.
    """
    v = np.asarray(values, dtype=np.float64)
    chosen = np.ones(len(v)) if where is None else np.asarray(where, dtype=np.float64)
    if v.shape != chosen.shape or v.ndim != 1:
        raise ValueError(
            f"values of shape {v.shape} and their selection of shape {chosen.shape} do not fit"
        )
    if not np.isfinite(v).all():
        raise ValueError(
            f"{int((~np.isfinite(v)).sum())} of {len(v)} values are not finite numbers"
        )
    return lambda weights: _ratio(weights @ (v * chosen), weights @ chosen)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


class Resampled(NamedTuple):
    """A statistic of the data, of each resample, and without each group of patients."""

    value: float
    draws: Floats  # (resamples,)
    left_out: Floats  # (groups,)

    def minus(self, other: "Resampled") -> "Resampled":
        """The difference of two statistics that saw the same resamples."""
        return Resampled(
            self.value - other.value, self.draws - other.draws, self.left_out - other.left_out
        )

    def defined(self) -> Floats:
        """The draws that have a value.

        Raises:
            ValueError: more than one draw in twenty has none.
        """
        values = self.draws[np.isfinite(self.draws)]
        missing = len(self.draws) - len(values)
        # Few undefined draws may be left out. Many are not random: they are the draws without the
        # rare class, and the interval of the rest would be too short.
        if missing > _MAX_UNDEFINED * len(self.draws):
            raise ValueError(
                f"{missing} of {len(self.draws)} resamples leave the statistic undefined:"
                " too few patients of a class"
            )
        return values

    def error(self) -> float:
        """Standard error."""
        return float(self.defined().std(ddof=1))

    def acceleration(self) -> float:
        """Skewness of the patients' influence, by the jackknife."""
        values = self.left_out[np.isfinite(self.left_out)]
        influence = values.mean() - values if len(values) else np.zeros(1)
        squares = float((influence**2).sum())
        return float((influence**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0

    def jackknife_error(self) -> float:
        """Standard error from the statistics without each group of patients."""
        values = self.left_out[np.isfinite(self.left_out)]
        return float(np.sqrt((len(values) - 1) * values.var())) if len(values) else float("inf")


def cluster_bootstrap(
    statistics: Sequence[Statistic], clusters: npt.ArrayLike, *, resamples: int, seed: int
) -> list[Resampled]:
    """Resample patients with replacement, each with all images.

    `clusters` (n,) names each image's patient.

    Every statistic sees the same resamples, so that differences are paired.

    Raises:
        ValueError: fewer than two patients, or fewer than two resamples.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2 or resamples < 2:
        raise ValueError(
            f"a bootstrap needs 2 patients and 2 resamples, got {len(names)} and {resamples}"
        )
    rng = np.random.default_rng(seed)
    draws = _by_parts(
        statistics, resamples, len(index), lambda _, size: _drawn(rng, len(names), size)[:, index]
    )
    # The jackknife leaves out groups of patients where there are many: the acceleration and the
    # error need no more.
    groups = min(len(names), _GROUPS)
    left_out = _by_parts(
        statistics,
        groups,
        len(index),
        lambda start, size: (index % groups != np.arange(start, start + size)[:, None]).astype(
            np.float64
        ),
    )
    whole = np.ones((1, len(index)))
    return [Resampled(float(s(whole)[0]), draws[i], left_out[i]) for i, s in enumerate(statistics)]


def _by_parts(
    statistics: Sequence[Statistic], rows: int, images: int, weights: Callable[[int, int], Floats]
) -> Floats:
    """Statistics (s, rows) of `weights(start, size)`, a few rows at a time."""
    # All weights at a time would take resamples x images x 8 bytes: 400 MB for 2,000 resamples of
    # 25,000 images, and miss the cache.
    step = max(1, _CELLS // images)
    parts = []
    for start in range(0, rows, step):
        part = weights(start, min(step, rows - start))
        parts.append(np.stack([statistic(part) for statistic in statistics]))
    return np.concatenate(parts, axis=1)


def _drawn(rng: np.random.Generator, clusters: int, resamples: int) -> Floats:
    """How often each of the clusters is drawn, (resamples, clusters)."""
    drawn = (
        rng.integers(clusters, size=(resamples, clusters))
        + np.arange(resamples)[:, None] * clusters
    )
    # One bincount over shifted indices counts all resamples, where a loop would call numpy once per
    # resample.
    counts = np.bincount(drawn.ravel(), minlength=resamples * clusters)
    return counts.reshape(resamples, clusters).astype(np.float64)


def bca_limits(resampled: Resampled, confidence: float = 0.95) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated interval (JASA 82 (1987) 171).

    Near an AUROC of 1 it halves the error of the percentile interval, which is too short there.

    Raises:
        ValueError: see `Resampled.defined`.
    """
    draws = resampled.defined()
    # Draws equal to the estimate count one half. Metrics of few patients take few values, and
    # either count alone would bias the limits.
    below = (np.mean(draws < resampled.value) + np.mean(draws <= resampled.value)) / 2
    # Clipped, since an estimate outside of all draws would have an infinite bias.
    bias = norm.ppf(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    z = bias + norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    levels = norm.cdf(bias + z / (1 - resampled.acceleration() * z))
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def bootstrap_interval(resampled: Resampled, units: int, confidence: float = 0.95) -> Interval:
    """The BCa interval; of draws that are all 0 or all 1 the exact limits of `units` trials.

    A perfect result on few patients and a constant score have a bootstrap interval of no width,
    which would claim certainty. The metric is within 0..1.

    Raises:
        ValueError: see `Resampled.defined`.
    """
    value = resampled.value
    if np.ptp(resampled.defined()) < _ROUNDING:
        if value in (0.0, 1.0) and units:
            return Interval(value, *clopper_pearson(round(value) * units, units, confidence))
        return _unseen_interval(value, units, confidence)
    return Interval(value, *bca_limits(resampled, confidence))


def disjoint_pairs(labels: npt.ArrayLike, clusters: npt.ArrayLike) -> int:
    """The largest number of disjoint pairs of a patient with a positive and one with a negative.

    So many independent trials of "the positive scores higher" lie in the data; an exact bound on
    the AUROC may rest on them.
    """
    y, names = np.asarray(labels), np.asarray(clusters)
    # A patient with images of both classes can serve one pair only, as one side or as both.
    positive, negative = set(names[y == 1]), set(names[y == 0])
    return min(len(positive), len(negative), len(positive | negative) // 2)


class Difference(NamedTuple):
    """challenger - champion on the same patients."""

    value: float
    low: float
    high: float
    p_worse: float  # one-sided, small: the challenger is worse
    error: float  # standard error
    unseen: float  # `unseen_loss` of these patients


def unseen_loss(units: float, alpha: float) -> float:
    """The loss by failures that `units` independent patients need not show: 1 - alpha^(1/units).

    A model that fails a share q of all patients fails none of them with probability (1 - q)^units;
    no resampling of the patients that are there can know of it.
    """
    return float(1 - alpha ** (1 / units)) if units > 0 else 1.0


def paired_difference(
    challenger: Resampled, champion: Resampled, *, units: int, confidence: float
) -> Difference:
    """Limits of the difference of two statistics that saw the same resamples of the same patients.

    The lower limit is the lowest of three: BCa; Student's t with the jackknife's error, as BCa is
        too short on few patients; and the `unseen_loss` below the difference. `units` are the
        independent trials among the patients.

    Raises:
        ValueError: see `Resampled.defined`.
    """
    return lower_bounded(challenger.minus(champion), units=units, confidence=confidence)


def lower_bounded(difference: Resampled, *, units: int, confidence: float) -> Difference:
    """As `paired_difference`, of one statistic: a difference, or a metric against zero.

    Raises:
        ValueError: see `Resampled.defined`.
    """
    draws, value = difference.defined(), difference.value
    unseen = unseen_loss(units, (1 - confidence) / 2)
    p_worse = (1 + int((draws >= 0).sum())) / (1 + len(draws))
    if np.ptp(draws) < _ROUNDING:
        return Difference(value, value - unseen, value + unseen, p_worse, 0.0, unseen)
    low, high = bca_limits(difference, confidence)
    reach = _student(units, confidence) * difference.jackknife_error()
    # The lowest of the three. Each one alone promotes too often somewhere: BCa on few patients,
    # Student's on skewed differences, and both on failures that no patient of the test set shows.
    low, high = min(low, value - reach, value - unseen), max(high, value + reach)
    # A metric within 0..1 cannot differ by more.
    low, high = max(low, -1.0), min(high, 1.0)
    return Difference(value, low, high, p_worse, difference.error(), unseen)


def over_seeds(interval: Interval, each: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Widen an interval over patients of a mean over seeds, so that it also holds for other seeds.

    The distances to the limits add as squares (MOVER: Zou and Donner, Stat. Med. 27 (2008) 1693),
    so the interval over patients keeps its skewness. The second distance is Student's, of the
    values `each` (R,) of the seeds. Seeds and patients interact in both parts, so the interval is
    rather too long than too short. The metric is within 0..1.
    """
    values = np.asarray(each, dtype=np.float64)
    if len(values) < 2 or interval.low is None or interval.high is None:
        return interval
    reach = _student(len(values), confidence) * float(values.std(ddof=1)) / np.sqrt(len(values))
    low = interval.value - np.hypot(interval.value - interval.low, reach)
    high = interval.value + np.hypot(interval.high - interval.value, reach)
    return Interval(interval.value, float(max(low, 0.0)), float(min(high, 1.0)))


def error_over_seeds(
    difference: Resampled, units: int, each: npt.ArrayLike = ()
) -> tuple[float, float]:
    """The standard error of a difference and its degrees of freedom (Satterthwaite).

    Args:
        each: the differences (R,) of the seeds, whose mean `difference` is. With fewer than two
            the error is that over patients alone.

    Raises:
        ValueError: see `Resampled.defined`.
    """
    values, error, freedom = np.asarray(each, float), difference.error(), float(max(units - 1, 1))
    if len(values) < 2:
        return error, freedom
    between = float(values.std(ddof=1)) / np.sqrt(len(values))
    total = float(np.hypot(error, between))
    if total < _ROUNDING:
        return total, freedom
    return total, total**4 / (error**4 / freedom + between**4 / (len(values) - 1))


def _student(units: float, confidence: float) -> float:
    return float(student.ppf((1 + confidence) / 2, max(units - 1, 1)))


def detectable_difference(error: float, confidence: float = 0.95, power: float = _POWER) -> float:
    """The true difference that a two-sided test finds with this power."""
    return float((norm.ppf((1 + confidence) / 2) + norm.ppf(power)) * error)


def student_limits(
    difference: Resampled, units: int, confidence: float = 0.95, each: npt.ArrayLike = ()
) -> tuple[float, float]:
    """Student's limits of a difference with the error of `error_over_seeds`, of `units` trials.

    Of two equally good models they hold 0 as often as they say, which BCa's do not
    (`benchmarks/coverage.py`).

    Raises:
        ValueError: see `Resampled.defined`.
    """
    error, freedom = error_over_seeds(difference, units, each)
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * error
    return difference.value - reach, difference.value + reach


def student_test(difference: Resampled, units: int, each: npt.ArrayLike = ()) -> float:
    """Two-sided p value of no difference, by the error and the units of `student_limits`.

    Raises:
        ValueError: see `Resampled.defined`.
    """
    error, freedom = error_over_seeds(difference, units, each)
    if error < _ROUNDING:
        return 1.0 if abs(difference.value) < _ROUNDING else 0.0
    return float(2 * student.sf(abs(difference.value) / error, freedom))


def power(error: float, margin: float, units: float, confidence: float = 0.95) -> float:
    """Probability that a model equal to the champion is non-inferior (normal approximation).

    The difference is N(0, error²), and the lower limit must exceed -margin; see
    `paired_difference`.
    """
    unseen = unseen_loss(units, (1 - confidence) / 2)
    if error == 0:
        return float(unseen < margin)
    return float(norm.cdf((margin - max(_student(units, confidence) * error, unseen)) / error))


def patients_needed(
    patients: int, units: int, error: float, margin: float, wanted: float, confidence: float = 0.95
) -> int:
    """Patients at which the `power` would be `wanted`, with patients like the ones there.

    The error falls with the square root of their number, and the independent `units` grow with it.

    Raises:
        ValueError: the margin is not positive, or there are no patients or units.
    """
    if margin <= 0:
        raise ValueError(f"a margin of {margin:g} can never be shown: it must be positive")
    if min(patients, units) < 1:
        raise ValueError(
            f"{patients} patients with {units} independent units say nothing about more of them"
        )

    def reached(number: int) -> bool:
        more = number / patients
        return power(error / np.sqrt(more), margin, units * more, confidence) >= wanted

    # Doubling, then bisection: the power grows with the number of patients, so about 2 log2(n)
    # evaluations find the number.
    limit = patients
    while not reached(limit):
        limit *= 2
    return bisect_left(range(limit), True, lo=1, key=reached)

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from arl.evaluation import statistics
from arl.evaluation.statistics import Resampled

# Hanley & McNeil, Radiology 143 (1982) 29, table 1: CT ratings 1..5 of 58 normal and 51 abnormal
# patients
NORMAL = np.repeat([1, 2, 3, 4, 5], [33, 6, 6, 11, 2])
ABNORMAL = np.repeat([1, 2, 3, 4, 5], [3, 2, 2, 11, 33])
CT_LABELS = np.r_[np.zeros(58, int), np.ones(51, int)]
CT_RATINGS = np.r_[NORMAL, ABNORMAL]


def readers(n: int = 89, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and correlated scores (2, n) with ties."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(int)
    shared = rng.normal(size=n) + labels
    return labels, (shared + rng.normal(size=(2, n))).round(1)


def slow_covariance(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """DeLong et al. 1988, eq. 3-6, by their sums over all pairs."""
    kernel = [
        [[float(p > q) + 0.5 * (p == q) for q in s[labels == 0]] for p in s[labels == 1]]
        for s in scores
    ]  # reader, positive, negative
    v10 = [[sum(row) / len(row) for row in reader] for reader in kernel]
    v01 = [
        [sum(row[j] for row in reader) / len(reader) for j in range(len(reader[0]))]
        for reader in kernel
    ]
    m, n, r = len(v10[0]), len(v01[0]), len(scores)
    area = [sum(v) / m for v in v10]
    s10 = [
        [
            sum((v10[a][i] - area[a]) * (v10[b][i] - area[b]) for i in range(m)) / (m - 1)
            for b in range(r)
        ]
        for a in range(r)
    ]
    s01 = [
        [
            sum((v01[a][j] - area[a]) * (v01[b][j] - area[b]) for j in range(n)) / (n - 1)
            for b in range(r)
        ]
        for a in range(r)
    ]
    return np.array(s10) / m + np.array(s01) / n


def test_delong_is_its_definition() -> None:
    labels, scores = readers()
    areas, covariance = statistics.delong_covariance(labels, scores)
    assert areas == pytest.approx([roc_auc_score(labels, s) for s in scores])
    assert covariance == pytest.approx(slow_covariance(labels, scores))


def slow_clustered_covariance(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray
) -> np.ndarray:
    """Obuchowski 1997, by sums over patients and over all pairs of images."""
    r, names = len(scores), sorted(set(patients))
    xs = [
        [[s[i] for i in np.flatnonzero((labels == 1) & (patients == p))] for p in names]
        for s in scores
    ]
    ys = [
        [[s[i] for i in np.flatnonzero((labels == 0) & (patients == p))] for p in names]
        for s in scores
    ]
    m, n = int((labels == 1).sum()), int((labels == 0).sum())
    i10, i01 = sum(bool(x) for x in xs[0]), sum(bool(y) for y in ys[0])

    def psi(x: float, y: float) -> float:
        return float(x > y) + 0.5 * (x == y)

    v10 = [
        [sum(psi(x, y) for x in mine for other in ys[a] for y in other) / n for mine in xs[a]]
        for a in range(r)
    ]
    v01 = [
        [sum(psi(x, y) for y in mine for other in xs[a] for x in other) / m for mine in ys[a]]
        for a in range(r)
    ]
    area = [sum(v) / m for v in v10]
    d10 = [[v - len(x) * area[a] for v, x in zip(v10[a], xs[a], strict=True)] for a in range(r)]
    d01 = [[v - len(y) * area[a] for v, y in zip(v01[a], ys[a], strict=True)] for a in range(r)]
    found = np.zeros((r, r))
    for a in range(r):
        for b in range(r):
            s10 = i10 / ((i10 - 1) * m) * sum(d10[a][i] * d10[b][i] for i in range(len(names)))
            s01 = i01 / ((i01 - 1) * n) * sum(d01[a][i] * d01[b][i] for i in range(len(names)))
            s11 = (
                len(names)
                / (len(names) - 1)
                * sum(d10[a][i] * d01[b][i] for i in range(len(names)))
            )
            s11_ = (
                len(names)
                / (len(names) - 1)
                * sum(d10[b][i] * d01[a][i] for i in range(len(names)))
            )
            found[a, b] = s10 / m + s01 / n + (s11 + s11_) / (m * n)
    return found


def test_clustered_delong_is_its_definition() -> None:
    """Patients of one to four images, some with images of both classes."""
    labels, scores = readers(53)
    patients = np.random.default_rng(3).integers(0, 19, 53)
    areas, covariance = statistics.clustered_covariance(labels, scores, patients)
    assert areas == pytest.approx([roc_auc_score(labels, s) for s in scores])
    assert covariance == pytest.approx(slow_clustered_covariance(labels, scores, patients))


def test_clustered_delong_of_one_image_a_patient_is_delongs() -> None:
    labels, scores = readers()
    one_each = np.random.default_rng(1).permutation(len(labels))
    covariance = statistics.clustered_covariance(labels, scores, one_each)[1]
    assert covariance == pytest.approx(statistics.delong_covariance(labels, scores)[1])
    assert statistics.clustered_test(labels, *scores, one_each) == pytest.approx(
        statistics.delong_test(labels, *scores)
    )
    assert vars(statistics.clustered_interval(labels, scores[0], one_each)) == pytest.approx(
        vars(statistics.delong_interval(labels, scores[0]))
    )


def test_copies_of_images_say_nothing_new() -> None:
    labels, scores = readers()
    patients = np.repeat(np.arange(len(labels)), 5)
    covariance = statistics.clustered_covariance(
        np.repeat(labels, 5), np.repeat(scores, 5, axis=1), patients
    )[1]
    assert covariance == pytest.approx(statistics.delong_covariance(labels, scores)[1])


def test_trainings_of_a_method_are_tested_by_their_mean() -> None:
    labels, scores = readers()
    other = readers(seed=4)[1]
    patients = np.arange(len(labels)) // 2
    difference, p_value = statistics.clustered_test(
        labels, [scores[0], other[0]], [scores[1], other[1]], patients
    )
    areas, covariance = statistics.clustered_covariance(
        labels, np.concatenate([scores, other]), patients
    )
    contrast = np.array([0.5, -0.5, 0.5, -0.5])
    assert difference == pytest.approx(contrast @ areas)
    error = np.sqrt(contrast @ covariance @ contrast)
    assert p_value == pytest.approx(2 * stats.norm.sf(abs(difference) / error))
    assert statistics.clustered_test(labels, scores[0], scores[0], patients) == (0.0, 1.0)


def test_clustered_delong_needs_patients_of_both_classes() -> None:
    labels, scores = readers()
    with pytest.raises(
        ValueError, match="2 patients of each class, got 1 positive and 59 negative"
    ):
        statistics.clustered_covariance(labels, scores, np.where(labels == 1, -1, np.arange(89)))
    with pytest.raises(ValueError, match="needs every class"):
        statistics.clustered_interval(np.ones(5, int), np.ones(5), np.arange(5))


def test_a_proportion_of_one_image_a_patient_is_clopper_and_pearsons() -> None:
    right = np.arange(83) % 7 > 0
    found = statistics.clustered_proportion(right, np.arange(83))
    assert (found.low, found.high) == pytest.approx(
        statistics.clopper_pearson(int(right.sum()), 83)
    )


def test_a_proportion_of_copies_is_that_of_the_patients() -> None:
    """Each patient five times: as wide as the patients' own interval, and a little wider for not
    being sure of it.
    """
    right = np.arange(83) % 7 > 0
    found = statistics.clustered_proportion(np.repeat(right, 5), np.repeat(np.arange(83), 5))
    low, high = statistics.clopper_pearson(int(right.sum()), 83)
    assert found.low < low
    assert high < found.high
    assert found.high - found.low == pytest.approx(high - low, rel=0.03)
    perfect = statistics.clustered_proportion(np.ones(50), np.repeat(np.arange(10), 5))
    assert (perfect.low, perfect.high) == pytest.approx(statistics.clopper_pearson(10, 10))
    with pytest.raises(ValueError, match="0 answers"):
        statistics.clustered_proportion([], [])


def test_a_difference_has_students_limits_and_p_value_with_the_bootstraps_error() -> None:
    draws = np.random.default_rng(0).normal(0.1, 0.05, 2000)
    found = Resampled(0.1, draws, np.zeros(3))
    low, high = statistics.student_limits(found, 13)
    error = draws.std(ddof=1)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 12, 0.1, error))
    assert statistics.student_test(found, 13) == pytest.approx(2 * stats.t.sf(0.1 / error, 12))
    assert statistics.student_test(Resampled(0.0, np.zeros(9), np.zeros(3)), 13) == 1.0
    assert statistics.student_test(Resampled(0.1, np.full(9, 0.1), np.zeros(3)), 13) == 0.0


def test_the_sign_test_of_one_image_a_patient_is_mcnemars() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(61) < 0.8, rng.random(61) < 0.6
    assert statistics.sign_test(a, b) == statistics.mcnemar(a, b)
    assert statistics.sign_test(a / 3, b / 3 + 1e-15) == statistics.mcnemar(a, b)


def test_delong_of_a_published_table() -> None:
    # Stata's manual, [R] roctab, gives 0.8932 with standard error 0.0307 for these ratings
    areas, covariance = statistics.delong_covariance(CT_LABELS, CT_RATINGS)
    assert areas[0] == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(0.0307, abs=5e-5)


def test_delongs_interval_is_that_of_the_logit() -> None:
    labels, scores = readers()
    found = statistics.delong_interval(labels, scores[0], 0.9)
    areas, covariance = statistics.delong_covariance(labels, scores[0])
    z = stats.norm.ppf(0.95) * np.sqrt(covariance[0, 0]) / (areas[0] * (1 - areas[0]))
    assert np.log([found.low / (1 - found.low), found.high / (1 - found.high)]) == pytest.approx(
        np.log(areas[0] / (1 - areas[0])) + np.array([-z, z])
    )


def test_a_perfect_auroc_is_not_certain() -> None:
    found = statistics.delong_interval([0] * 7 + [1] * 11, [0.1] * 7 + [0.9] * 11)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 7))
    worst = statistics.delong_interval([1] * 7 + [0] * 11, [0.1] * 7 + [0.9] * 11)
    assert (worst.value, worst.low, worst.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 7)))


def test_the_paired_test_is_that_of_the_covariance() -> None:
    labels, scores = readers()
    difference, p = statistics.delong_test(labels, scores[0], scores[1])
    areas, covariance = statistics.delong_covariance(labels, scores)
    z = (areas[0] - areas[1]) / np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert difference == pytest.approx(areas[0] - areas[1])
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert statistics.delong_test(labels, scores[0], scores[0]) == (0, 1)


def test_paired_delong_rejects_equal_readers_at_its_level() -> None:
    p = [
        statistics.delong_test(*(lambda y, s: (y, s[0], s[1]))(*readers(90, seed)))[1]
        for seed in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_clopper_pearson_of_published_examples() -> None:
    # Newcombe, Stat. Med. 17 (1998) 857, table I, method 5
    for (k, n), (low, high) in {
        (81, 263): (0.2527, 0.3676),
        (15, 148): (0.0578, 0.1617),
        (0, 20): (0.0, 0.1684),
        (1, 29): (0.0009, 0.1776),
    }.items():
        assert statistics.clopper_pearson(k, n) == (
            pytest.approx(low, abs=5e-5),
            pytest.approx(high, abs=5e-5),
        )


def test_mcnemar_by_its_binomial() -> None:
    for (b, c), p in {(7, 0): 0.0156, (8, 1): 0.0391, (10, 3): 0.0923, (12, 5): 0.1435}.items():
        right_a = np.r_[np.ones(b + 20), np.zeros(c)]
        right_b = np.r_[np.zeros(b), np.ones(20 + c)]
        assert statistics.mcnemar(right_a, right_b) == pytest.approx(p, abs=5e-5)
    assert statistics.mcnemar([1, 0, 1], [1, 0, 1]) == 1


def test_holm_of_a_published_example() -> None:
    # the four p values of Wikipedia's article on the method
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.9]) == [1, 1]
    assert statistics.holm([]) == []


def drawn(n: int, resamples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, size=(resamples, n)).astype(float)


def test_the_weighted_auroc_is_that_of_repeated_images() -> None:
    labels, scores = readers()
    weights = drawn(len(labels), 5)
    found = statistics.auroc_statistic(labels, scores[0])(weights)
    expected = [
        roc_auc_score(np.repeat(labels, w.astype(int)), np.repeat(scores[0], w.astype(int)))
        for w in weights
    ]
    assert found == pytest.approx(expected)


def test_the_weighted_macro_auroc_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    labels, scores = np.arange(61) % 3, rng.dirichlet([1, 1, 1], 61)
    weights = drawn(61, 5)
    expected = [
        np.mean([roc_auc_score(labels == c, scores[:, c], sample_weight=w) for c in range(3)])
        for w in weights
    ]
    assert statistics.macro_auroc_statistic(labels, scores)(weights) == pytest.approx(expected)


def test_a_resample_without_a_class_has_no_auroc() -> None:
    found = statistics.auroc_statistic([0, 0, 1], [0.1, 0.7, 0.5])(
        np.array([[1.0, 1, 1], [2, 1, 0]])
    )
    assert found[0] == 0.5
    assert np.isnan(found[1])


def test_the_weighted_mean_is_over_the_chosen_images() -> None:
    values, where = [1.0, 2, 4, 8], [True, True, False, True]
    found = statistics.mean_statistic(values, where)(
        np.array([[1.0, 1, 1, 1], [0, 3, 5, 1], [0, 0, 7, 0]])
    )
    assert found[:2] == pytest.approx([11 / 3, 14 / 4])
    assert np.isnan(found[2])


def test_patients_are_drawn_with_all_of_their_images() -> None:
    clusters = np.array(["b", "a", "b", "c", "a"])
    seen: list[np.ndarray] = []

    def spy(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights.sum(axis=1)

    statistics.cluster_bootstrap([spy], clusters, resamples=300, seed=0)
    resamples, left_out, once = seen[0], seen[-2], seen[-1]
    assert (resamples[:, [0, 1]] == resamples[:, [2, 4]]).all()
    assert (
        resamples[:, 0] + resamples[:, 1] + resamples[:, 3] == 3
    ).all()  # as many patients as there are
    assert left_out.tolist() == [[1, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 1, 1, 0, 1]]
    assert once.tolist() == [[1] * 5]


def test_the_same_seed_gives_the_same_draws() -> None:
    labels, scores = readers()
    statistic = statistics.auroc_statistic(labels, scores[0])
    runs = [
        statistics.cluster_bootstrap([statistic], np.arange(89), resamples=50, seed=s)[0].draws
        for s in (3, 3, 4)
    ]
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(2).exponential(size=43)
    resampled = statistics.cluster_bootstrap(
        [statistics.mean_statistic(values)], np.arange(43), resamples=20_000, seed=0
    )[0]
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    )
    limits = (expected.confidence_interval.low, expected.confidence_interval.high)
    assert statistics.bca_limits(resampled) == pytest.approx(limits, rel=0.01)
    assert resampled.error() == pytest.approx(expected.standard_error, rel=0.02)


def test_groups_stand_for_patients_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    accelerations = []
    for values in rng.exponential(size=(50, 240)):
        for groups in (240, 80):
            monkeypatch.setattr(statistics, "_GROUPS", groups)
            mean = statistics.mean_statistic(values)
            drawn = statistics.cluster_bootstrap([mean], np.arange(240), resamples=2, seed=0)
            accelerations.append(drawn[0].acceleration())
        assert accelerations[-2] == pytest.approx(stats.skew(values) / 6 / np.sqrt(240))
    assert np.mean(accelerations[1::2]) == pytest.approx(np.mean(accelerations[::2]), rel=0.15)


def test_a_perfect_share_has_the_exact_limits_of_its_patients() -> None:
    perfect = Resampled(1.0, np.ones(100), np.ones(9))
    found = statistics.bootstrap_interval(perfect, units=9)
    assert (found.low, found.high) == statistics.clopper_pearson(9, 9)


def covered(seed: int, patients: int = 50, images: int = 4) -> tuple[bool, bool]:
    """Whether the bootstrap over patients, and DeLong's interval over images, contain the true
    AUROC of 0.8.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), images)
    labels = patient % 2
    noise = np.sqrt(0.6) * rng.normal(size=patients)[patient] + np.sqrt(0.4) * rng.normal(
        size=len(patient)
    )
    scores = noise + labels * stats.norm.ppf(0.8) * np.sqrt(2)
    drawn = statistics.cluster_bootstrap(
        [statistics.auroc_statistic(labels, scores)], patient, resamples=300, seed=seed
    )
    low, high = statistics.bca_limits(drawn[0])
    naive = statistics.delong_interval(labels, scores)
    return low < 0.8 < high, naive.low < 0.8 < naive.high


def test_the_interval_over_patients_covers_and_that_over_images_does_not() -> None:
    bootstrap, naive = np.mean([covered(seed) for seed in range(150)], axis=0)
    assert 0.9 < bootstrap < 0.99
    assert naive < 0.88


def test_pairs_of_patients_are_used_once() -> None:
    assert statistics.disjoint_pairs([1, 1, 1, 0, 0], ["a", "a", "b", "c", "c"]) == 1
    assert statistics.disjoint_pairs([1, 0, 1, 0, 1, 0], ["a", "a", "b", "b", "c", "c"]) == 1
    assert statistics.disjoint_pairs([1, 0, 1, 0], ["a", "b", "c", "d"]) == 2


def difference(
    challenger: np.ndarray, champion: np.ndarray, labels: np.ndarray, **kwargs
) -> statistics.Difference:
    settings = {"units": 30, "resamples": 500} | kwargs
    both = (
        statistics.auroc_statistic(labels, challenger),
        statistics.auroc_statistic(labels, champion),
    )
    drawn = statistics.cluster_bootstrap(
        both, np.arange(len(labels)), resamples=settings["resamples"], seed=0
    )
    return statistics.paired_difference(*drawn, units=settings["units"], confidence=0.95)


def test_a_paired_difference_agrees_with_delong() -> None:
    labels, scores = readers(300)
    found = difference(scores[0], scores[1], labels, resamples=4000)
    areas, covariance = statistics.delong_covariance(labels, scores)
    assert found.value == pytest.approx(areas[0] - areas[1])
    assert found.error == pytest.approx(
        np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]), rel=0.05
    )
    assert found.low < found.value < found.high


def test_a_worse_challenger_has_a_small_p_value() -> None:
    labels, scores = readers(300)
    noise = np.random.default_rng(2).normal(size=300)
    assert difference(noise, scores[0], labels).p_worse < 0.01
    assert difference(scores[0], noise, labels).p_worse > 0.99


def test_two_perfect_models_are_not_surely_equal() -> None:
    labels = np.repeat([0, 1], 10)
    found = difference(labels + 0.1 * np.arange(20), 2.0 * labels, labels, units=10)
    assert (found.value, found.error, found.p_worse) == (0, 0, 1)
    assert found.low == pytest.approx(-(1 - 0.025 ** (1 / 10)))


def test_what_no_patient_need_show_is_the_rule_of_three() -> None:
    """Of 59 patients a model that fails 5 % of them fails none with a probability of just under 5
    %.
    """
    assert 0.95**59 < 0.05 < 0.95**58
    assert statistics.unseen_loss(59, 0.05) < 0.05 < statistics.unseen_loss(58, 0.05)
    assert statistics.unseen_loss(0, 0.05) == 1


@pytest.mark.parametrize("skew", [1, -1])
def test_the_lower_limit_is_the_lowest_of_three(skew: int) -> None:
    """BCa leans to the long tail, Student's t does not; few patients may hide a failure."""
    values, champion = (
        0.5 + skew * 0.1 * np.random.default_rng(0).exponential(size=31),
        np.full(31, 0.5),
    )
    both = [statistics.mean_statistic(v) for v in (values, champion)]
    drawn = statistics.cluster_bootstrap(both, np.arange(31), resamples=2000, seed=0)
    bca = statistics.bca_limits(drawn[0].minus(drawn[1]))[0]
    t = stats.ttest_1samp(values - champion, 0).confidence_interval(0.95).low
    assert (bca < t) == (skew < 0)
    limit = statistics.paired_difference(*drawn, units=31, confidence=0.95)
    unseen = statistics.unseen_loss(31, 0.025)
    assert limit.low == pytest.approx(limit.value - unseen)
    assert limit.low < min(bca, t)
    enough = statistics.paired_difference(*drawn, units=1_000_000, confidence=0.95)
    z = stats.norm.ppf(0.975) / stats.t.ppf(0.975, 30)  # t of so many units
    assert enough.low == pytest.approx(bca if skew < 0 else limit.value - z * (limit.value - t))


def test_the_error_of_a_jackknife_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=700)
    [drawn] = statistics.cluster_bootstrap(
        [statistics.mean_statistic(values)], np.arange(700), resamples=2, seed=0
    )
    assert len(drawn.left_out) == 400
    assert drawn.jackknife_error() == pytest.approx(values.std(ddof=1) / np.sqrt(700), rel=0.15)


@pytest.mark.parametrize("units", [75, 5000])
def test_power_is_the_share_of_equal_models_that_pass(units: int) -> None:
    error, margin = 0.0142, 0.05 if units == 75 else 0.02
    differences = np.random.default_rng(0).normal(0, error, 100_000)
    reach = stats.t.ppf(0.975, units - 1) * error
    lower_limits = differences - max(reach, statistics.unseen_loss(units, 0.025))
    assert statistics.power(error, margin, units) == pytest.approx(
        np.mean(lower_limits > -margin), abs=0.005
    )


@pytest.mark.parametrize(
    ("patients", "units", "error"), [(150, 75, 0.0142), (40, 20, 0.0), (31, 7, 0.09)]
)
def test_the_patients_needed_are_the_fewest_with_the_power(
    patients: int, units: int, error: float
) -> None:
    def power(number: int) -> float:
        more = number / patients
        return statistics.power(error / np.sqrt(more), 0.05, units * more)

    needed = statistics.patients_needed(patients, units, error, 0.05, 0.8)
    assert power(needed) >= 0.8 > power(needed - 1)


def test_two_thousand_resamples_of_two_thousand_images_take_about_a_second() -> None:
    labels, scores = readers(2000)
    start = time.process_time()
    statistics.cluster_bootstrap(
        [statistics.auroc_statistic(labels, scores[0])], np.arange(2000), resamples=2000, seed=0
    )
    assert time.process_time() - start < 3  # 0.5 s on an idle core


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="got 1 and 50"):
        statistics.cluster_bootstrap(
            [statistics.mean_statistic([1, 2])], ["a", "a"], resamples=50, seed=0
        )
    with pytest.raises(ValueError, match="got 2 and 1"):
        statistics.cluster_bootstrap(
            [statistics.mean_statistic([1, 2])], ["a", "b"], resamples=1, seed=0
        )
    with pytest.raises(ValueError, match="2 images of each class, got 1 positive and 2 negative"):
        statistics.delong_covariance([0, 0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="not a finite number"):
        statistics.delong_test([0, 0, 1, 1], [0.1, 0.2, 0.3, float("nan")], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="3 of 2 is not a proportion"):
        statistics.clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="not of the same images"):
        statistics.mcnemar([1], [1, 0])
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        statistics.holm([0.2, float("nan")])
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        statistics.mean_statistic([1, float("nan")])
    with pytest.raises(ValueError, match="do not fit"):
        statistics.mean_statistic([1, 2], [True])
    with pytest.raises(ValueError, match="6 of 100 resamples leave the statistic undefined"):
        statistics.bca_limits(
            Resampled(0.5, np.r_[np.full(6, np.nan), np.full(94, 0.5)], np.ones(2))
        )
    with pytest.raises(ValueError, match="must be positive"):
        statistics.patients_needed(100, 50, 0.01, 0, 0.8)
    with pytest.raises(ValueError, match="100 patients with 0 independent units"):
        statistics.patients_needed(100, 0, 0.01, 0.05, 0.8)


def test_a_constant_score_is_not_certain() -> None:
    labels, patients = np.tile([0, 1], 20), np.arange(40)
    constant = np.full(40, 0.3)
    reach = statistics.unseen_loss(20, 0.05)
    expected = (0.5, 0.5 - reach, 0.5 + reach)
    for interval in (
        statistics.clustered_interval(labels, constant, patients),
        statistics.delong_interval(labels, constant),
        statistics.bootstrap_interval(
            statistics.cluster_bootstrap(
                [statistics.auroc_statistic(labels, constant)], patients, resamples=50, seed=0
            )[0],
            20,
        ),
    ):
        assert (interval.value, interval.low, interval.high) == pytest.approx(expected)


def test_holm_and_mcnemar_are_statsmodels() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([]) == []
    assert statistics.mcnemar([1, 1, 1, 0], [1, 0, 0, 1]) == 1.0

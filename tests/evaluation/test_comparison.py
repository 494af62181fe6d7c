from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from arl.evaluation.comparison import (
    Replicate,
    compare,
    correct,
    metric_statistic,
    one_matrix,
    replicated,
)
from arl.evaluation.statistics import (
    bca_limits,
    cluster_bootstrap,
    delong_test,
    detectable_difference,
    mcnemar,
)


def table(seed: int, strength: float, patients: int = 97, fold: str = "a") -> pd.DataFrame:
    """Two images of each patient; labels and patients are the same for every seed."""
    label = np.repeat(np.random.default_rng(1).integers(0, 2, patients), 2)
    noise = np.random.default_rng(seed).normal(size=len(label))
    score = 1 / (1 + np.exp(-(strength * (label - 0.5) + noise)))
    names = [f"{fold}{number}" for number in range(patients) for _ in range(2)]
    ids = [f"{name}-{place}" for place, name in enumerate(names)]
    return pd.DataFrame(
        {"id": ids, "patient": names, "label": label, "score_0": 1 - score, "score_1": score}
    )


def run(methods: dict[str, list[Replicate]], metric: str = "auroc", reference: str | None = "good"):
    return compare(methods, metric, reference=reference, resamples=500, confidence=0.95, seed=0)


def test_a_figure_is_the_mean_over_replicates() -> None:
    tables = [table(seed, 1.0) for seed in (0, 1, 2)]
    found = run({"one": [Replicate(one, 0.5) for one in tables]}, reference=None)["one"]
    areas = [roc_auc_score(one["label"], one["score_1"]) for one in tables]
    assert found.interval.value == pytest.approx(np.mean(areas))
    assert found.each == pytest.approx(areas)
    assert found.spread == pytest.approx(np.std(areas, ddof=1))
    assert found.interval.low < found.interval.value < found.interval.high


def test_a_patient_in_every_replicate_is_one_patient() -> None:
    """Three copies of one replicate say nothing new; three folds of other patients do."""
    one = [Replicate(table(0, 1.0), 0.5)]
    copies = one * 3
    folds = [Replicate(table(seed, 1.0, fold=fold), 0.5) for seed, fold in enumerate("abc")]

    def width(replicates: list[Replicate]) -> float:
        interval = run({"x": replicates}, reference=None)["x"].interval
        return interval.high - interval.low

    assert width(copies) == pytest.approx(width(one), rel=1e-6)
    assert width(folds) == pytest.approx(width(one) / np.sqrt(3), rel=0.25)


def seeds_and_patients(
    rng: np.random.Generator, shift: float, patients: int = 60, seeds: int = 5
) -> list[Replicate]:
    """Dice of 0.5 + shift, with effects of seeds, of patients and of both together."""
    names = [f"p{number}" for number in range(patients)]
    of_patient, of_seed = rng.normal(0, 0.1, patients), rng.normal(0, 0.03, seeds)
    both = rng.normal(0, 0.05, (seeds, patients))
    return [
        Replicate(pd.DataFrame({"id": names, "patient": names, "dice": 0.5 + shift + dice}), None)
        for dice in of_seed[:, None] + of_patient + both
    ]


def test_intervals_hold_for_other_seeds_and_patients() -> None:
    """Against a simulation: how often intervals hold the truth that the trainings vary around."""
    rng, held, of_patients, no_difference, rejected = np.random.default_rng(3), 0, 0, 0, 0
    simulations = 300
    for _ in range(simulations):
        one, other = seeds_and_patients(rng, 0.0), seeds_and_patients(rng, 0.0)
        found = compare(
            {"good": one, "x": other},
            "dice",
            reference="good",
            resamples=200,
            confidence=0.95,
            seed=0,
        )
        interval, difference = found["x"].interval, found["x"].difference
        held += interval.low <= 0.5 <= interval.high
        no_difference += difference.low <= 0 <= difference.high
        rejected += found["x"].p_value < 0.05
        parts = [metric_statistic(replicate, "dice") for replicate in other]
        (drawn,) = cluster_bootstrap(
            [replicated(parts, [60] * 5)],
            np.tile(other[0].table["patient"], 5),
            resamples=200,
            seed=0,
        )
        low, high = bca_limits(drawn)
        of_patients += low <= 0.5 <= high
    print(held, of_patients, no_difference, rejected)
    assert 0.93 <= held / simulations <= 0.99
    assert of_patients / simulations < 0.88
    assert 0.93 <= no_difference / simulations <= 0.99
    # Student's interval and p value agree.
    assert rejected == simulations - no_difference


@pytest.mark.parametrize("metric", ["accuracy", "sensitivity", "specificity"])
def test_figures_of_the_confusion_matrix(metric: str) -> None:
    one = table(0, 1.0)
    called = one["score_1"] >= 0.4
    chosen = {
        "accuracy": one["label"] >= 0,
        "sensitivity": one["label"] == 1,
        "specificity": one["label"] == 0,
    }[metric]
    value = metric_statistic(Replicate(one, 0.4), metric)(np.ones((1, len(one))))[0]
    assert value == pytest.approx((called == one["label"])[chosen].mean())


def test_a_difference_is_paired_and_like_delongs_for_independent_images() -> None:
    good, bad = table(0, 2.0).iloc[::2], table(1, 0.7).iloc[::2]
    found = run({"good": [Replicate(good, 0.5)], "bad": [Replicate(bad, 0.5)]})["bad"]
    difference, p_value = delong_test(good["label"], good["score_1"], bad["score_1"])
    assert found.difference is not None
    assert found.difference.value == pytest.approx(difference)
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert p_value < 0.05
    assert found.check == pytest.approx(p_value)


def test_shares_are_checked_by_mcnemars_test() -> None:
    good, bad = table(0, 2.0).iloc[::2], table(1, 0.7).iloc[::2]
    methods = {"good": [Replicate(good, 0.5)], "bad": [Replicate(bad, 0.4)]}
    right = [
        (one["score_1"] >= cut) == (one["label"] == 1) for one, cut in ((good, 0.5), (bad, 0.4))
    ]
    assert run(methods, "accuracy")["bad"].check == mcnemar(*right)
    positive = good["label"] == 1
    assert run(methods, "sensitivity")["bad"].check == mcnemar(*(one[positive] for one in right))


def test_replicates_of_other_images_have_no_check_of_auroc() -> None:
    good = [Replicate(table(seed, 2.0, fold=fold), 0.5) for seed, fold in enumerate("ab")]
    bad = [Replicate(table(5 + seed, 0.7, fold=fold), 0.5) for seed, fold in enumerate("ab")]
    assert run({"good": good, "bad": bad})["bad"].check is None
    assert run({"good": good, "bad": bad}, "accuracy")["bad"].check is not None


def test_p_values_are_corrected_over_rows_and_tables() -> None:
    """Two tasks of two rows each are four comparisons."""
    tasks = [
        {
            "good": [Replicate(table(0, 1.2), 0.5)],
            "weak": [Replicate(table(5 + i, 0.7), 0.5)],
            "same": [Replicate(table(0, 1.2), 0.5)],
        }
        for i in range(2)
    ]
    plain = [run(methods) for methods in tasks]
    found = correct(plain)
    smallest = min(plain[i]["weak"].p_value for i in range(2))
    assert min(found[i]["weak"].corrected for i in range(2)) == pytest.approx(4 * smallest)
    assert [one["weak"].p_value for one in found] == [one["weak"].p_value for one in plain]
    assert found[0]["same"].corrected == 1.0
    assert min(one["weak"].check_corrected for one in found) == pytest.approx(
        4 * min(one["weak"].check for one in plain)
    )
    assert found[0]["good"].corrected is None
    assert list(found[1]) == ["good", "weak", "same"]


def test_no_difference_has_a_p_value_of_one() -> None:
    same = [Replicate(table(0, 1.0), 0.5)]
    assert run({"good": same, "copy": same})["copy"].p_value == 1.0


def test_perfect_methods_on_few_patients_claim_no_certainty() -> None:
    perfect = table(0, 1.0, patients=7)
    perfect["score_1"] = perfect["label"].astype(float)
    perfect["score_0"] = 1 - perfect["score_1"]
    found = run({"good": [Replicate(perfect, 0.5)], "copy": [Replicate(perfect, 0.5)]})
    assert found["good"].interval.value == 1.0
    assert found["good"].interval.low < 0.5
    copy = found["copy"]
    assert copy.difference is not None
    assert copy.detectable is not None
    assert copy.difference.value == 0
    assert copy.difference.high > 0.5
    assert copy.detectable > 0.5


def test_one_perfect_and_one_reversed_replicate_stay_within_a_share() -> None:
    right = table(0, 1.0, patients=7)
    right["score_1"] = right["label"].astype(float)
    right["score_0"] = 1 - right["score_1"]
    wrong = right.assign(score_0=right["score_1"], score_1=right["score_0"])
    interval = run({"one": [Replicate(right, 0.5), Replicate(wrong, 0.5)]}, reference=None)[
        "one"
    ].interval
    assert interval.value == 0.5
    assert 0 <= interval.low < 0.5 < interval.high <= 1


def test_methods_of_other_images_are_refused() -> None:
    with pytest.raises(
        ValueError, match="bad was not measured on the same images and replicates as good"
    ):
        run(
            {
                "good": [Replicate(table(0, 1.0), 0.5)],
                "bad": [Replicate(table(0, 1.0).iloc[1:], 0.5)],
            }
        )
    with pytest.raises(ValueError, match="unknown metric 'f1'"):
        run({"good": [Replicate(table(0, 1.0), 0.5)]}, metric="f1", reference=None)


def test_the_detectable_difference_is_found_with_the_power_it_says() -> None:
    error = 0.031
    rng = np.random.default_rng(0)
    estimates = rng.normal(detectable_difference(error), error, 20000)
    assert np.mean(np.abs(estimates / error) > NormalDist().inv_cdf(0.975)) == pytest.approx(
        0.8, abs=0.01
    )


# The paper's Table 2, fine-tuning: accuracy, sensitivity, specificity.
CLAIMED = {
    "MAE": (0.8309, 0.7636, 0.8778),
    "MoCo v3": (0.8591, 0.6897, 0.9674),
    "iBOT": (0.8802, 0.8347, 0.9140),
    "SigLIP2": (0.8934, 0.8200, 0.9468),
    "USFM": (0.8873, 0.8163, 0.9344),
    "Proposed": (0.9366, 0.9455, 0.9355),
}


@pytest.mark.parametrize("row", CLAIMED)
def test_no_test_set_of_the_papers_size_gives_its_figures(row: str) -> None:
    assert one_matrix(*CLAIMED[row], images=range(135, 161)) is None


def test_real_figures_come_from_their_matrix_rounded_or_cut() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        positives, negatives = (int(n) for n in rng.integers(20, 90, 2))
        right, spared = int(rng.integers(0, positives + 1)), int(rng.integers(0, negatives + 1))
        figures = [
            (right + spared) / (positives + negatives),
            right / positives,
            spared / negatives,
        ]
        for decimals in ((4, 4, 4), (4, 2, 3)):
            rounded = [round(x, places) for x, places in zip(figures, decimals, strict=True)]
            cut = [
                int(x * 10**places) / 10**places
                for x, places in zip(figures, decimals, strict=True)
            ]
            for printed in (rounded, cut):
                assert (
                    one_matrix(*printed, images=positives + negatives, decimals=decimals)
                    is not None
                )


def test_two_places_say_less_than_four() -> None:
    """Table 7 prints sensitivity and specificity with two places; here its row of MAE on
    ultrasound.
    """
    assert one_matrix(0.8943, 0.88, 0.91, range(135, 161)) is None
    assert one_matrix(0.8943, 0.88, 0.91, 142, (4, 2, 2)) == (
        49,
        56,
        78,
        86,
    )  # 0.875 is rounded, 0.907 is too

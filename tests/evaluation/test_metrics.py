import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    jaccard_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion

from arl.evaluation import metrics

RNG = np.random.default_rng(7)
N = 97


def binary(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with ties."""
    labels = (np.arange(n) % 3 == 0).astype(int)
    return labels, (RNG.normal(size=n) + labels).round(1)


def several(classes: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % classes
    logits = RNG.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_auroc_is_scikit_learns() -> None:
    labels, scores = binary()
    assert metrics.auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[labels == 1] for q in scores[labels == 0]]
    assert metrics.auroc(labels, scores) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("classes", [3, 5])
def test_macro_auroc_is_scikit_learns(classes: int) -> None:
    labels, scores = several(classes)
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert metrics.macro_auroc(labels, scores) == pytest.approx(expected)


def test_macro_auroc_of_two_classes_is_the_auroc_of_the_second() -> None:
    labels, scores = several(2)
    assert metrics.macro_auroc(labels, scores) == metrics.auroc(labels, scores[:, 1])


def test_one_confusion_matrix_gives_accuracy_sensitivity_and_specificity() -> None:
    labels, scores = binary()
    called = (scores >= 0.5).astype(int)
    matrix = metrics.confusion_matrix(labels, called, 2)
    assert (matrix == sklearn_confusion(labels, called)).all()
    assert metrics.accuracy(matrix) == pytest.approx(accuracy_score(labels, called))
    assert metrics.sensitivity(matrix) == pytest.approx(recall_score(labels, called))
    assert metrics.specificity(matrix) == pytest.approx(recall_score(1 - labels, 1 - called))


def test_a_confusion_matrix_keeps_truth_in_rows() -> None:
    matrix = metrics.confusion_matrix([0, 0, 0, 1, 2], [0, 1, 1, 1, 0], 3)
    assert matrix.tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]


def test_a_share_of_nothing_is_nan() -> None:
    assert np.isnan(metrics.sensitivity(metrics.confusion_matrix([0, 0], [0, 1], 2)))


def test_the_threshold_is_the_best_of_all() -> None:
    labels, scores = binary()
    chosen = metrics.youden_threshold(labels, scores)
    cuts = np.r_[np.unique(scores), np.unique(scores) + 0.05]
    best = max(balanced_accuracy_score(labels, scores >= cut) for cut in cuts)
    assert balanced_accuracy_score(labels, scores >= chosen) == pytest.approx(best)


def test_the_threshold_lies_between_two_scores() -> None:
    assert metrics.youden_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    assert metrics.youden_threshold([0, 1], [0.9, 0.1]) == pytest.approx(
        0.1
    )  # useless, but a number


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_is_scikit_learns(k: int) -> None:
    labels, scores = several(5)
    assert metrics.top_k(labels, scores, k) == pytest.approx(
        top_k_accuracy_score(labels, scores, k=k)
    )


def test_equal_scores_rank_by_class() -> None:
    assert metrics.top_k_hits([0, 1], [[0.5, 0.5], [0.5, 0.5]], 1).tolist() == [True, False]


def test_dice_and_iou_are_f1_and_jaccard_of_the_pixels() -> None:
    predicted, truth = RNG.random((11, 13)) > 0.6, RNG.random((11, 13)) > 0.4
    assert metrics.dice(predicted, truth) == pytest.approx(
        f1_score(truth.ravel(), predicted.ravel())
    )
    assert metrics.iou(predicted, truth) == pytest.approx(
        jaccard_score(truth.ravel(), predicted.ravel())
    )


def test_empty_masks_agree() -> None:
    nothing, something = np.zeros((3, 5)), np.ones((3, 5))
    for overlap in (metrics.dice, metrics.iou):
        assert overlap(nothing, nothing) == 1
        assert overlap(nothing, something) == 0
        assert overlap(something, something) == 1


@pytest.mark.parametrize("classes", [2, 4])
def test_brier_is_scikit_learns(classes: int) -> None:
    labels, scores = several(classes)
    expected = brier_score_loss(labels, scores[:, 1] if classes == 2 else scores)
    assert metrics.brier_losses(labels, scores).mean() == pytest.approx(expected)


def test_reliability_has_bins_of_equal_mass() -> None:
    table = metrics.reliability((RNG.random(151) < 0.4).astype(int), RNG.random(151))
    assert len(table.images) == metrics.CALIBRATION_BINS
    assert table.images.sum() == 151
    assert set(table.images) == {10, 11}
    assert (np.diff(table.probability) > 0).all()


def test_calibration_error_by_hand() -> None:
    outcomes, probabilities = [0, 1, 0, 1], [0.1, 0.2, 0.6, 0.9]
    # bins {.1, .2}: .15 against .5; {.6, .9}: .75 against .5
    assert metrics.expected_calibration_error(outcomes, probabilities, bins=2) == pytest.approx(
        (0.35 + 0.25) / 2
    )


def test_calibrated_probabilities_have_little_error() -> None:
    probabilities = RNG.random(20_000)
    outcomes = (RNG.random(20_000) < probabilities).astype(int)
    assert metrics.expected_calibration_error(outcomes, probabilities) < 0.02
    assert metrics.expected_calibration_error(outcomes, probabilities**3) > 0.1


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (
            [1, 1, 1],
            [0.1, 0.2, 0.3],
            r"no image of class \[0\] among 3: this metric needs every class",
        ),
        (
            [0, 1, 1],
            [0.1, float("nan"), 0.3],
            "1 of 3 images have a score that is not a finite number",
        ),
        ([0, 1, 1], [0.1, float("inf"), 0.3], "not a finite number"),
        ([0, 1], [0.1, 0.2, 0.3], r"\(2,\).*\(3,\)"),
        ([], [], "no images"),
        ([0, 2], [0.1, 0.2], r"\['2'\] are not class indices 0\.\.1"),
    ],
)
def test_what_has_no_auroc(labels: list[int], scores: list[float], message: str) -> None:
    for function in (metrics.auroc, metrics.youden_threshold):
        with pytest.raises(ValueError, match=message):
            function(labels, scores)


def test_macro_auroc_names_the_missing_class() -> None:
    with pytest.raises(ValueError, match=r"no image of class \[1\] among 3"):
        metrics.macro_auroc([0, 2, 2], np.full((3, 3), 1 / 3))


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(5, 3\)"):
        metrics.dice(np.ones((3, 5)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="top-4 of 3"):
        metrics.top_k_hits([0], [[0.2, 0.3, 0.5]], 4)
    with pytest.raises(ValueError, match=r"0\.\.3 do not fit 3 classes"):
        metrics.confusion_matrix([0, 1], [1, 3], 3)
    with pytest.raises(ValueError, match="not of the same images"):
        metrics.confusion_matrix([0, 1], [1], 3)
    with pytest.raises(ValueError, match=r"0\.2 to 1\.5 are not within 0\.\.1"):
        metrics.reliability([0, 1], [0.2, 1.5])


def test_rounding_goes_everywhere_and_hides_no_nan() -> None:
    value = {
        "a": [0.12345678, (np.float64(1 / 3), 2)],
        "b": float("nan"),
        "c": np.int64(3),
        "d": "x",
        "e": True,
    }
    assert metrics.rounded(value) == {
        "a": [0.123457, [0.333333, 2]],
        "b": None,
        "c": 3,
        "d": "x",
        "e": True,
    }


@pytest.mark.parametrize("order", ["by label", "interleaved", "random"])
def test_the_calibration_error_does_not_depend_on_the_order_of_ties(order: str) -> None:
    """A constant probability at its prevalence is perfectly calibrated."""
    y = np.repeat([0, 1], 50)
    if order == "interleaved":
        y = np.tile([0, 1], 50)
    elif order == "random":
        y = np.random.default_rng(0).permutation(y)
    assert metrics.expected_calibration_error(y, np.full(100, 0.5)) == 0
    table = metrics.reliability(y, np.full(100, 0.5))
    assert table.images.tolist() == [100]


def test_bins_keep_ties_together_and_are_equal_mass_without_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(97).round(int(rng.integers(1, 3)))
        order, starts = metrics.calibration_bins(p)
        parts = np.split(p[order], starts[1:])
        assert all(len(part) for part in parts)
        assert len(np.concatenate([np.unique(part) for part in parts])) == len(np.unique(p))
        y = rng.integers(0, 2, 97)
        shuffled = rng.permutation(97)
        assert metrics.expected_calibration_error(y, p) == pytest.approx(
            metrics.expected_calibration_error(y[shuffled], p[shuffled])
        )
    p = rng.permutation(np.linspace(0, 1, 100))
    order, starts = metrics.calibration_bins(p)
    sizes = [len(part) for part in np.array_split(np.arange(100), 15)]
    assert np.diff(np.append(starts, 100)).tolist() == sizes

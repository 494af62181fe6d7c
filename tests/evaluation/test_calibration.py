import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from arl.evaluation.calibration import (
    at_limit,
    chance_calibration_error,
    fit_temperature,
    with_temperature,
)
from arl.evaluation.metrics import expected_calibration_error


def drawn(
    count: int, temperature: float, classes: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the true probabilities, and scores whose logits are `temperature` times the
    true ones.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(count, classes))
    true = softmax(logits, axis=1)
    labels = np.array([rng.choice(classes, p=row) for row in true])
    return labels, softmax(logits * temperature, axis=1)


def test_two_classes_are_logistic_regression_without_intercept() -> None:
    labels, scores = drawn(7001, 2.5)
    difference = np.log(scores[:, 1] / scores[:, 0])
    model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10).fit(
        difference[:, None], labels
    )
    assert fit_temperature(labels, scores) == pytest.approx(1 / model.coef_[0, 0], rel=1e-2)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    labels, scores = drawn(20011, temperature, classes=3)
    assert fit_temperature(labels, scores) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("each", [3, 30])
def test_no_error_on_a_few_images_is_no_certainty(each: int) -> None:
    """Two classes apart, every score the same: the best temperature gives the softened share
    itself.
    """
    labels = np.repeat([0, 1], each)
    scores = np.where(labels[:, None] == [0, 1], 0.6, 0.4)
    calibrated = with_temperature(scores, fit_temperature(labels, scores))
    assert calibrated[0, 0] == pytest.approx((each + 1) / (each + 2), abs=1e-4)


def test_an_overconfident_model_becomes_calibrated_and_calls_the_same() -> None:
    labels, scores = drawn(5003, 4.0)
    calibrated = with_temperature(scores, fit_temperature(labels, scores))
    before = expected_calibration_error(labels, scores[:, 1])
    assert expected_calibration_error(labels, calibrated[:, 1]) < before / 3
    np.testing.assert_array_equal(calibrated.argmax(axis=1), scores.argmax(axis=1))


def test_a_temperature_of_one_changes_nothing() -> None:
    _, scores = drawn(11, 1.0, classes=5)
    np.testing.assert_allclose(with_temperature(scores, 1.0), scores, atol=1e-5)


def test_one_class_and_a_temperature_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no image of class \[1\]"):
        fit_temperature(np.zeros(7, int), np.full((7, 2), 0.5))
    with pytest.raises(ValueError, match="a temperature of 0 is not positive"):
        with_temperature(np.full((1, 2), 0.5), 0.0)


def test_a_temperature_at_the_end_of_its_range_is_known() -> None:
    """Certain scores that are wrong as often as right say nothing."""
    useless = np.tile([[1.0, 0.0], [0.0, 1.0]], (20, 1))
    y = np.tile([0, 1, 1, 0], 10)
    assert at_limit(fit_temperature(y, useless))
    rng = np.random.default_rng(0)
    p = rng.random(200)
    assert not at_limit(fit_temperature((rng.random(200) < p).astype(int), np.c_[1 - p, p]))


def test_chance_explains_the_error_of_a_calibrated_model() -> None:
    """One in twenty calibrated models has a greater error, by independent images."""
    rng = np.random.default_rng(0)
    p = rng.random(300)
    limit = chance_calibration_error(p, np.arange(300), level=0.05, draws=4000)
    errors = [expected_calibration_error(rng.random(300) < p, p) for _ in range(1000)]
    assert np.mean(np.array(errors) > limit) == pytest.approx(0.05, abs=0.025)
    of_patients = chance_calibration_error(p, np.arange(300) // 10, level=0.05)
    assert of_patients > limit

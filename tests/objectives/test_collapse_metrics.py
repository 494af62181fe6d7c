import math

import pytest
import torch

from arl.objectives.collapse_metrics import (
    clamped_fraction,
    collapse_warnings,
    feature_std,
    rankme,
    uniform_distance,
)


def _features(rows, width):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def test_rankme_of_chosen_singular_values() -> None:
    values = [5.0, 3.0, 2.0]
    left, _ = torch.linalg.qr(_features(11, 3))
    right, _ = torch.linalg.qr(_features(7, 3))
    probabilities = [value / 10 for value in values]
    expected = math.exp(-sum(p * math.log(p) for p in probabilities))
    assert math.isclose(
        rankme(left @ torch.diag(torch.tensor(values)) @ right.T), expected, rel_tol=1e-5
    )


def test_rankme_at_both_ends() -> None:
    assert math.isclose(rankme(torch.eye(13)), 13, rel_tol=1e-9)
    assert math.isclose(rankme(torch.ones(17, 5)), 1, rel_tol=1e-6)
    assert rankme(torch.zeros(3, 5)) == 1
    assert 28 < rankme(_features(5000, 29)) < 29


def test_feature_std() -> None:
    assert feature_std(_features(5000, 29)) == pytest.approx(29**-0.5, rel=0.01)
    assert feature_std(torch.ones(17, 5) * torch.arange(1, 18)[:, None]) == pytest.approx(
        0, abs=1e-12
    )


def test_uniform_predictions_are_at_distance_zero() -> None:
    assert uniform_distance(torch.tensor(8.317766), 4096) == pytest.approx(0, abs=1e-6)
    assert uniform_distance(torch.tensor(8.0), 4096) > 0


HEALTHY = {
    "feature_std": 0.08,
    "uniform_distance": 0.5,
    "d_accuracy": 0.8,
    "adv": 0.7,
    "lambda": 1.0,
    "lambda_clamped": 0.0,
}


def test_a_healthy_history_has_no_warning() -> None:
    assert collapse_warnings([HEALTHY | {"rankme": 60.0}] * 40, width=128) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rankme": 1.5}, "RankMe"),
        ({"feature_std": 0.001}, "standard deviation"),
        ({"uniform_distance": 0.0}, "uniform predictions"),
        ({"d_accuracy": 0.99}, "has won"),
        ({"d_accuracy": 0.5}, "has lost"),
        ({"lambda_clamped": 1.0}, "at its limit in 100%"),
    ],
)
def test_each_sign_of_trouble_has_its_warning(change: dict[str, float], word: str) -> None:
    warnings = collapse_warnings([HEALTHY | change] * 40, width=128)
    assert len(warnings) == 1
    assert word in warnings[0]


def test_a_discriminator_before_its_start_gives_no_warning() -> None:
    assert collapse_warnings([HEALTHY | {"d_accuracy": 0.99, "adv": 0.0}] * 40, width=128) == []


def test_only_steps_with_the_adversarial_loss_count_as_clamped() -> None:
    before, after = {"adv": 0.0, "lambda_clamped": 0.0}, {"adv": 0.7, "lambda_clamped": 1.0}
    assert clamped_fraction([before] * 9 + [after]) == 1
    assert clamped_fraction([before] * 9) == 0
    assert clamped_fraction([{"loss": 1.0}]) == 0

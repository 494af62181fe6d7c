import math

import pytest
import torch

from arl.objectives.collapse_metrics import feature_std, rankme, uniform_distance


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
    assert uniform_distance(8.317766, 4096) == pytest.approx(0, abs=1e-6)
    assert uniform_distance(8.0, 4096) > 0

import math

import pytest
import torch

from arl.objectives.centering import Centering, sinkhorn_knopp

M, K = 11, 7


def _logits(seed=0, rows=M):
    return torch.randn(rows, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _slow_sinkhorn(logits, temp, iterations):
    """As published with SwAV: a matrix of K rows and M columns, scaled in turn."""
    rows, columns = K, len(logits)
    q = [[math.exp(float(logits[m, k]) / temp) for m in range(columns)] for k in range(rows)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        q = [[value / sum(row) / rows for value in row] for row in q]
        sums = [sum(q[k][m] for k in range(rows)) for m in range(columns)]
        q = [[q[k][m] / sums[m] / columns for m in range(columns)] for k in range(rows)]
    return torch.tensor(
        [[q[k][m] * columns for k in range(rows)] for m in range(columns)], dtype=torch.float64
    )


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_the_published_loop(iterations) -> None:
    logits = _logits()
    expected = _slow_sinkhorn(logits, 0.3, iterations)
    assert torch.allclose(sinkhorn_knopp(logits, 0.3, iterations), expected, rtol=1e-10)


def test_sinkhorn_balances_rows_and_columns() -> None:
    assignment = sinkhorn_knopp(_logits(), 0.5, iterations=200)
    assert torch.allclose(assignment.sum(dim=1), torch.ones(M, dtype=torch.float64))
    assert torch.allclose(assignment.sum(dim=0), torch.full((K,), M / K, dtype=torch.float64))


def test_sinkhorn_does_not_overflow() -> None:
    logits = (200 * _logits()).half()  # exp(200 / 0.04) is infinite
    assignment = sinkhorn_knopp(logits, 0.04)
    assert assignment.dtype == torch.float32
    assert assignment.isfinite().all()
    assert torch.allclose(assignment.sum(dim=1), torch.ones(M))


def test_targets_are_centred_and_sharpened() -> None:
    centering = Centering(K, 0.9, "center").double()
    centering.center.copy_(_logits(seed=1, rows=1))
    logits = _logits()
    targets = centering(logits, 0.07)
    for m in range(M):
        weights = [
            math.exp((float(logits[m, k]) - float(centering.center[0, k])) / 0.07) for k in range(K)
        ]
        for k in range(K):
            assert math.isclose(float(targets[m, k]), weights[k] / sum(weights), rel_tol=1e-10)


def test_centre_is_a_moving_average() -> None:
    centering = Centering(K, 0.9, "center").double()
    expected = [0.0] * K
    for step in range(3):
        logits = _logits(seed=step, rows=5 + step)
        centering.update(logits)
        means = [sum(float(row[k]) for row in logits) / len(logits) for k in range(K)]
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, means, strict=True)]
    assert torch.allclose(
        centering.center[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-12
    )


def test_a_constant_teacher_becomes_uniform() -> None:
    centering = Centering(K, 0.5, "center")
    logits = torch.tensor([[3.0, -1.0, 0.5, 0.0, 2.0, 1.0, -2.0]]).expand(M, K)
    assert centering(logits, 0.04).max() > 0.99
    for _ in range(40):
        centering.update(logits)
    assert torch.allclose(centering(logits, 0.04), torch.full((M, K), 1 / K), atol=1e-5)


def test_centre_is_saved_and_sinkhorn_has_none_to_move() -> None:
    moved = Centering(K, 0.9, "center")
    moved.update(torch.ones(2, K))
    loaded = Centering(K, 0.9, "center")
    loaded.load_state_dict(moved.state_dict())
    assert torch.equal(loaded.center, moved.center)
    sinkhorn = Centering(K, 0.9, "sinkhorn")
    sinkhorn.update(torch.ones(2, K))
    assert (sinkhorn.center == 0).all()


def test_unknown_centering() -> None:
    with pytest.raises(
        ValueError, match="unknown centering 'none': expected one of center, sinkhorn"
    ):
        Centering(K, 0.9, "none")

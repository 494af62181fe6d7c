import math

import torch

from arl.objectives.contrastive import contrastive_loss

B, D = 5, 7
TEMPERATURE = 0.2


def _features(seed):
    return torch.randn(B, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _slow(queries, keys):
    """MoCo v3's contrastive loss of one direction as loops."""

    def cosine(a, b):
        return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))

    total = 0.0
    for i in range(B):
        similar = [math.exp(cosine(queries[i], keys[j]) / TEMPERATURE) for j in range(B)]
        total -= math.log(similar[i] / sum(similar))
    return 2 * TEMPERATURE * total / B


def test_equals_moco_v3() -> None:
    (q1, q2), (k1, k2) = (_features(0), _features(1)), (_features(2), _features(3))
    loss = contrastive_loss((q1, q2), (k1, k2), TEMPERATURE)
    assert math.isclose(float(loss), _slow(q1, k2) + _slow(q2, k1), rel_tol=1e-10)


def test_gradient_reaches_the_queries_only() -> None:
    q1, q2 = _features(0).requires_grad_(), _features(1).requires_grad_()
    keys = (_features(2).requires_grad_(), _features(3).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: contrastive_loss((a, b), keys), (q1, q2))
    contrastive_loss((q1, q2), keys).backward()
    assert keys[0].grad is None
    assert keys[1].grad is None


def test_collapsed_features_give_the_loss_of_chance() -> None:
    same = torch.ones(B, D)
    loss = contrastive_loss((same, same), (same, same), TEMPERATURE)
    assert math.isclose(float(loss), 2 * 2 * TEMPERATURE * math.log(B), rel_tol=1e-6)


def test_low_precision_features_give_a_float32_loss() -> None:
    features = (_features(0).bfloat16(), _features(1).bfloat16())
    assert contrastive_loss(features, features).dtype == torch.float32

import math

import pytest
import torch

from arl.objectives.adaptive_weight import adaptive_weight, gradient_norm
from arl.objectives.adversarial import generator_loss
from arl.objectives.mim import mim_loss

B, N, D = 2, 5, 7


def _losses():
    """A decoder's output with both losses; the adversarial one has a small discriminator."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(D, D, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(B, N, D, generator=generator, dtype=torch.float64)
    reconstruction = tokens @ weights
    target = torch.randn(B, N, D, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False], [False, True, True, False, True]])
    discriminator = torch.randn(D, 3, generator=generator, dtype=torch.float64)
    mim = mim_loss(reconstruction, target, mask)
    adversarial = generator_loss((reconstruction[mask] @ discriminator).tanh().sum(dim=-1))
    return mim, adversarial, reconstruction, target, mask, weights


def test_gradient_of_mim_by_hand() -> None:
    mim, _, reconstruction, target, mask, _ = _losses()
    errors = (reconstruction - target).detach()
    squared = 0.0
    for b in range(B):
        for n in range(N):
            for d in range(D):
                if mask[b, n]:
                    squared += (2 * float(errors[b, n, d]) / (int(mask.sum()) * D)) ** 2
    assert math.isclose(
        float(gradient_norm(mim, reconstruction)), math.sqrt(squared), rel_tol=1e-12
    )


def test_equation_6_equalises_the_gradients() -> None:
    mim, adversarial, reconstruction, *_ = _losses()
    weight = adaptive_weight(mim, adversarial, reconstruction, eps=1e-12)
    weighted = gradient_norm(weight * adversarial, reconstruction)
    assert math.isclose(float(weighted), float(gradient_norm(mim, reconstruction)), rel_tol=1e-9)


def test_epsilon_is_added_to_the_adversarial_norm() -> None:
    mim, adversarial, reconstruction, *_ = _losses()
    mim_norm, norm = (float(gradient_norm(loss, reconstruction)) for loss in (mim, adversarial))
    weight = adaptive_weight(mim, adversarial, reconstruction, eps=0.5)
    assert math.isclose(float(weight), mim_norm / (norm + 0.5), rel_tol=1e-12)


def test_carries_no_gradient_and_keeps_the_graph() -> None:
    mim, adversarial, reconstruction, *_, weights = _losses()
    weight = adaptive_weight(mim, adversarial, reconstruction)
    assert not weight.requires_grad
    (mim + weight * adversarial).backward()
    constant = weights.grad
    mim, adversarial, *_, weights = _losses()
    (mim + float(weight) * adversarial).backward()
    assert constant is not None
    assert weights.grad is not None
    assert torch.allclose(constant, weights.grad, rtol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 1e-12, 1e-8, 1.0, 1e6])
def test_the_weighted_gradient_is_bounded_by_that_of_the_reconstruction(factor: float) -> None:
    """Also for a discriminator whose gradient vanishes, so lambda needs no limit."""
    mim, adversarial, reconstruction, *_ = _losses()
    weight = adaptive_weight(mim, factor * adversarial, reconstruction)
    assert weight.isfinite()
    weighted = gradient_norm(weight * factor * adversarial, reconstruction)
    assert float(weighted) <= float(gradient_norm(mim, reconstruction)) * (1 + 1e-12)


def test_no_reconstruction_error_no_weight() -> None:
    mim, adversarial, reconstruction, *_ = _losses()
    assert float(adaptive_weight(0 * mim, adversarial, reconstruction)) == 0

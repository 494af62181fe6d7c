import math

import pytest
import torch

from arl.objectives.adversarial import discriminator_accuracy, discriminator_loss, generator_loss


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _logits(count: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(
        count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def test_equals_equation_4() -> None:
    real, fake = _logits(7, seed=0), _logits(5, seed=1)
    expected = -sum(math.log(_sigmoid(x)) for x in real.tolist()) / 7
    expected -= sum(math.log(1 - _sigmoid(x)) for x in fake.tolist()) / 5
    assert math.isclose(float(discriminator_loss(real, fake)), expected, rel_tol=1e-12)
    expected = -sum(math.log(_sigmoid(x)) for x in fake.tolist()) / 5
    assert math.isclose(float(generator_loss(fake)), expected, rel_tol=1e-12)


def test_gradients() -> None:
    real, fake = _logits(7, seed=0).requires_grad_(), _logits(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(discriminator_loss, (real, fake))
    assert torch.autograd.gradcheck(generator_loss, (fake,))


def test_an_undecided_discriminator() -> None:
    zero = torch.zeros(3)
    assert math.isclose(float(discriminator_loss(zero, zero)), 2 * math.log(2), rel_tol=1e-6)
    assert float(discriminator_accuracy(zero, zero)) == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_saturated_discriminator_still_teaches(dtype) -> None:
    fake = torch.full((3,), -1000.0, dtype=dtype, requires_grad=True)
    loss = generator_loss(fake)
    loss.backward()
    assert math.isclose(float(loss.detach()), 1000, rel_tol=1e-6)
    assert fake.grad is not None
    assert torch.allclose(fake.grad.float(), torch.full((3,), -1 / 3), rtol=1e-2)


def test_accuracy_counts_both_sides_alike() -> None:
    real, fake = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 2.0])
    assert float(discriminator_accuracy(real, fake)) == 0.5 * (3 / 4 + 1 / 2)

import math

import pytest
import torch

from arl.objectives.mim import denormalize_patches, mim_loss, normalize_patches

B, N, D = 3, 7, 5


def _case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(B, N, D, generator=generator, dtype=torch.float64).to(dtype)
    target = torch.randn(B, N, D, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.rand(B, N, generator=generator) < 0.6
    return pred, target, mask


def _slow(pred, target, mask):
    """Eq. 3 as loops, divided by the values of a patch."""
    total, masked = 0.0, 0
    for b in range(B):
        for n in range(N):
            if mask[b, n]:
                total += sum((float(target[b, n, d]) - float(pred[b, n, d])) ** 2 for d in range(D))
                masked += 1
    return total / masked / D


def test_equals_equation_3() -> None:
    pred, target, mask = _case()
    assert math.isclose(
        float(mim_loss(pred, target, mask)), _slow(pred, target, mask), rel_tol=1e-14
    )


def test_gradient() -> None:
    pred, target, mask = _case()
    assert torch.autograd.gradcheck(lambda p: mim_loss(p, target, mask), pred.requires_grad_())


@pytest.mark.parametrize("visible", [1e3, math.nan, math.inf])
def test_visible_patches_change_nothing(visible) -> None:
    pred, target, mask = _case()
    pred.requires_grad_()
    expected = mim_loss(pred, target, mask)
    (expected_gradient,) = torch.autograd.grad(expected, pred)
    other_target, other_pred = target.clone(), pred.detach().clone()
    other_target[~mask] = visible
    other_pred[~mask] = visible
    loss = mim_loss(other_pred.requires_grad_(), other_target, mask)
    (gradient,) = torch.autograd.grad(loss, other_pred)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, expected_gradient)
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype) -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    pred = torch.full((2, 3, 11), 300.0, dtype=dtype).requires_grad_()  # 300^2 overflows float16
    loss = mim_loss(pred, torch.zeros_like(pred), mask)
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isclose(float(loss.detach()), float(pred[0, 0, 0].detach()) ** 2, rel_tol=1e-6)
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


def test_nothing_masked_is_an_error() -> None:
    pred, target, _ = _case()
    with pytest.raises(ValueError, match="none of the 21 patches is masked"):
        mim_loss(pred, target, torch.zeros(B, N, dtype=torch.bool))


def test_shapes_must_agree() -> None:
    pred, target, mask = _case()
    with pytest.raises(ValueError, match=r"\(3, 7, 5\), \(3, 7, 4\)"):
        mim_loss(pred, target[:, :, :4], mask)
    with pytest.raises(ValueError, match=r"mask \(B, N\)"):
        mim_loss(pred, target, mask.T)


def test_normalised_patches() -> None:
    patches = torch.randn(B, N, 257, dtype=torch.float64) * 3 + 2
    normalised = normalize_patches(patches)
    assert torch.allclose(
        normalised.patches.mean(dim=-1), torch.zeros(B, N, dtype=torch.float64), atol=1e-12
    )
    assert torch.allclose(
        normalised.patches.var(dim=-1), torch.ones(B, N, dtype=torch.float64), atol=1e-5
    )
    assert torch.allclose(denormalize_patches(*normalised), patches, atol=1e-12)


def test_a_black_patch_is_normalised_to_zero() -> None:
    normalised = normalize_patches(torch.zeros(1, 2, 11, dtype=torch.bfloat16))
    assert (normalised.patches == 0).all()
    assert (denormalize_patches(*normalised) == 0).all()

import pytest
import torch

from arl.tasks.losses import dice_loss


def test_dice_loss_equals_the_definition() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 5, 7, dtype=torch.float64)
    target = (torch.rand(3, 1, 5, 7) > 0.5).double()
    expected = []
    for image in range(3):
        p = 1 / (1 + torch.exp(-logits[image]))
        overlap = sum(
            float(p[0, i, j] * target[image, 0, i, j]) for i in range(5) for j in range(7)
        )
        expected.append(1 - (2 * overlap + 1) / (float(p.sum() + target[image].sum()) + 1))
    assert float(dice_loss(logits, target)) == pytest.approx(sum(expected) / 3)


def test_a_perfect_mask_has_no_dice_loss() -> None:
    target = torch.zeros(2, 1, 5, 5)
    target[:, :, 1:3] = 1
    assert float(dice_loss((target - 0.5) * 200, target)) == pytest.approx(0, abs=1e-6)

"""Losses of tasks that PyTorch does not have."""

from torch import Tensor


def dice_loss(logits: Tensor, target: Tensor, eps: float = 1.0) -> Tensor:
    """Mean of 1 - soft Dice over images and structures; logits and target are (B, K, H, W)."""
    probability = logits.sigmoid().flatten(2)
    target = target.flatten(2)
    overlap = (probability * target).sum(2)
    return (1 - (2 * overlap + eps) / (probability.sum(2) + target.sum(2) + eps)).mean()

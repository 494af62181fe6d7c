"""Masked image modelling, eq. 3."""

from typing import NamedTuple

import torch
from torch import Tensor

_EPS = 1e-6  # added to the variance of a patch, as in MAE


def mim_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Compute L_MIM, eq. 3: the squared error averaged over the masked patches.

    As in MAE, the squared L2 norm of a patch is divided by its number of values D, so that the
    loss does not depend on the patch size. Eq. 3 itself is D times this. The precision is at least
    float32. The values of visible patches have no effect, even NaN.

    Args:
        pred: reconstruction, (B, N, D).
        target: true patches, (B, N, D).
        mask: bool (B, N), True where a patch is masked.

    Raises:
        ValueError: the shapes do not agree, or no patch is masked (on a CPU; NaN on a GPU).
    """
    if pred.shape != target.shape or mask.shape != pred.shape[:2]:
        raise ValueError(
            f"L_MIM needs pred and target (B, N, D) and mask (B, N), "
            f"got {tuple(pred.shape)}, {tuple(target.shape)}, {tuple(mask.shape)}"
        )
    masked = mask.sum()
    # Only a CPU tells its values without a wait. A GPU would stall in each step.
    if mask.device.type == "cpu" and masked == 0:
        raise ValueError(f"L_MIM is undefined: none of the {mask.numel()} patches is masked")
    precision = torch.promote_types(pred.dtype, torch.float32)
    hidden = mask.bool().unsqueeze(-1)
    error = torch.where(hidden, pred.to(precision) - target.to(precision), 0)
    return error.square().sum() / (masked * pred.shape[-1])


class NormalizedPatches(NamedTuple):
    """Patches with zero mean and unit variance, and their mean and deviation."""

    patches: Tensor  # (B, N, D)
    mean: Tensor  # (B, N, 1)
    std: Tensor  # (B, N, 1)


def normalize_patches(patches: Tensor) -> NormalizedPatches:
    """Normalise every patch (..., D) by its own mean and variance: MAE's norm_pix_loss target."""
    precision = torch.promote_types(patches.dtype, torch.float32)
    variance, mean = torch.var_mean(patches.to(precision), dim=-1, keepdim=True)
    std = (variance + _EPS).sqrt()
    return NormalizedPatches((patches - mean) / std, mean, std)


def denormalize_patches(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo `normalize_patches`: a discriminator of pixels must not see normalised patches."""
    return patches * std + mean

"""Which patches are hidden, as functions of given noise: where randomness comes from is the caller's."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Masking(NamedTuple):
    """Visible and hidden patches of a batch."""

    ids_keep: Tensor  # long (B, K): indices of the visible patches, ascending
    mask: Tensor  # bool (B, N): True = masked


def num_masked(num_patches: int, mask_ratio: float) -> int:
    """Patches hidden of each image.

    Raises:
        ValueError: the ratio hides all patches or none.
    """
    hidden = round(num_patches * mask_ratio)
    if not 0 < hidden < num_patches:
        raise ValueError(
            f"mask_ratio {mask_ratio} hides {hidden} of {num_patches} patches; some must stay, some must go"
        )
    return hidden


def _hide(score: Tensor, hidden: int) -> Masking:
    """Hide the `hidden` patches of highest score (B, N) of each image; of equal scores the later ones."""
    visible = score.shape[1] - hidden
    ids_keep = score.argsort(dim=1, stable=True)[:, :visible].sort(dim=1).values
    mask = torch.ones_like(score, dtype=torch.bool).scatter_(1, ids_keep, False)
    return Masking(ids_keep, mask)


def random_masking(noise: Tensor, mask_ratio: float) -> Masking:
    """MAE's random masking: each image keeps the patches of lowest noise, the same number for each image.

    Args:
        noise: uniform in [0, 1), (B, N).
        mask_ratio: share of the patches that is hidden.

    Raises:
        ValueError: the ratio hides all patches or none.
    """
    return _hide(noise, num_masked(noise.shape[1], mask_ratio))


def _rectangles(noise: Tensor, grid: tuple[int, int], budget: Tensor, aspect: float) -> Tensor:
    """One random rectangle per image as bool (B, H, W): `noise` (B, 4), `budget` (B,) patches at most."""
    area = 4 + noise[:, 0] * (budget - 4).clamp(min=0)  # BEiT: at least 4 patches
    ratio = ((2 * noise[:, 1] - 1) * math.log(aspect)).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).round().clamp(min=1)
    inside = []
    for axis, length in enumerate(grid):
        side = sides[:, axis].clamp(max=length)
        first = (noise[:, 2 + axis] * (length - side + 1)).floor()
        position = torch.arange(length, device=noise.device)
        inside.append((position >= first[:, None]) & (position < (first + side)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def block_masking(
    block_noise: Tensor,
    noise: Tensor,
    grid: tuple[int, int],
    mask_ratio: float,
    *,
    aspect: float = 10 / 3,
) -> Masking:
    """BEiT's block-wise masking, as in iBOT: rectangles until the number is reached, all images at once.

    A rectangle that would hide too many patches is not used. What the T tries leave open is filled
    with single patches of highest noise, so that every image hides exactly the same number.

    Args:
        block_noise: uniform in [0, 1), (B, T, 4), T tries; 10 are plenty.
        noise: uniform in [0, 1), (B, H * W).
        grid: (H, W) in patches.
        mask_ratio: share of the patches that is hidden.
        aspect: longest side ratio of a rectangle, 1 / 0.3 in BEiT.

    Raises:
        ValueError: the grid does not fit the noise, or the ratio hides all patches or none.
    """
    if noise.shape[1] != math.prod(grid):
        raise ValueError(
            f"noise of {noise.shape[1]} patches does not fit a grid of {grid[0]} x {grid[1]}"
        )
    hidden = num_masked(noise.shape[1], mask_ratio)
    blocks = torch.zeros_like(noise, dtype=torch.bool)
    for tries in block_noise.unbind(dim=1):
        budget = (hidden - blocks.sum(dim=1)).to(noise.dtype)
        candidate = blocks | _rectangles(tries, grid, budget, aspect).flatten(1)
        blocks = torch.where((candidate.sum(dim=1) <= hidden)[:, None], candidate, blocks)
    return _hide(blocks + noise, hidden)

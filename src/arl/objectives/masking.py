"""Masks of patches, as functions of noise that the caller draws."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Masking(NamedTuple):
    """Visible and masked patches of a batch."""

    ids_keep: Tensor  # long (B, K): indices of the visible patches, ascending
    mask: Tensor  # bool (B, N): True = masked

    @property
    def ids_masked(self) -> Tensor:
        """Return the indices of the masked patches, ascending: long (B, N - K)."""
        masked = self.mask.shape[1] - self.ids_keep.shape[1]
        # `nonzero` would make the host wait for a GPU, because its result has no fixed size.
        return self.mask.argsort(dim=1, descending=True, stable=True)[:, :masked]

    def first(self, images: int) -> "Masking":
        """Return the masking of the first images of the batch."""
        return Masking(self.ids_keep[:images], self.mask[:images])


def num_masked(num_patches: int, mask_ratio: float) -> int:
    """Return the number of masked patches of each image.

    Raises:
        ValueError: the ratio masks all patches or none.
    """
    # A fixed number for all images, so that the visible tokens of a batch form one tensor.
    masked = round(num_patches * mask_ratio)
    if not 0 < masked < num_patches:
        raise ValueError(
            f"mask_ratio {mask_ratio} masks {masked} of {num_patches} patches: "
            "it must leave some visible and mask some"
        )
    return masked


def _mask_highest(score: Tensor, masked: int) -> Masking:
    """Mask the `masked` patches of highest score (B, N) of each image; on ties the later ones."""
    visible = score.shape[1] - masked
    ids_keep = score.argsort(dim=1, stable=True)[:, :visible].sort(dim=1).values
    mask = torch.ones_like(score, dtype=torch.bool).scatter_(1, ids_keep, False)
    return Masking(ids_keep, mask)


def random_masking(noise: Tensor, mask_ratio: float) -> Masking:
    """MAE's random masking: each image keeps the same number of patches, those of lowest noise.

    Args:
        noise: uniform in [0, 1), (B, N).
        mask_ratio: fraction of the patches that are masked.

    Raises:
        ValueError: the ratio masks all patches or none.
    """
    return _mask_highest(noise, num_masked(noise.shape[1], mask_ratio))


def _rectangles(noise: Tensor, grid: tuple[int, int], budget: Tensor, aspect: float) -> Tensor:
    """Draw one rectangle per image, bool (B, H, W), from `noise` (B, 4).

    It has at most `budget` (B,) patches.
    """
    # As in BEiT, a rectangle has at least 4 patches.
    area = 4 + noise[:, 0] * (budget - 4).clamp(min=0)
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
    """BEiT's block-wise masking, as in iBOT, for all images at once.

    Rectangles are added until the number of masked patches is reached; a rectangle that exceeds
    it is discarded. After T tries, single patches of highest noise fill the rest, so that every
    image has the same number of masked patches.

    Args:
        block_noise: uniform in [0, 1), (B, T, 4), for T tries; 10 suffice.
        noise: uniform in [0, 1), (B, H * W).
        grid: (H, W) in patches.
        mask_ratio: fraction of the patches that are masked.
        aspect: greatest side ratio of a rectangle, 1 / 0.3 in BEiT.

    Raises:
        ValueError: the grid does not fit the noise, or the ratio masks all patches or none.
    """
    if noise.shape[1] != math.prod(grid):
        raise ValueError(
            f"noise of {noise.shape[1]} patches does not fit a grid of {grid[0]} x {grid[1]}"
        )
    masked = num_masked(noise.shape[1], mask_ratio)
    blocks = torch.zeros_like(noise, dtype=torch.bool)
    for tries in block_noise.unbind(dim=1):
        budget = (masked - blocks.sum(dim=1)).to(noise.dtype)
        candidate = blocks | _rectangles(tries, grid, budget, aspect).flatten(1)
        blocks = torch.where((candidate.sum(dim=1) <= masked)[:, None], candidate, blocks)
    return _mask_highest(blocks + noise, masked)

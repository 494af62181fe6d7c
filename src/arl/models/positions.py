"""Sine-cosine position embeddings on a grid of patches (MAE, MoCo v3)."""

import torch
from torch import Tensor


def sincos_positions(dim: int, grid_size: tuple[int, int]) -> Tensor:
    """Compute position embeddings (height * width, dim).

    The first half of the channels encodes the column, the second half the row.

    Raises:
        ValueError: dim is not divisible by 4.
    """
    if dim % 4:
        raise ValueError(f"sine-cosine positions need a dimension divisible by 4, got {dim}")
    rows, columns = torch.cartesian_prod(*(torch.arange(side) for side in grid_size)).unbind(-1)
    return torch.cat([_waves(columns, dim // 4), _waves(rows, dim // 4)], dim=1)


def _waves(position: Tensor, count: int) -> Tensor:
    frequency = 10000.0 ** -(torch.arange(count, dtype=torch.float64) / count)
    angle = position.double().unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()

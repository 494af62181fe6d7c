"""Sums, maxima and rows over the ranks of torch.distributed; the identity when it is not initialised.

Statistics only: no gradient flows through any of them.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks, 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of every rank's tensor, of the same shape."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


@torch.no_grad()
def max_over_ranks(tensor: Tensor) -> Tensor:
    """Element-wise maximum of every rank's tensor, of the same shape."""
    largest = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


@torch.no_grad()
def rows_of_all_ranks(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenate the rows (M, ...) of all ranks, in rank order, and say where this rank's begin.

    Every rank must bring the same number of rows.
    """
    if world_size() == 1:
        return rows.detach(), 0
    gathered = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(gathered, rows.detach().contiguous())
    return torch.cat(gathered), _rank() * len(rows)

"""Sums, maxima and rows over the ranks of torch.distributed, without gradients.

Without an initialised process group, each function is the identity.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum the tensors of all ranks, which have the same shape."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


@torch.no_grad()
def max_over_ranks(tensor: Tensor) -> Tensor:
    """Return the element-wise maximum of the tensors of all ranks, which have the same shape."""
    largest = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


@torch.no_grad()
def rows_of_all_ranks(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenate the rows (M, ...) of all ranks, in rank order.

    Every rank must have the same number of rows.

    Returns:
        The rows, and the index of this rank's first row.
    """
    if world_size() == 1:
        return rows.detach(), 0
    gathered = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(gathered, rows.detach().contiguous())
    return torch.cat(gathered), dist.get_rank() * len(rows)

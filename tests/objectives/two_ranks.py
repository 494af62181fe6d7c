"""Run by test_two_ranks.py: the objectives on one rank's part of a fixed batch, saved.

python two_ranks.py RANK WORLD_SIZE STORE OUT
"""

import sys

import torch
import torch.distributed as dist
from torch import Tensor

from arl.objectives.adaptive_weight import adaptive_weight, gradient_norm
from arl.objectives.centering import Centering, sinkhorn_knopp
from arl.objectives.contrastive import contrastive_loss
from arl.objectives.ranks import rows_of_all_ranks
from arl.objectives.self_distillation import SelfDistillation

ROWS, K = 10, 7


def measure(rank: int, world_size: int) -> dict[str, Tensor]:
    """Statistics that do not depend on the rank, losses as means over the ranks."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(8, ROWS, K, generator=generator, dtype=torch.float64)
    part = data[:, rank * ROWS // world_size : (rank + 1) * ROWS // world_size]
    objective = SelfDistillation(K, 0.1, 0.9).double()
    losses = [objective(part[:4], part[4:6], 0.05) for _ in range(2)]
    uneven = Centering(K, 0.9, "center").double()
    uneven.update(data[0] if world_size == 1 else data[0, :3] if rank == 0 else data[0, 3:])
    reconstruction = part[6].clone().requires_grad_()
    mim, adversarial = reconstruction.square().mean(), reconstruction.tanh().mean()
    queries = part[:2].clone().requires_grad_()
    contrastive = contrastive_loss((queries[0], queries[1]), (part[2], part[3]))
    (query_gradient,) = torch.autograd.grad(contrastive, queries)
    return {
        "center": objective.centering.center,
        "uneven_center": uneven.center,
        "loss": torch.stack(losses),
        "sinkhorn": rows_of_all_ranks(sinkhorn_knopp(part[4], 0.05))[0],
        "gradient_norm": gradient_norm(mim, reconstruction),
        "weight": adaptive_weight(mim, adversarial, reconstruction, eps=0.1),
        "contrastive": contrastive.detach(),
        "query_gradient": rows_of_all_ranks(query_gradient.transpose(0, 1) / world_size)[0],
    }


def main(rank: int, world_size: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
        )
    results = measure(rank, world_size)
    if world_size > 1:
        for name in ("loss", "contrastive"):
            dist.all_reduce(results[name])
            results[name] /= world_size
        dist.destroy_process_group()
    torch.save(results, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])

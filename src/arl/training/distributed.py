"""Ranks, collectives and the DeepSpeed engine: the only module that imports deepspeed."""

import logging
import os
from typing import Any

# DeepSpeed asks for its accelerator when it is imported, and warns when it has to guess.
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch.distributed as dist
from torch import nn

MAX_ZERO_STAGE = 2


def initialize() -> None:
    """Join the process group of torchrun, or be a group of one."""
    if dist.is_initialized():
        return
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # The shared-memory op would be compiled on first use; gloo needs no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if "MASTER_ADDR" not in os.environ:  # not started by torchrun
        # a store in memory: a port that is free now may be taken before it is used
        os.environ.update({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


def rank() -> int:
    """Index of this process; 0 outside a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for every rank."""
    if world_size() > 1:
        dist.barrier()


def mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Average named numbers over the ranks; the names must be the same on each."""
    if world_size() == 1:
        return values
    packed = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64)
    dist.all_reduce(packed)
    return dict(zip(sorted(values), (packed / world_size()).tolist(), strict=True))


def engine(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    micro_batch_size: int,
    accumulation: int,
    clip_grad: float,
    zero_stage: int,
) -> Any:
    """A DeepSpeed engine around a module and its torch optimiser.

    Raises:
        ValueError: a ZeRO stage that is not supported.
    """
    if not 0 <= zero_stage <= MAX_ZERO_STAGE:
        raise ValueError(
            f"zero_stage {zero_stage} is not one of 0, 1, 2: the teacher's moving average and the detached "
            "discriminator read whole parameters, which stage 3 scatters over the ranks"
        )
    config = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip_grad,
        "zero_optimization": {"stage": zero_stage, "elastic_checkpoint": False},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 60,
    }
    wrapped, _, _, _ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    return wrapped


def step(engine: Any) -> float:
    """Step the engine's optimiser if the accumulation is complete; the gradient's norm before clipping.

    DeepSpeed keeps the norm from ZeRO stage 1 on; below that the gradients are whole and are measured here.
    """
    norm = torch.zeros(())
    if engine.is_gradient_accumulation_boundary() and engine.zero_optimization_stage() == 0:
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    kept = engine.get_global_grad_norm()
    return float(norm if kept is None else kept)

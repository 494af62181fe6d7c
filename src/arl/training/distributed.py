"""Ranks, collectives and the DeepSpeed engine; no other module imports deepspeed."""

import atexit
import logging
import os
import time
from typing import Any

import torch

# DeepSpeed chooses its accelerator on import and warns if the variable is missing.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch.distributed as dist
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import Tensor, nn

from arl.training.allocator import keep_freed_memory

MAX_ZERO_STAGE = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW; its third state is the count of steps


def initialize() -> None:
    """Join the process group of torchrun, or create a group of one process."""
    if dist.is_initialized():
        return
    keep_freed_memory()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # The shared-memory op needs a compiler on first use, gloo does not.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "gloo":
        # A thread of gloo that cleans up its last collective while the interpreter ends aborts the
        # process (pytorch/pytorch#179291). It needs microseconds of a core, and the GIL.
        atexit.register(time.sleep, 0.1)
    if "MASTER_ADDR" not in os.environ:
        # torchrun did not start this process. A store in memory needs no port; another process
        # could take a port that is free now.
        os.environ.update({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


def rank() -> int:
    """Return the index of this process; 0 outside a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for every rank."""
    if world_size() > 1:
        dist.barrier()


def mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Average named numbers over the ranks, which have the same names."""
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
    """Build a DeepSpeed engine around a module and its torch optimiser.

    Raises:
        ValueError: the ZeRO stage is not supported.
    """
    if not 0 <= zero_stage <= MAX_ZERO_STAGE:
        raise ValueError(
            f"zero_stage {zero_stage} is not one of 0, 1, 2: stage 3 scatters parameters over the "
            "ranks, but the teacher's moving average and the discriminator read whole parameters"
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
    # A single process has no gradients to add, but DeepSpeed would copy all of them into one buffer
    # and back.
    wrapped.enable_backward_allreduce = zero_stage > 0 or world_size() > 1
    return wrapped


def step(engine: Any) -> float:
    """Step the engine's optimiser if the accumulation is complete.

    Returns:
        The norm of the gradient before clipping.
    """
    # DeepSpeed computes the norm from ZeRO stage 1 on. At stage 0 the gradients are whole.
    norm = torch.zeros(())
    if engine.is_gradient_accumulation_boundary() and engine.zero_optimization_stage() == 0:
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    global_norm = engine.get_global_grad_norm()
    return float(norm if global_norm is None else global_norm)


def training_state(engine: Any) -> dict[str, Tensor]:
    """Gather everything that the next step depends on; the names do not depend on the ranks.

    Returns:
        On rank 0 `module.<name>` for parameters and buffers, `exp_avg.<name>` and
        `exp_avg_sq.<name>` for AdamW's moments, `step` for its count. Empty on other ranks.
    """
    state = {f"module.{name}": value for name, value in engine.module.state_dict().items()}
    inner = _adamw(engine)
    if engine.zero_optimization_stage():
        _link_moments(engine)
    for name, parameter in _trained(engine):
        for moment in _MOMENTS:
            if engine.zero_optimization_stage():
                # A collective, so every rank must call it.
                state[f"{moment}.{name}"] = safe_get_full_optimizer_state(parameter, moment)
            elif parameter in inner.state:
                # Parameters without a gradient so far have no moments.
                state[f"{moment}.{name}"] = inner.state[parameter][moment]
    state["step"] = next(iter(inner.state.values()))["step"]
    if rank() != 0:
        return {}
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def load_training_state(engine: Any, state: dict[str, Tensor]) -> None:
    """Load a `training_state` into an engine with any number of ranks and any ZeRO stage.

    Raises:
        RuntimeError: the state belongs to another module.
    """
    module = {
        name.removeprefix("module."): value
        for name, value in state.items()
        if name.startswith("module.")
    }
    engine.module.load_state_dict(module)
    inner, sharded = _adamw(engine), engine.zero_optimization_stage() > 0
    if sharded:
        for group in inner.param_groups:
            for flat in group["params"]:
                inner.state[flat] = _fresh(flat, state["step"])
        _link_moments(engine)
    for name, parameter in _trained(engine):
        if sharded:
            safe_set_full_fp32_param(parameter, parameter.detach())
        elif f"{_MOMENTS[0]}.{name}" in state:
            inner.state[parameter] = _fresh(parameter, state["step"])
        for moment in _MOMENTS:
            value = state.get(f"{moment}.{name}")
            if value is None:
                continue
            if sharded:
                safe_set_full_optimizer_state(parameter, value.to(parameter.device), moment)
            else:
                inner.state[parameter][moment].copy_(value)


def _fresh(parameter: Tensor, step: Tensor) -> dict[str, Tensor]:
    moments = {moment: torch.zeros_like(parameter.detach()) for moment in _MOMENTS}
    # A fused AdamW counts its steps on the device.
    return {"step": step.to(parameter.device, copy=True), **moments}


def _adamw(engine: Any) -> torch.optim.Optimizer:
    """Return the torch optimiser inside of DeepSpeed's."""
    inner: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return inner


def _link_moments(engine: Any) -> None:
    """Link parameters to their parts of DeepSpeed's flat moments."""
    # DeepSpeed itself links them after the first step of the first parameter group, when the other
    # groups have no moments yet.
    zero = engine.optimizer
    for parameters, flat in zip(
        zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True
    ):
        lazy_init_hp_params_optimizer_state(parameters, flat, zero.optimizer.state)


def _trained(engine: Any) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, parameter)
        for name, parameter in engine.module.named_parameters()
        if parameter.requires_grad
    ]

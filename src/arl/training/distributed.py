"""Ranks, collectives and the DeepSpeed engine; no other module imports deepspeed."""

import atexit
import hashlib
import logging
import math
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
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

from arl.files import tree_hash
from arl.training.allocator import keep_freed_memory

MAX_ZERO_STAGE = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW; its third state is the count of steps


def initialize() -> None:
    """Join the process group of torchrun, or create a group of one process.

    Raises:
        ValueError: the machine has no GPU for this process, or the nodes run different code.
    """
    if dist.is_initialized():
        return
    keep_freed_memory()
    use_fast_float32(local_device())
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
    _require_same_code()


def local_device() -> torch.device:
    """Return the device of this process: GPU number LOCAL_RANK, or the CPU where there is no GPU.

    Raises:
        ValueError: the machine has fewer GPUs than processes.
    """
    # torchrun sets LOCAL_RANK; without it there is one process and the first GPU is its own.
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ValueError(
            f"process {index} of this machine needs GPU {index}, but the machine has {count}: "
            f"start at most {count} processes here (gpus in cluster.yaml, or --nproc-per-node)"
        )
    return torch.device("cuda", index)


def use_fast_float32(device: torch.device) -> None:
    """Let a GPU multiply float32 matrices in TF32; a CPU keeps full float32.

    PyTorch's default on a GPU is full float32, which is 8 times as slow on an A100.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def collective_device() -> torch.device:
    """Return the device whose tensors the process group's backend accepts.

    NCCL registers for CUDA tensors only, and a collective on a CPU tensor raises.
    """
    devices = {part.split(":")[0] for part in str(dist.get_backend_config()).split(",")}
    return torch.device("cpu") if "cpu" in devices else local_device()


@cache
def code_version() -> str:
    """Return the hex SHA-256 of the sources that a training runs."""
    root = Path(__file__).parents[1]
    folders = ("corpus", "loading", "models", "objectives", "training")
    hashes = [tree_hash(root / folder, "*.py") for folder in folders]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _require_same_code() -> None:
    if world_size() == 1:
        return
    # Two versions would train two models and average their gradients, without an error.
    own = torch.frombuffer(bytearray.fromhex(code_version()), dtype=torch.uint8)
    own = own.to(collective_device())
    versions = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(versions, own)
    other = [index for index, version in enumerate(versions) if not torch.equal(version, own)]
    if other:
        raise ValueError(
            f"rank {rank()} runs other code than rank {other[0]}: install the same version of ARL "
            "on every node, e.g. start all of them from one image digest"
        )


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


def mean_over_ranks(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Average named scalars over the ranks; the names must be the same on each.

    All values travel in one tensor, so that a step synchronises host and device once.
    """
    names, device = sorted(values), collective_device()
    packed = torch.stack([_scalar(values[name], device) for name in names])
    if world_size() > 1:
        dist.all_reduce(packed)
        packed /= world_size()
    return dict(zip(names, packed.tolist(), strict=True))


def _scalar(value: Tensor | float, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float64)
    return torch.full((), value, dtype=torch.float64, device=device)


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
    # DeepSpeed copies all gradients into one buffer and back, also where there is nobody to add
    # them to
    wrapped.enable_backward_allreduce = zero_stage > 0 or world_size() > 1
    return wrapped


def gradient_norm(engine: Any) -> Tensor:
    """Return the norm of the accumulated gradient before clipping; NaN where it is not finite.

    Call it between the backward pass of the last micro-batch and `step`. From ZeRO stage 1 on the
    ranks share the gradient, and DeepSpeed computes the norm of the whole.
    """
    if engine.zero_optimization_stage() == 0:
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)
    norm = torch.as_tensor(engine.optimizer.scaled_global_norm())
    # DeepSpeed marks a norm that is not finite by -1
    return torch.where(norm < 0, math.nan, norm)


def skip_step(engine: Any) -> None:
    """Drop the accumulated gradient without an update, as DeepSpeed does after an overflow."""
    optimizer = engine.optimizer
    if engine.zero_optimization_stage():
        optimizer.zero_grad(set_to_none=True)
        optimizer._release_preflattened_grad_buffers()
        for group in optimizer.averaged_gradients:
            optimizer.averaged_gradients[group] = None
            optimizer.all_grad_tensors[group] = None
    else:
        engine.zero_grad()
    engine.micro_steps += 1


def training_state(engine: Any) -> dict[str, Tensor]:
    """What the next step depends on, whole on rank 0 and empty elsewhere, by names that no rank
    count enters.

    `module.<name>` are parameters and buffers, `exp_avg.<name>` and `exp_avg_sq.<name>` AdamW's
    moments of the trained parameters, `step` its count.
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

"""Parameter groups and the learning rate schedule."""

import math
from collections.abc import Iterable
from typing import TypedDict

import torch
from torch import nn

# A parameter group of a torch optimiser, with our `lr_scale` and `decays`.


class ParameterGroup(TypedDict):
    """Parameters of AdamW with the same settings."""

    params: list[nn.Parameter]
    weight_decay: float
    lr_scale: float  # factor of the learning rate
    decays: bool  # whether a schedule of the weight decay concerns the group


def lr_at(step: int, *, steps: int, lr: float, min_lr: float, warmup_steps: int) -> float:
    """Return the learning rate of a step: linear warm-up from 0, half a cosine to `min_lr`."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def layer_of(name: str, depth: int) -> int:
    """Return the layer of a parameter: 0 for embeddings, 1..depth for blocks, depth + 1 above."""
    if not name.startswith("encoder."):
        return depth + 1
    # The weights of a baseline are those of its `net`.
    part = name.removeprefix("encoder.").removeprefix("net.")
    if part.startswith("blocks."):
        return int(part.split(".")[1]) + 1
    return depth + 1 if part.startswith("norm.") else 0


def parameter_groups(
    module: nn.Module, *, weight_decay: float, layer_decay: float = 1.0, depth: int = 0
) -> list[ParameterGroup]:
    """Build the parameter groups of AdamW.

    Biases, norms and the parameters that timm's `no_weight_decay` names have no decay. `lr_scale`
    is layer_decay ** distance from the head.
    """
    groups: dict[tuple[bool, float], ParameterGroup] = {}
    # timm's convention: each part names its own parameters, without the path to the part.
    no_decay = {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if hasattr(part, "no_weight_decay")
        for name in part.no_weight_decay()
    }
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in no_decay
        scale = layer_decay ** (depth + 1 - layer_of(name, depth))
        group = ParameterGroup(
            params=[], weight_decay=weight_decay * decays, lr_scale=scale, decays=decays
        )
        groups.setdefault((decays, scale), group)["params"].append(parameter)
    return list(groups.values())


def adamw(
    groups: Iterable[ParameterGroup], *, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.AdamW:
    """Build AdamW; `set_lr` sets its learning rate before each step."""
    # One fused kernel instead of one a tensor; on a CPU it also saves passes through memory.
    return torch.optim.AdamW([dict(group) for group in groups], lr=0.0, betas=betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to lr * its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def set_weight_decay(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the weight decay of every group that has one."""
    for group in optimizer.param_groups:
        if group["decays"]:
            group["weight_decay"] = weight_decay


def weight_decay_at(step: int, *, steps: int, start: float, end: float) -> float:
    """Return the weight decay of a step: half a cosine from `start` to `end`, as in DINO."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps - 1)))

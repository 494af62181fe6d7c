"""Multiply-accumulates of a model, counted on shapes alone (appendix H)."""

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import arl.models.sampling  # noqa: F401  defines torch.ops.arl.deform_depthwise


def count_macs(model: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass on float inputs of these shapes.

    Linear layers, convolutions, attention and the deformable sampling (four corners and the kernel, for each tap);
    normalisation, softmax and activation functions are not counted, as is the custom. The paper's "FLOPs" are these.
    """
    shell = copy.deepcopy(model).to("meta").eval()
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.arl.deform_depthwise: _deform_flops})
    with torch.no_grad(), counter:
        shell(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() // 2


def _deform_flops(x: Any, rows: Any, weights: Any, kernel: Any, *_: Any, **__: Any) -> int:
    """Shapes (B, L, C), (B, P, K, 4), (B, P, K, 4), (K, C)."""
    batch, tokens, taps, corners = rows
    return int(2 * batch * tokens * taps * (corners + 1) * kernel[1])


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

"""Cost of a model: parameters, multiply-accumulates and latency (appendix H)."""

import copy
import statistics
import time
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import arl.models  # registers A-ViT
import arl.models.sampling  # noqa: F401  defines torch.ops.arl.deform_depthwise
from arl.models.acdt import DeformableDepthwise

_SIDE = 224  # pixels, as in the paper


def count_macs(model: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of one forward pass on float inputs of these shapes.

    The count covers linear layers, convolutions, attention and the deformable sampling (four
    corners and the kernel, for each tap). As usual, it leaves out normalisation, softmax and
    activation functions. The paper's "FLOPs" are these.
    """
    # Shapes suffice: the meta device computes nothing.
    shell = copy.deepcopy(model).to("meta").eval()
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.arl.deform_depthwise: _deform_flops}
    )
    with torch.no_grad(), counter:
        shell(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() // 2


def _deform_flops(x: Any, rows: Any, weights: Any, kernel: Any, *_: Any, **__: Any) -> int:
    """Shapes (B, L, C), (B, P, K, 4), (B, P, K, 4), (K, C)."""
    # Each tap adds four corners and multiplies by its kernel.
    batch, tokens, taps, corners = rows
    return int(2 * batch * tokens * taps * (corners + 1) * kernel[1])


def count_parameters(model: nn.Module) -> int:
    """Count the trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def paper_models() -> dict[str, nn.Module]:
    """Build the models of Table 10 with random weights.

    Returns:
        `vit` of timm, `plain` (A-ViT without ACDT), `avit`, and `folded`: A-ViT after
        `fold_anatomy`, as it is deployed. Offsets and kernels are random, so that samples fall
        between tokens.
    """
    vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    plain = timm.create_model("avit_base_patch16", in_chans=3, conditioning="none")
    avit = timm.create_model("avit_base_patch16", in_chans=3)
    for module in avit.modules():
        if isinstance(module, DeformableDepthwise):
            nn.init.normal_(module.offset.bias, std=0.7)
            nn.init.normal_(module.weight)
    folded = copy.deepcopy(avit)
    folded.fold_anatomy()
    return {"vit": vit.eval(), "plain": plain.eval(), "avit": avit.eval(), "folded": folded.eval()}


@torch.inference_mode()
def latency(models: Mapping[str, nn.Module], batch: int, repeats: int) -> dict[str, float]:
    """Measure the median seconds of a batch of three-channel images of 224 pixels.

    The models take turns, so that a busy machine slows all of them. The first turn is not counted.
    """
    images, anatomy = torch.randn(batch, 3, _SIDE, _SIDE), torch.arange(batch) % 16
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            # timm's ViT knows no anatomy, and its `forward` would add a head.
            start = time.perf_counter()
            if isinstance(model, timm.models.VisionTransformer):
                model.forward_features(images)
            else:
                model(images, anatomy)
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(one) for name, one in times.items()}

"""Adaptive weight of the adversarial loss, eq. 6."""

import torch
from torch import Tensor

from arl.objectives.ranks import sum_over_ranks, world_size


def gradient_norm(loss: Tensor, activation: Tensor) -> Tensor:
    """L2 norm of d loss / d activation for the loss averaged over ranks; keeps the graph.

    Each rank holds other rows of the activation, and its loss is one of `world_size` that are
    averaged, so the norm is sqrt(sum over ranks of |g|^2) / world_size: what one process with
    the whole batch would see.
    """
    (gradient,) = torch.autograd.grad(loss, activation, retain_graph=True)
    squared = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()
    return sum_over_ranks(squared).sqrt() / world_size()


def adaptive_weight(
    mim: Tensor,
    adversarial: Tensor,
    reconstruction: Tensor,
    *,
    eps: float = 1e-8,
    max_weight: float = 100.0,
) -> Tensor:
    """lambda = |grad L_MIM| / (|grad L_adv| + eps), eq. 6: a scalar without a gradient, at most `max_weight`.

    The paper does not say with respect to what. Here: the decoder's output. It is an activation,
    so it is whole under ZeRO, and only the loss heads are differentiated twice, not the encoder.
    The gradient per value is small (it falls with the number of pixels), hence the small eps.

    Args:
        mim: L_MIM, scalar, a function of `reconstruction`.
        adversarial: L_adv of the generator, scalar, a function of `reconstruction`.
        reconstruction: the decoder's output, part of the graph of both.
        eps: eq. 6's epsilon, in the unit of the adversarial gradient's norm.
        max_weight: clamp; a saturated discriminator has no gradient and lambda would blow up.
    """
    ratio = gradient_norm(mim, reconstruction) / (gradient_norm(adversarial, reconstruction) + eps)
    return ratio.clamp(max=max_weight).detach()

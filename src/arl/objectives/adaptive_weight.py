"""Adaptive weight of the adversarial loss, eq. 6."""

import torch
from torch import Tensor

from arl.objectives.ranks import sum_over_ranks, world_size


def gradient_norm(loss: Tensor, activation: Tensor) -> Tensor:
    """Return the L2 norm of d loss / d activation, where loss is the mean over the ranks.

    The norm equals that of one process with the whole batch. The graph is kept.
    """
    # Each rank holds other rows of the activation and one of the averaged losses. So the norm is
    # sqrt(sum over ranks of |g|^2) / world_size.
    (gradient,) = torch.autograd.grad(loss, activation, retain_graph=True)
    squared = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()
    return sum_over_ranks(squared).sqrt() / world_size()


def adaptive_weight(
    mim: Tensor, adversarial: Tensor, reconstruction: Tensor, *, eps: float = 1e-8
) -> Tensor:
    """Compute lambda = |grad L_MIM| / (|grad L_adv| + eps), eq. 6.

    The paper does not name the variable of the gradients. Here it is the decoder's output: an
    activation is whole under ZeRO, and only the loss heads are differentiated twice.

    Args:
        mim: L_MIM, scalar, a function of `reconstruction`.
        adversarial: L_adv of the generator, scalar, a function of `reconstruction`.
        reconstruction: the decoder's output, part of the graph of both.
        eps: eq. 6's epsilon, in the unit of the adversarial gradient's norm. The gradient per
            value falls with the number of pixels, hence the small default.

    Returns:
        A scalar without a gradient. It has no upper limit: if a saturated discriminator has no
        gradient, lambda is large, but the gradient of lambda * L_adv stays below that of L_MIM.
    """
    # Of the unweighted losses: a factor of the objective must not change what lambda balances.
    ratio = gradient_norm(mim, reconstruction) / (gradient_norm(adversarial, reconstruction) + eps)
    return ratio.detach()

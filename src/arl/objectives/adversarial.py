"""Adversarial loss that preserves the speckle, eq. 4.

D(x) is the sigmoid of a logit l, so -log D = softplus(-l) and -log(1 - D) = softplus(l). Both are
finite and have a gradient for any logit.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute L_adv^(D), eq. 4, of the logits of real and of reconstructed patches, of any shape.

    The caller detaches the reconstruction.
    """
    return F.softplus(-_wide(real_logits)).mean() + F.softplus(_wide(fake_logits)).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Compute L_adv^(G), eq. 4, non-saturating: -E log D of the reconstructed patches."""
    return F.softplus(-_wide(fake_logits)).mean()


def discriminator_accuracy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Balanced accuracy of the discriminator over real and fake patches; 0.5 is chance."""
    # `<=` for fakes, so that a discriminator of zeros scores 0.5 and not 0.
    return 0.5 * ((real_logits > 0).float().mean() + (fake_logits <= 0).float().mean())

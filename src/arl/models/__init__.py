"""Networks: encoder, decoder, discriminator and task heads; no losses, no training loop.

Importing this package registers A-ViT with timm.
"""

from arl.models.avit import AViT, avit_base_patch16, avit_small_patch16, avit_tiny_patch16

__all__ = ["AViT", "avit_base_patch16", "avit_small_patch16", "avit_tiny_patch16"]

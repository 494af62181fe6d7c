"""The encoder, its decoder and discriminator, and the heads of the tasks. Importing it registers A-ViT with timm."""

from arl.models.avit import AViT, avit_base_patch16, avit_small_patch16, avit_tiny_patch16

__all__ = ["AViT", "avit_base_patch16", "avit_small_patch16", "avit_tiny_patch16"]

"""Heads on the encoder: the projections of DINO and MoCo v3, and image classification."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arl.models.encoder import Encoder


class DINOHead(nn.Module):
    """Three-layer MLP to a unit-length bottleneck, then cosines with the prototypes (Caron 2021).

    The prototypes are weight-normalised with length one: DINO's `norm_last_layer`. While
    `freeze_last_layer` is set, they do not train.
    """

    def __init__(
        self, in_dim: int, out_dim: int, hidden: int = 2048, bottleneck: int = 256
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last_layer = nn.Linear(bottleneck, out_dim, bias=False)
        self.freeze_last_layer = False
        # Biases start at zero. PyTorch's own biases would outweigh the signal of three layers of
        # weights this small. All images would then start with the same bottleneck.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> logits over the prototypes (B, out_dim), in [-1, 1]."""
        # DINO's epsilon: in half precision PyTorch's default of 1e-12 is zero.
        z = F.normalize(self.mlp(x), dim=-1, eps=1e-6)
        # Scale the products and not the prototypes, which hold more numbers than a batch's logits.
        weight = self.last_layer.weight
        if self.freeze_last_layer:
            # Zero gradients and not none, so that AdamW counts the same steps for all weights.
            weight = weight.detach() + 0.0 * weight
        length = torch.linalg.vector_norm(weight, dim=-1).clamp_min(1e-6)
        logits: Tensor = F.linear(z, weight) * length.reciprocal()
        return logits


class MoCoProjector(nn.Sequential):
    """MoCo v3's three-layer projection to 256; the last batch norm has no weights."""

    def __init__(self, in_dim: int, hidden: int = 4096, out_dim: int = 256) -> None:
        super().__init__(
            *_normed(in_dim, hidden), *_normed(hidden, hidden), *_normed(hidden, out_dim, last=True)
        )


class MoCoPredictor(nn.Sequential):
    """MoCo v3's two-layer prediction of the other view's key."""

    def __init__(self, hidden: int = 4096, dim: int = 256) -> None:
        super().__init__(*_normed(dim, hidden), *_normed(hidden, dim, last=True))


def _normed(in_dim: int, out_dim: int, last: bool = False) -> list[nn.Module]:
    norm = nn.BatchNorm1d(out_dim, affine=not last)
    return [nn.Linear(in_dim, out_dim, bias=False), norm, *([] if last else [nn.ReLU()])]


class ClassificationHead(nn.Module):
    """Mean of the patch tokens, LayerNorm, Linear (the paper's fine-tuning head)."""

    def __init__(self, embed_dim: int, num_classes: int, prefix: int = 1) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: a classifier needs at least 2")
        self.prefix = prefix
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.linear = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, prefix + L, C) with the patches last -> logits (B, num_classes)."""
        logits: Tensor = self.linear(self.norm(tokens[:, self.prefix :].mean(dim=1)))
        return logits


class Pooled(nn.Module):
    """Encoder and pooling: one feature vector per image.

    Args:
        pooling: "gap", the mean of the patch tokens; "cls", the CLS token.

    Raises:
        ValueError: another pooling, or an encoder without a CLS token.
    """

    def __init__(self, encoder: Encoder, pooling: str) -> None:
        super().__init__()
        if pooling not in ("gap", "cls"):
            raise ValueError(f"pooling {pooling!r} is neither gap nor cls")
        # SigLIP and SAM have patch tokens only; token 0 would be the upper left corner.
        if pooling == "cls" and not encoder.num_prefix_tokens:
            raise ValueError("this encoder has no CLS token: pool by gap")
        self.encoder = encoder
        self.pooling = pooling

    def forward(self, x: Tensor, anatomy: Tensor | None = None) -> Tensor:
        """x (B, in_chans, H, W), anatomy (B,) long -> (B, C)."""
        tokens: Tensor = self.encoder(x, anatomy)
        return (
            tokens[:, 0]
            if self.pooling == "cls"
            else tokens[:, self.encoder.num_prefix_tokens :].mean(dim=1)
        )


class TaskModel(nn.Module):
    """An encoder with the head of a task."""

    head: nn.Module

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder


class Classifier(TaskModel):
    """Encoder and classification head."""

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__(encoder)
        self.head = ClassificationHead(encoder.embed_dim, num_classes, encoder.num_prefix_tokens)

    def forward(self, x: Tensor, anatomy: Tensor | None = None) -> Tensor:
        """x (B, in_chans, H, W), anatomy (B,) long -> logits (B, num_classes)."""
        logits: Tensor = self.head(self.encoder(x, anatomy))
        return logits

"""UPerNet (Xiao 2018) on a plain ViT, as in BEiT.

The features of four blocks are brought to strides p/4, p/2, p and 2p. GroupNorm replaces BatchNorm,
because medical batches are small and a fine-tuned model must not depend on its batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arl.models.encoder import Encoder
from arl.models.heads import TaskModel

POOL_SIDES = (1, 2, 3, 6)


class Segmenter(TaskModel):
    """Encoder and segmentation head, logits at the image's own size."""

    def __init__(self, encoder: Encoder, channels: int = 256, num_classes: int = 1) -> None:
        super().__init__(encoder)
        self.indices = four_blocks(len(encoder.blocks))
        self.head = UPerNet(encoder.embed_dim, channels, num_classes)

    def forward(self, x: Tensor, anatomy: Tensor | None = None) -> Tensor:
        """x (B, in_chans, H, W), anatomy (B,) long -> logits (B, num_classes, H, W)."""
        features = self.encoder.forward_intermediates(
            x, self.indices, norm=True, intermediates_only=True, anatomy=anatomy
        )
        return F.interpolate(
            self.head(features), size=x.shape[-2:], mode="bilinear", align_corners=False
        )


def four_blocks(depth: int) -> list[int]:
    """The last block of each quarter of the encoder: 2, 5, 8, 11 of twelve.

    Raises:
        ValueError: there are fewer than four blocks.
    """
    if depth < 4:
        raise ValueError(f"UPerNet takes features from four blocks, the encoder has {depth}")
    return [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]


class UPerNet(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid over the others, one prediction."""

    def __init__(self, embed_dim: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.rescale = nn.ModuleList(
            [
                nn.Sequential(_up(embed_dim), _norm(embed_dim), nn.GELU(), _up(embed_dim)),
                _up(embed_dim),
                nn.Identity(),
                # Rounds up, because a grid of 7 x 7 patches must keep its last row.
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )
        self.pyramid = PyramidPooling(embed_dim, channels)
        self.lateral = nn.ModuleList(_conv(embed_dim, channels, 1) for _ in range(3))
        self.smooth = nn.ModuleList(_conv(channels, channels, 3) for _ in range(3))
        self.fuse = _conv(4 * channels, channels, 3)
        self.classify = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Four maps (B, C, h, w) of one encoder -> logits (B, num_classes, 4h, 4w)."""
        maps = [rescale(one) for rescale, one in zip(self.rescale, features, strict=True)]
        top: Tensor = self.pyramid(maps[3])
        levels = [top]
        for index in (2, 1, 0):
            top = self.lateral[index](maps[index]) + _resize(top, maps[index])
            levels.insert(0, self.smooth[index](top))
        fused = self.fuse(torch.cat([_resize(level, levels[0]) for level in levels], dim=1))
        logits: Tensor = self.classify(fused)
        return logits


class PyramidPooling(nn.Module):
    """Means over 1, 2 x 2, 3 x 3 and 6 x 6 areas beside the map itself (Zhao 2017)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_conv(in_channels, channels, 1) for _ in POOL_SIDES)
        self.bottleneck = _conv(in_channels + len(POOL_SIDES) * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, channels, h, w)."""
        pooled = [
            _resize(stage(F.adaptive_avg_pool2d(x, side)), x)
            for stage, side in zip(self.stages, POOL_SIDES, strict=True)
        ]
        out: Tensor = self.bottleneck(torch.cat([x, *pooled], dim=1))
        return out


def _conv(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    # A norm with its own shift follows, hence no bias.
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, _norm(channels), nn.ReLU())


def _norm(channels: int) -> nn.GroupNorm:
    # A group has at least 8 channels, because the pyramid normalises a map of 1 x 1.
    groups = next((count for count in (32, 16, 8, 4, 2) if channels % (8 * count) == 0), 1)
    return nn.GroupNorm(groups, channels)


def _up(channels: int) -> nn.ConvTranspose2d:
    # Stride and kernel agree, so the outputs do not overlap and show no checkerboard.
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

"""The discriminator of eq. 4: real patches against reconstructed ones.

The paper does not describe it. It sees one patch at a time with a little context around it, so that block seams
inside a composite image cannot give the answer away, and has no BatchNorm, which would leak between real and fake.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def context_windows(images: Tensor, mask: Tensor, patch_size: int, context: int) -> Tensor:
    """The masked patches with `context` pixels on each side (zeros beyond the image).

    Args:
        images: (B, C, H, W).
        mask: (B, N) bool, True = take this patch.

    Returns:
        (M, C, s, s) with s = patch_size + 2 * context, in the order of `mask.nonzero()`.
    """
    side = patch_size + 2 * context
    padded = F.pad(images, [context] * 4)
    windows = padded.unfold(2, side, patch_size).unfold(3, side, patch_size)  # (B, C, h, w, s, s)
    return windows.flatten(2, 3).transpose(1, 2)[mask]


class PatchDiscriminator(nn.Module):
    """Halving convolutions down to a side of 4 or less, then one logit.

    Args:
        patch_size, context: pixels; the input side is patch_size + 2 * context.
        dim: channels after the first convolution; doubled by each further one, up to 4 * dim.
    """

    def __init__(self, patch_size: int, context: int, in_chans: int, dim: int) -> None:
        super().__init__()
        self.side = patch_size + 2 * context
        self.in_chans = in_chans
        side, channels, width = self.side, in_chans, dim
        layers: list[nn.Module] = []
        while side > 4:
            layers += [nn.Conv2d(channels, width, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            side, channels, width = side // 2, width, min(2 * width, 4 * dim)
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * side**2, 1)

    def forward(self, patches: Tensor) -> Tensor:
        """patches (M, C, s, s) -> logits (M,), positive for real.

        Raises:
            ValueError: the patches are of another shape.
        """
        if patches.shape[1:] != (self.in_chans, self.side, self.side):
            raise ValueError(
                f"patches have shape {tuple(patches.shape)}, "
                f"this discriminator reads (M, {self.in_chans}, {self.side}, {self.side})"
            )
        logits: Tensor = self.head(self.features(patches).flatten(1))
        return logits.squeeze(1)

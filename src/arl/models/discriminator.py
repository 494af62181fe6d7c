"""The discriminator of eq. 4: real patches against reconstructed ones.

The paper does not describe the discriminator. This one sees one patch at a time, with a little
context. A composite image would give itself away by the seams between its patches. BatchNorm would
leak between real and fake patches, so there is none.
"""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Convolutions that halve the patch down to a side of 4 or less, then one logit.

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
            layers += [
                nn.Conv2d(channels, width, kernel_size=4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
            ]
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

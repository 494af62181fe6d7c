"""Anatomy-conditioned deformable transformer block (section 3.3, eq. 1-2).

The paper's eq. 1 leaves out the regular grid p_k of a deformable convolution; here
    y_P(p) = sum_k w_k * S(x_P, p + p_k + delta p_k),    delta p_k = g(x_P + AC),
with S bilinear and zero where there is no token, and w_k one weight per channel (depthwise). The
paper does not give g; here it is a ReLU and a linear layer, so that the anatomy does more than add
one shift to the whole image. With zero offsets and the kernel at identity y_P = x_P, and the block
is timm's `Block`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arl.corpus.anatomy import NUM_ANATOMIES
from arl.models.block import AnatomyMLP, PlainBlock, add, pick
from arl.models.sampling import Grid, bilinear_corners, deform_depthwise


class DeformableDepthwise(nn.Module):
    """Eq. 1 on the patch tokens; the tokens before them (CLS) pass through."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"deform_kernel {kernel} is not an odd number of patches: an even one has no centre"
            )
        self.count = kernel**2
        self.offset = nn.Linear(dim, 2 * self.count)
        self.weight = nn.Parameter(torch.empty(self.count, dim))
        self.reset_conditioning()

    def reset_conditioning(self) -> None:
        """Zero offsets and the identity kernel: y_P = x_P."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        with torch.no_grad():
            self.weight.zero_()[self.count // 2] = 1

    def forward(self, x: Tensor, context: Tensor, grid: Grid) -> Tensor:
        """x (B, 1 + L, C), anatomy context (B, C) -> (B, 1 + L, C)."""
        patches = x[:, 1:]
        offsets: Tensor = self.offset(F.relu(patches + context.unsqueeze(1), inplace=True))
        # Positions in single precision: bfloat16 knows sixteenths of a patch at the far side of the
        # grid.
        single = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        rows, weights = bilinear_corners(single.view(*patches.shape[:2], 2, self.count), grid)
        return deform_depthwise(x, rows, weights.to(x.dtype), self.weight.to(x.dtype))


class ACDTBlock(PlainBlock):
    """Attention whose keys and values are deformed by the anatomy (eq. 2), then the feed-forward network."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: float,
        deform_kernel: int,
        anatomy_hidden: int,
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, drop_path)
        self.anatomy: nn.Module = AnatomyMLP(NUM_ANATOMIES, anatomy_hidden, dim)
        self.deform = DeformableDepthwise(dim, deform_kernel)

    def forward(self, x: Tensor, code: Tensor, grid: Grid, asked: int | None = None) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, asked or 1 + L, C)."""
        normed = self.norm1(x)
        deformed = self.deform(normed, self.anatomy(code), grid)
        return self.feed_forward(
            add(pick(x, asked), self.drop_path(self.attn(pick(normed, asked), deformed)))
        )


def extra_parameters(dim: int, deform_kernel: int, anatomy_hidden: int) -> int:
    """Parameters of an ACDT block beyond the plain block: the budget of its alternatives (Table 8)."""
    count = deform_kernel**2
    return anatomy_hidden * (NUM_ANATOMIES + dim) + 2 * count * (dim + 1) + count * dim

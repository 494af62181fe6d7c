"""Anatomy-conditioned deformable transformer block (section 3.3, eq. 1-2).

The paper's eq. 1 leaves out the regular grid p_k of a deformable convolution. Here
    y_P(p) = sum_k w_k * S(x_P, p + p_k + delta p_k),    delta p_k = g(x_P + AC),
where S is bilinear sampling, zero outside the tokens, and w_k is one weight per channel
(depthwise). The paper does not describe g. Here g is a ReLU and a linear layer, so that the
anatomy does more than add one shift to the whole image. With zero offsets and the identity kernel,
y_P = x_P, and the block equals timm's `Block`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arl.corpus.anatomy import NUM_ANATOMIES
from arl.models.block import AnatomyMLP, PlainBlock, add_residual, select_tokens
from arl.models.sampling import Grid, bilinear_corners, deform_depthwise


class DeformableDepthwise(nn.Module):
    """Eq. 1 on the patch tokens; the CLS token passes through.

    Raises:
        ValueError: the kernel has an even side.
    """

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
        """Set zero offsets and the identity kernel, so that y_P = x_P."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        with torch.no_grad():
            self.weight.zero_()[self.count // 2] = 1

    def forward(self, x: Tensor, context: Tensor, grid: Grid) -> Tensor:
        """x (B, 1 + L, C), anatomy context (B, C) -> (B, 1 + L, C)."""
        patches = x[:, 1:]
        offsets: Tensor = self.offset(F.relu(patches + context.unsqueeze(1), inplace=True))
        # Positions need single precision: bfloat16 resolves a sixteenth of a patch at the far side
        # of the grid.
        offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        rows, weights = bilinear_corners(offsets.view(*patches.shape[:2], 2, self.count), grid)
        return deform_depthwise(x, rows, weights.to(x.dtype), self.weight.to(x.dtype))


class ACDTBlock(PlainBlock):
    """Attention to keys and values that the anatomy deforms (eq. 2), then the feed-forward network.

    Args:
        deform_kernel: side of the deformable kernel, patches.
        anatomy_hidden: width of the anatomy MLP.
    """

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

    def forward(
        self, x: Tensor, code: Tensor, grid: Grid, num_queries: int | None = None
    ) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, num_queries or 1 + L, C)."""
        normed = self.norm1(x)
        deformed = self.deform(normed, self.anatomy(code), grid)
        attended = self.attn(select_tokens(normed, num_queries), deformed)
        return self.feed_forward(
            add_residual(select_tokens(x, num_queries), self.drop_path(attended))
        )


def extra_parameters(dim: int, deform_kernel: int, anatomy_hidden: int) -> int:
    """Count the parameters that ACDT adds to a plain block, Table 8's budget."""
    count = deform_kernel**2
    return anatomy_hidden * (NUM_ANATOMIES + dim) + 2 * count * (dim + 1) + count * dim

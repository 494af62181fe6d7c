"""Table 8's alternatives to ACDT, each with as many parameters as ACDT adds to a block.

The paper does not say how they were built or matched. Here each starts as the plain block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arl.corpus.anatomy import NUM_ANATOMIES
from arl.models.block import AnatomyMLP, PlainBlock, add_residual, select_tokens
from arl.models.sampling import Grid


class FiLMBlock(PlainBlock):
    """The anatomy scales and shifts both normalised sequences (FiLM: Perez 2018)."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, budget: int
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, drop_path)
        self.film = AnatomyMLP(
            NUM_ANATOMIES, max(1, round(budget / (NUM_ANATOMIES + 4 * dim))), 4 * dim
        )
        self.reset_conditioning()

    def reset_conditioning(self) -> None:
        """Set scale one and shift zero."""
        nn.init.zeros_(self.film.fc2.weight)

    def forward(
        self, x: Tensor, code: Tensor, grid: Grid, num_queries: int | None = None
    ) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, num_queries or 1 + L, C)."""
        scale1, shift1, scale2, shift2 = self.film(code).unsqueeze(1).chunk(4, dim=-1)
        normed = self.norm1(x) * (1 + scale1) + shift1
        attended = self.attn(select_tokens(normed, num_queries), normed)
        x = add_residual(select_tokens(x, num_queries), self.drop_path(attended))
        return add_residual(x, self.drop_path(self.mlp(self.norm2(x) * (1 + scale2) + shift2)))


class LoRABlock(PlainBlock):
    """Each anatomy has a low-rank change of the qkv projection (LoRA: Hu 2022).

    The null condition has none.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, budget: int
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, drop_path)
        rank = max(1, round(budget / (NUM_ANATOMIES * 4 * dim)))
        self.lora_down = nn.Parameter(torch.empty(NUM_ANATOMIES, dim, rank))
        self.lora_up = nn.Parameter(torch.empty(NUM_ANATOMIES, rank, 3 * dim))
        self.reset_conditioning()

    def reset_conditioning(self) -> None:
        """Set the change of the projection to zero."""
        nn.init.normal_(self.lora_down, std=self.lora_down.shape[1] ** -0.5)
        nn.init.zeros_(self.lora_up)

    def forward(
        self, x: Tensor, code: Tensor, grid: Grid, num_queries: int | None = None
    ) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, num_queries or 1 + L, C)."""
        normed = self.norm1(x)
        # Products of activations and not of weights: each image of a batch has its own anatomy.
        down = torch.einsum("ba,adr->bdr", code, self.lora_down)
        up = torch.einsum("ba,are->bre", code, self.lora_up)
        attended = self.attn(select_tokens(normed, num_queries), normed, normed @ down @ up)
        return self.feed_forward(
            add_residual(select_tokens(x, num_queries), self.drop_path(attended))
        )


class CrossAttentionBlock(PlainBlock):
    """Cross-attention to a few anatomy tokens, between self-attention and the MLP."""

    CONTEXT_TOKENS = 4

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, budget: int
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, drop_path)
        # The budget pays for one projection to queries and one back (C x r each). The rest goes to
        # the MLP that makes the keys and values of the anatomy tokens.
        self.rank = max(num_heads, dim // 4 // num_heads * num_heads)
        context = 2 * self.CONTEXT_TOKENS * self.rank
        projections = 2 * dim * self.rank + 4 * dim + self.rank
        hidden = max(1, round((budget - projections) / (NUM_ANATOMIES + context)))
        self.norm_cross = nn.LayerNorm(dim, eps=1e-6)
        self.cross_query = nn.Linear(dim, self.rank)
        self.cross_context = AnatomyMLP(NUM_ANATOMIES, hidden, context)
        self.cross_proj = nn.Linear(self.rank, dim)
        self.reset_conditioning()

    def reset_conditioning(self) -> None:
        """Zero the output projection, so that the block adds nothing."""
        nn.init.zeros_(self.cross_proj.weight)
        nn.init.zeros_(self.cross_proj.bias)

    def forward(
        self, x: Tensor, code: Tensor, grid: Grid, num_queries: int | None = None
    ) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, num_queries or 1 + L, C)."""
        normed = self.norm1(x)
        attended = self.attn(select_tokens(normed, num_queries), normed)
        x = add_residual(select_tokens(x, num_queries), self.drop_path(attended))
        return self.feed_forward(add_residual(x, self.drop_path(self._cross(x, code))))

    def _cross(self, x: Tensor, code: Tensor) -> Tensor:
        heads = self.attn.num_heads
        query = (
            self.cross_query(self.norm_cross(x)).reshape(*x.shape[:2], heads, -1).transpose(1, 2)
        )
        context = self.cross_context(code).reshape(x.shape[0], 2, self.CONTEXT_TOKENS, heads, -1)
        key, value = context.transpose(2, 3).unbind(1)
        out: Tensor = self.cross_proj(
            F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        )
        return out

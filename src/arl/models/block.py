"""Transformer block with timm's structure and parameter names.

Unlike timm's `Block`, attention takes its keys and values from a second sequence (eq. 2).
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from arl.models.sampling import Grid


def add_residual(x: Tensor, branch: Tensor) -> Tensor:
    """Return x + branch; in inference the result overwrites `branch`."""
    # New memory costs page faults, and nothing else refers to `branch`.
    return x + branch if torch.is_grad_enabled() else branch.add_(x)


class Mlp(nn.Module):
    """The feed-forward network, with timm's parameter names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        hidden: Tensor = self.fc1(x)
        # In inference the activation overwrites the largest tensor of the block.
        hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
        out: Tensor = self.fc2(hidden)
        return out


class Attention(nn.Module):
    """Multi-head attention: queries from one sequence, keys and values from another (eq. 2).

    Raises:
        ValueError: dim is not divisible by num_heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, delta: Tensor | None = None) -> Tensor:
        """Queries from x (B, N, C), keys and values from y (B, M, C) -> (B, N, C).

        `delta` (B, M, 3 C) is added to the projected queries (its first N rows), keys and values.
        """
        query, key, value = (
            part.reshape(*part.shape[:2], self.num_heads, -1).transpose(1, 2)
            for part in self._project(x, y, delta)
        )
        out: Tensor = self.proj(_attend(query, key, value).transpose(1, 2).flatten(2))
        return out

    def _project(self, x: Tensor, y: Tensor, delta: Tensor | None) -> tuple[Tensor, ...]:
        # One product instead of two where both sequences are the same.
        if x is y:
            joint = self.qkv(x) if delta is None else self.qkv(x) + delta
            return tuple(joint.chunk(3, dim=-1))
        dim = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(x, weight[:dim], bias[:dim])
        key_value = F.linear(y, weight[dim:], bias[dim:])
        if delta is not None:
            query, key_value = query + delta[:, : x.shape[1], :dim], key_value + delta[..., dim:]
        return query, *key_value.chunk(2, dim=-1)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, N, d)."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # On a CPU, PyTorch's fused attention does not use the bfloat16 instructions. Matrix
        # products do.
        weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1), dim=-1)
        return weights @ value
    return F.scaled_dot_product_attention(query, key, value)


def select_tokens(x: Tensor, queries: int | Tensor | None) -> Tensor:
    """Select tokens of x (B, N, C).

    Args:
        queries: an int selects the first tokens, indices (B, M) those tokens, None all of them.
    """
    if queries is None:
        return x
    if isinstance(queries, int):
        return x[:, :queries]
    return x.gather(1, queries.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class PlainBlock(nn.Module):
    """The unconditioned pre-norm block, equal to timm's `Block` with the same weights.

    A caller that reads few tokens of the last block (CLS, or the masked patches) names them as
    `queries`. The other tokens then serve as keys and values only.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, x: Tensor, code: Tensor, grid: Grid, num_queries: int | None = None
    ) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, num_queries or 1 + L, C)."""
        return self.transform(x, num_queries)

    def transform(self, x: Tensor, queries: int | Tensor | None = None) -> Tensor:
        """Self-attention and the feed-forward network: (B, N, C) -> the `queries` of (B, N, C)."""
        normed = self.norm1(x)
        attended = self.attn(select_tokens(normed, queries), normed)
        return self.feed_forward(add_residual(select_tokens(x, queries), self.drop_path(attended)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block."""
        return add_residual(x, self.drop_path(self.mlp(self.norm2(x))))


class AnatomyMLP(nn.Module):
    """Anatomy context AC (section 3.3), computed once per image: code (B, 16) -> (B, C)."""

    def __init__(self, num_anatomies: int, hidden: int, dim: int) -> None:
        super().__init__()
        # Without biases, the zero code of the null condition adds nothing.
        self.fc1 = nn.Linear(num_anatomies, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, code: Tensor) -> Tensor:
        """(B, A) -> (B, C)."""
        context: Tensor = self.fc2(F.gelu(self.fc1(code)))
        return context

    def folded(self) -> nn.Linear:
        """Return a linear layer with the same outputs for one-hot codes and for zero."""
        weight = self.fc1.weight
        with torch.no_grad():
            contexts = self(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device))
        table = nn.Linear(contexts.shape[0], contexts.shape[1], bias=False)
        table.weight = nn.Parameter(contexts.t().contiguous(), requires_grad=False)
        return table


def code_table(num_anatomies: int) -> Tensor:
    """(A + 1, A): one-hot rows, then the zero vector of the null condition."""
    return torch.cat([torch.eye(num_anatomies), torch.zeros(1, num_anatomies)])

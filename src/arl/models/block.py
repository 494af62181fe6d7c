"""Transformer block of timm's structure and parameter names, with keys and values from a second sequence."""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from arl.models.sampling import Grid


def add(x: Tensor, fresh: Tensor) -> Tensor:
    """x + fresh; in inference in the memory of `fresh`, which nobody else holds: new memory costs page faults."""
    return x + fresh if torch.is_grad_enabled() else fresh.add_(x)


class Mlp(nn.Module):
    """The feed-forward network, with timm's parameter names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        hidden: Tensor = self.fc1(x)
        hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
        out: Tensor = self.fc2(hidden)
        return out


class Attention(nn.Module):
    """Multi-head attention, queries from one sequence and keys and values from another (eq. 2)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, change: Tensor | None = None) -> Tensor:
        """x (B, N, C) asks, y (B, M, C) answers -> (B, N, C).

        `change` (B, M, 3 C) is added to the queries (of the first N), keys and values.
        """
        query, key, value = (self._heads(part) for part in self._project(x, y, change))
        out: Tensor = self.proj(_attend(query, key, value).transpose(1, 2).flatten(2))
        return out

    def _project(self, x: Tensor, y: Tensor, change: Tensor | None) -> tuple[Tensor, ...]:
        if x is y:
            joint = self.qkv(x) if change is None else self.qkv(x) + change
            return tuple(joint.chunk(3, dim=-1))
        dim = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(x, weight[:dim], bias[:dim])
        answers = F.linear(y, weight[dim:], bias[dim:])
        if change is not None:
            query, answers = query + change[:, : x.shape[1], :dim], answers + change[..., dim:]
        return query, *answers.chunk(2, dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, N, d)."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # PyTorch's fused attention does not use a CPU's bfloat16 instructions, matrix products do
        weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1), dim=-1)
        return weights @ value
    return F.scaled_dot_product_attention(query, key, value)


def pick(x: Tensor, asked: int | Tensor | None) -> Tensor:
    """Of the tokens (B, N, C) the first `asked`, those of indices (B, M), or all for None."""
    if asked is None:
        return x
    return (
        x[:, :asked]
        if isinstance(asked, int)
        else x.gather(1, asked.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    )


class PlainBlock(nn.Module):
    """The unconditioned pre-norm block, equal to timm's `Block` with the same weights.

    It and its conditioned kin compute only the tokens `asked` for: what is read of the last block
    may be the CLS token alone, or the masked patches, and of the others it needs no more than keys
    and values.
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

    def forward(self, x: Tensor, code: Tensor, grid: Grid, asked: int | None = None) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, asked or 1 + L, C)."""
        return self.transform(x, asked)

    def transform(self, x: Tensor, asked: int | Tensor | None = None) -> Tensor:
        """Self-attention and the feed-forward network: (B, N, C) -> (B, N, C), or as `pick` has it."""
        normed = self.norm1(x)
        return self.feed_forward(
            add(pick(x, asked), self.drop_path(self.attn(pick(normed, asked), normed)))
        )

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block."""
        return add(x, self.drop_path(self.mlp(self.norm2(x))))


class AnatomyMLP(nn.Module):
    """Anatomy context AC (section 3.3), once per image: code (B, 16) -> (B, C).

    Without biases, so that the zero code (no anatomy known) adds nothing.
    """

    def __init__(self, num_anatomies: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_anatomies, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, code: Tensor) -> Tensor:
        context: Tensor = self.fc2(F.gelu(self.fc1(code)))
        return context

    def folded(self) -> nn.Linear:
        """The linear layer with the same answers to one-hot codes and to zero."""
        weight = self.fc1.weight
        with torch.no_grad():
            contexts = self(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device))
        table = nn.Linear(contexts.shape[0], contexts.shape[1], bias=False)
        table.weight = nn.Parameter(contexts.t().contiguous(), requires_grad=False)
        return table


def code_table(num_anatomies: int) -> Tensor:
    """(A + 1, A): one-hot rows, then the zero vector of the null condition."""
    return torch.cat([torch.eye(num_anatomies), torch.zeros(1, num_anatomies)])

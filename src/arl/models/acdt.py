"""Anatomy-conditioned deformable transformer block (section 3.3, eq. 1-2).

The paper's eq. 1 leaves out the regular grid p_k of a deformable convolution; here
    y_P(p) = sum_k w_k * S(x_P, p + p_k + delta p_k),    delta p_k = g(x_P + AC),
with S bilinear and zero where there is no token, and w_k one weight per channel (depthwise).
With zero offsets and the kernel at identity y_P = x_P, and the block is timm's `Block`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arl.data.anatomy import NUM_ANATOMIES
from arl.models.block import AnatomyMLP, Grid, PlainBlock

PAD = 2  # empty places around the grid, so that every corner of a far sample has a place in the table
TABLE_ELEMENTS = 1 << 18  # of the weighted token table; 1 MB in fp32 stays in a core's cache


def make_grid(height: int, width: int, ids_keep: Tensor | None, device: torch.device) -> Grid:
    """Geometry of all patches (row by row), or of the patches `ids_keep` (B, L) in that order."""
    position = torch.cartesian_prod(torch.arange(height, device=device), torch.arange(width, device=device))
    stride = width + 2 * PAD
    place = (position[:, 0] + PAD) * stride + position[:, 1] + PAD
    if ids_keep is None:
        place = place.unsqueeze(0)
    else:
        position, place = position[ids_keep], place[ids_keep]
    rows = torch.full((place.shape[0], (height + 2 * PAD) * stride), -1, device=device)
    rows.scatter_(1, place, torch.arange(place.shape[1], device=device).expand_as(place))
    return Grid(position.float(), rows, height, width)


def taps(kernel: int, device: torch.device | None = None) -> Tensor:
    """Regular grid p_k of a kernel x kernel neighbourhood: (K, 2) float, row and column."""
    axis = torch.arange(kernel, device=device, dtype=torch.float32) - (kernel - 1) / 2
    return torch.cartesian_prod(axis, axis)


def bilinear_corners(positions: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The four tokens around each position and their weights.

    Args:
        positions: (B, L, K, 2) row and column, in patches.

    Returns:
        rows (B, L, K, 4) long, and weights (B, L, K, 4), zero where a corner has no token.
    """
    low = positions.floor()
    upper = (positions - low).unsqueeze(-1)
    row_weight, column_weight = torch.cat([1 - upper, upper], dim=-1).unbind(-2)
    weights = (row_weight.unsqueeze(-1) * column_weight.unsqueeze(-2)).flatten(-2)
    row, column = low.long().add_(PAD).unbind(-1)
    stride = grid.width + 2 * PAD
    # After the conversion, so that a position which is not a number still has a place (and a weight that is not one).
    place = row.clamp(0, grid.height + PAD) * stride + column.clamp(0, grid.width + PAD)
    corners = place.unsqueeze(-1) + torch.tensor([0, 1, stride, stride + 1], device=place.device)
    rows = grid.rows.expand(len(corners), -1).gather(1, corners.flatten(1)).view_as(corners)
    return rows.clamp_min(0), weights * (rows >= 0)


@torch.library.custom_op("arl::deform_depthwise", mutates_args=())
def deform_depthwise(x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> Tensor:
    """y[b, p, c] = sum_k kernel[k, c] sum_j weights[b, p, k, j] x[b, rows[b, p, k, j], c].

    One `embedding_bag` per image and slice of channels, over the K tap-weighted copies of the tokens.

    Args:
        x: (B, L, C).
        rows: (B, P, K, 4) long, in 0..L-1.
        weights: (B, P, K, 4).
        kernel: (K, C).

    Returns:
        (B, P, C).
    """
    (batch, length, dim), (taps_, _) = x.shape, kernel.shape
    out = x.new_empty(batch, rows.shape[1], dim)
    flat_rows, flat_weights, offsets = _bags(rows, weights, length)
    step = _channel_step(taps_ * length, dim)
    table = x.new_empty(taps_, length, step)
    for image in range(batch):
        for start in range(0, dim, step):
            part = slice(start, min(start + step, dim))
            view = table if part.stop - start == step else x.new_empty(taps_, length, part.stop - start)
            torch.mul(x[image, :, part], kernel[:, None, part], out=view)
            out[image, :, part] = _bag(view.flatten(0, 1), flat_rows[image], offsets, flat_weights[image])
    return out


def _bags(rows: Tensor, weights: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows into the table of K weighted copies, (B, P * K * 4), their weights, and where each token's bag starts."""
    _, tokens, taps_, corners = rows.shape
    shift = torch.arange(0, taps_ * length, length, device=rows.device).unsqueeze(-1)
    offsets = torch.arange(0, tokens * taps_ * corners, taps_ * corners, device=rows.device)
    return (rows + shift).flatten(1), weights.flatten(1), offsets


def _channel_step(rows: int, dim: int) -> int:
    """Channels per slice, so that a table of so many rows stays in the cache."""
    return max(64, min(dim, TABLE_ELEMENTS // rows // 64 * 64)) if dim > 64 else dim


def _bag(table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights)


@deform_depthwise.register_fake
def _(x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], rows.shape[1], x.shape[2])


@torch.library.custom_op("arl::deform_depthwise_backward", mutates_args=())
def deform_depthwise_backward(
    grad: Tensor, x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `deform_depthwise` with respect to x, weights and kernel.

    With G[k, q] = sum over the corners that read token q in tap k of weight * grad:
    dx = sum_k kernel[k] G[k], dkernel[k] = sum_q x[q] G[k, q]; G is a bag over the corners sorted by what they read.
    """
    (batch, length, dim), (taps_, _) = x.shape, kernel.shape
    flat_rows, _, offsets = _bags(rows, weights, length)
    readers, read_weights, read_offsets = _transpose(flat_rows, weights, taps_ * length)
    bag_of = torch.arange(rows.shape[1], device=x.device).repeat_interleave(taps_ * 4)
    grad_x, grad_weights, grad_kernel = torch.empty_like(x), torch.zeros_like(weights), torch.zeros_like(kernel)
    step = _channel_step(taps_ * length, dim)
    for image in range(batch):
        for start in range(0, dim, step):
            part = slice(start, min(start + step, dim))
            tokens, taken, out = x[image, :, part], kernel[:, None, part], grad[image, :, part].contiguous()
            gathered = _bag(out, readers[image], read_offsets[image], read_weights[image]).view(taps_, length, -1)
            grad_kernel[:, part] += (gathered * tokens).sum(1)
            grad_x[image, :, part] = gathered.mul_(taken).sum(0)
            table = torch.mul(tokens, taken, out=gathered).flatten(0, 1)
            dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                out, table, flat_rows[image], offsets, bag_of, 0
            )
            grad_weights[image] += dots.view_as(weights[image])
    return grad_x, grad_weights, grad_kernel


def _transpose(flat_rows: Tensor, weights: Tensor, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each place of the table: the tokens that read it, with which weight, and where its bag starts."""
    ordered, order = flat_rows.sort(dim=1)
    tokens = order // (flat_rows.shape[1] // weights.shape[1])
    starts = torch.arange(places, device=flat_rows.device).expand(len(flat_rows), -1).contiguous()
    return tokens, weights.flatten(1).gather(1, order), torch.searchsorted(ordered, starts)


@deform_depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weights), torch.empty_like(kernel)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_weights, grad_kernel = deform_depthwise_backward(grad, *ctx.saved_tensors)
    return grad_x, None, grad_weights, grad_kernel


deform_depthwise.register_autograd(_backward, setup_context=_save)


class DeformableDepthwise(nn.Module):
    """Eq. 1 on the patch tokens; the tokens before them (CLS) pass through."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"deform_kernel {kernel} is not an odd number of patches: an even one has no centre")
        self.kernel = kernel
        self.offset = nn.Linear(dim, 2 * kernel**2)
        self.weight = nn.Parameter(torch.empty(kernel**2, dim))
        self.reset_conditioning()

    def reset_conditioning(self) -> None:
        """Zero offsets and the identity kernel: y_P = x_P."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        with torch.no_grad():
            self.weight.zero_()[self.kernel**2 // 2] = 1

    def forward(self, x: Tensor, context: Tensor, grid: Grid) -> Tensor:
        """x (B, 1 + L, C), anatomy context (B, C) -> (B, 1 + L, C)."""
        prefix, tokens = x[:, :1], x[:, 1:]
        offsets: Tensor = self.offset(F.gelu(tokens + context.unsqueeze(1)))
        regular = grid.position.unsqueeze(-2) + taps(self.kernel, x.device)
        # Positions in single precision: bfloat16 knows sixteenths of a patch at the far side of the grid.
        single = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
        positions = regular + single.reshape(*single.shape[:2], -1, 2)
        rows, weights = bilinear_corners(positions, grid)
        sampled = deform_depthwise(tokens, rows, weights.to(tokens.dtype), self.weight.to(tokens.dtype))
        return torch.cat([prefix, sampled], dim=1)


class ACDTBlock(PlainBlock):
    """Attention whose keys and values are deformed by the anatomy (eq. 2), then the feed-forward network."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, deform_kernel: int, anatomy_hidden: int
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, drop_path)
        self.anatomy = AnatomyMLP(NUM_ANATOMIES, anatomy_hidden, dim)
        self.deform = DeformableDepthwise(dim, deform_kernel)

    def forward(self, x: Tensor, code: Tensor, grid: Grid) -> Tensor:
        """x (B, 1 + L, C), anatomy code (B, 16) -> (B, 1 + L, C)."""
        normed = self.norm1(x)
        deformed = self.deform(normed, self.anatomy(code), grid)
        return self.feed_forward(x + self.drop_path(self.attn(normed, deformed)))


def extra_parameters(dim: int, deform_kernel: int, anatomy_hidden: int) -> int:
    """Parameters of an ACDT block beyond the plain block: the budget of its alternatives (Table 8)."""
    taps_ = deform_kernel**2
    return anatomy_hidden * (NUM_ANATOMIES + dim) + 2 * taps_ * (dim + 1) + taps_ * dim

"""Deformable depthwise sampling (eq. 1) as weighted gathers, in plain PyTorch.

Bilinear sampling reads four tokens with four weights, so y = sum_k w_k * (A_k x) with A_k sparse.
`embedding_bag` is a product with a sparse matrix. Its table holds the K copies w_k * x of the
tokens, and one bag of 4 K rows gives one output token. On a CPU the table holds one slice of the
channels at a time, so that it stays in a core's cache.

A *cell* is a position of the padded patch grid rounded down. Its *corners* are the four tokens
around it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Empty cells around the grid, so that the tables have every corner of a sample just outside.
PAD = 2
# Numbers in the table of weighted copies. On a CPU 1 MB in fp32, a core's second-level cache; on a
# GPU only memory counts.
CPU_TABLE = 1 << 18
GPU_TABLE = 1 << 27


class Grid(NamedTuple):
    """Positions of a batch's tokens on the patch grid, for kernels of K taps.

    Attributes:
        height, width: patches.
        origin: (1 or B, L, 2, K), padded row and column of token + tap.
        corners: (cells, 4) long, index of the token in the sequence; 0 where there is none.
        present: (cells, 4), 1 where there is a token.
        base: (B, 1, 1) long, first cell of each image; None if all images share the cells.
        last: (2, 1), largest row and column of a cell.
        inside: (cells, 4), 1 where the image has a patch, visible or masked; None: no
            normalisation by visibility.
    """

    height: int
    width: int
    origin: Tensor
    corners: Tensor
    present: Tensor
    base: Tensor | None
    last: Tensor
    inside: Tensor | None = None


def taps(kernel: int, device: torch.device | None = None) -> Tensor:
    """Return the regular grid p_k of a kernel x kernel neighbourhood: (2, K), rows and columns."""
    axis = torch.arange(kernel, device=device, dtype=torch.float32) - (kernel - 1) / 2
    return torch.cartesian_prod(axis, axis).t()


def make_grid(
    height: int,
    width: int,
    kernel: int,
    prefix: int,
    ids_keep: Tensor | None,
    device: torch.device,
    *,
    normalize: bool = False,
) -> Grid:
    """Compute the geometry of a sequence of `prefix` tokens and the patches.

    Args:
        ids_keep: (B, L) long, the patches in the order of the sequence; None: all, row by row.
        normalize: scale the samples around masked patches, see `bilinear_corners`.
    """
    position = (
        torch.cartesian_prod(
            torch.arange(height, device=device), torch.arange(width, device=device)
        )
        + PAD
    )
    cell = position[:, 0] * (width + 2 * PAD) + position[:, 1]
    if ids_keep is None:
        position, cell = position.unsqueeze(0), cell.unsqueeze(0)
    else:
        position, cell = position[ids_keep], cell[ids_keep]
    index = torch.arange(prefix, prefix + cell.shape[1], device=device).expand_as(cell)
    tokens = torch.full((len(cell), (height + 2 * PAD) * (width + 2 * PAD)), -1, device=device)
    tokens = tokens.scatter(1, cell, index).view(-1, height + 2 * PAD, width + 2 * PAD)
    top, bottom = tokens[:, :-1], tokens[:, 1:]
    corners = torch.stack([top[..., :-1], top[..., 1:], bottom[..., :-1], bottom[..., 1:]], dim=-1)
    cells = corners[0, ..., 0].numel()
    base = (
        None
        if ids_keep is None
        else torch.arange(0, len(cell) * cells, cells, device=device).view(-1, 1, 1)
    )
    origin = position.unsqueeze(-1) + taps(kernel, device)
    # Filled on the device: `torch.tensor` would copy from the host and wait for the copy.
    sides = (height + 2 * PAD - 2.0, width + 2 * PAD - 2.0)
    last = torch.stack([torch.full((1,), side, device=device) for side in sides])
    corners = corners.reshape(-1, 4)
    present = (corners >= 0).float()
    inside = (
        _inside(height, width, device).repeat(len(cell), 1)
        if normalize and base is not None
        else None
    )
    return Grid(height, width, origin, corners.clamp_min(0), present, base, last, inside)


def _inside(height: int, width: int, device: torch.device) -> Tensor:
    """Return (cells, 4) of one image, 1 where a corner is a patch of the image."""
    image = F.pad(torch.ones(height, width, device=device), (PAD, PAD, PAD, PAD))
    top, bottom = image[:-1], image[1:]
    return torch.stack([top[:, :-1], top[:, 1:], bottom[:, :-1], bottom[:, 1:]], -1).view(-1, 4)


def bilinear_corners(offsets: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Find the four tokens around each sample and their weights.

    With `grid.inside`, the weights of the taps around the centre are scaled by the mass of the
    samples inside of the image over the visible mass, at most by the number of those taps. So the
    kernel reads the same mass of visible tokens as of a whole image. The centre tap keeps its
    weight, since its own token is visible.

    Args:
        offsets: (B, L, 2, K) rows and columns in patches, beyond the regular grid.

    Returns:
        rows (B, L, K, 4) long into the sequence, and weights (B, L, K, 4), zero where a corner has
        no token.
    """
    position = grid.origin + offsets
    low = position.floor()
    upper = position - low
    row, column = torch.stack([1 - upper, upper], dim=-1).unbind(2)
    weights = (row.unsqueeze(-1) * column.unsqueeze(-2)).flatten(-2)
    cell = _cells(low.detach(), grid)
    visible = weights * F.embedding(cell, grid.present.to(weights.dtype))
    if grid.inside is not None:
        whole = weights * F.embedding(cell, grid.inside.to(weights.dtype))
        visible = visible * _visibility_scale(whole.sum(-1), visible.sum(-1)).unsqueeze(-1)
    return F.embedding(cell, grid.corners), visible


def _visibility_scale(whole: Tensor, visible: Tensor) -> Tensor:
    """Compute the factor of each tap from the masses (B, L, K) inside of the image and visible."""
    around = torch.ones(whole.shape[-1], dtype=whole.dtype, device=whole.device)
    around[len(around) // 2] = 0
    mass, visible_mass = (whole * around).sum(-1), (visible * around).sum(-1)
    # A sliver of one visible token is no evidence of the whole neighbourhood.
    smallest = mass.clamp(min=torch.finfo(mass.dtype).tiny, max=1.0)
    scale = (mass / visible_mass.maximum(smallest)).unsqueeze(-1)
    return 1 + (scale - 1) * around


def _cells(low: Tensor, grid: Grid) -> Tensor:
    """(B, L, 2, K) whole numbers as floats -> (B, L, K) long; far samples get an empty cell."""
    last = grid.last.to(low.dtype)
    row, column = torch.clamp(low, torch.zeros_like(last), last).unbind(2)
    stride = grid.width + 2 * PAD - 1
    cells = (grid.height + 2 * PAD - 1) * stride
    # The second clamp, of integers, keeps NaN positions inside the table; their weights stay NaN.
    cell = torch.add(column, row, alpha=stride).long().clamp_(0, cells - 1)
    return cell if grid.base is None else cell + grid.base


def deform_depthwise(x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> Tensor:
    """y[b, p, c] = sum_k kernel[k, c] sum_j weights[b, p, k, j] x[b, rows[b, p, k, j], c].

    Args:
        x: (B, prefix + L, C); the tokens of the prefix pass through.
        rows: (B, L, K, 4) long, into the whole sequence.
        weights: (B, L, K, 4).
        kernel: (K, C).

    Returns:
        (B, prefix + L, C).
    """
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return deform_by_indexing(x, rows, weights, kernel)
    out: Tensor = _deform(x, rows, weights, kernel)
    return out


def deform_by_indexing(x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> Tensor:
    """Compute `deform_depthwise` in elementary operators, for exported graphs.

    It needs 4 times the memory of x.
    """
    batch, length, _ = x.shape
    shift = torch.arange(batch, device=x.device).view(-1, 1, 1, 1) * length
    flat, prefix = x.flatten(0, 1), length - rows.shape[1]
    sampled = [
        kernel[tap] * (flat[read] * weight.unsqueeze(-1)).sum(2)
        for tap, (read, weight) in enumerate(
            zip((rows + shift).unbind(2), weights.unbind(2), strict=True)
        )
    ]
    return torch.cat([x[:, :prefix], torch.stack(sampled).sum(0)], dim=1)


@torch.library.custom_op("arl::deform_depthwise", mutates_args=())
def _deform(x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> Tensor:
    (batch, length, _), count = x.shape, len(kernel)
    out, prefix = torch.empty_like(x), length - rows.shape[1]
    out[:, :prefix] = x[:, :prefix]
    images, slices = _pieces(x, count)
    read, scales = (
        _table_rows(rows, length, images).flatten(1),
        kernel.unsqueeze(1).chunk(slices, dim=-1),
    )
    tables = _tables(x, images, length, scales)
    for group in _groups(batch, images):
        indices, weight = read[group].flatten(), weights[group].flatten()
        starts = torch.arange(0, len(indices) + 1, 4 * count, device=x.device)
        tokens = x[group].unsqueeze(1).chunk(slices, dim=-1)
        targets = out[group, prefix:].chunk(slices, dim=-1)
        for part, scale, table, target in zip(
            tokens, scales, _trim(tables, len(x[group])), targets, strict=True
        ):
            copies = torch.mul(part, scale, out=table)
            target.copy_(_bags(copies, indices, starts, weight).view_as(target))
    return out


def _pieces(x: Tensor, count: int, tables: int = 1) -> tuple[int, int]:
    """Return how many images and how many slices of channels to process at a time."""
    budget = (CPU_TABLE if x.device.type == "cpu" else GPU_TABLE) // tables
    batch, length, dim = x.shape
    images = max(1, min(batch, budget // (count * length * dim)))
    # A slice has at least 16 channels, because each slice has an overhead.
    return images, max(1, min(-(-images * count * length * dim // budget), dim // 16))


def _groups(batch: int, images: int) -> list[slice]:
    return [slice(first, first + images) for first in range(0, batch, images)]


def _tables(x: Tensor, images: int, length: int, scales: Sequence[Tensor]) -> list[Tensor]:
    """Allocate a table (images, K, tokens, channels) for each slice; all share the same memory."""
    shapes = [(images, len(scale), length, scale.shape[-1]) for scale in scales]
    memory = x.new_empty(max(math.prod(shape) for shape in shapes))
    return [memory[: math.prod(shape)].view(shape) for shape in shapes]


def _trim(tables: list[Tensor], images: int) -> list[Tensor]:
    """Cut the tables to the last group, which may be smaller."""
    return tables if len(tables[0]) == images else [table[:images] for table in tables]


def _table_rows(rows: Tensor, length: int, images: int) -> Tensor:
    """Compute rows of the table of a group, which is ordered by image, tap and token."""
    batch, _, count, _ = rows.shape
    read = rows + torch.arange(0, count * length, length, device=rows.device).unsqueeze(-1)
    if images > 1:
        read += (torch.arange(batch, device=rows.device) % images * (count * length)).view(
            -1, 1, 1, 1
        )
    return read


def _bags(table: Tensor, indices: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Sum weighted rows of the table, one sum for each interval between two starts."""
    rows = table.view(-1, table.shape[-1])
    return torch.embedding_bag(rows, indices, starts, False, 0, False, weights, True)[0]


@_deform.register_fake
def _(x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("arl::deform_depthwise_backward", mutates_args=())
def _deform_backward(
    grad: Tensor, x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients with respect to x, weights and kernel."""
    grad_x, grad_kernel = _token_gradients(grad, x, rows, weights, kernel)
    return grad_x, _weight_gradients(grad, x, rows, kernel), grad_kernel


def _token_gradients(
    grad: Tensor, x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor
) -> tuple[Tensor, Tensor]:
    """With G_k = A_k^T grad, dx = sum_k w_k * G_k and dw_k = sum over tokens of x * G_k."""
    (batch, length, _), prefix = x.shape, x.shape[1] - rows.shape[1]
    images, slices = _pieces(x, len(kernel), tables=2)
    readers, read_weights, counts = _transpose(rows, weights, length, images)
    grad_x = torch.empty_like(x)
    grad_kernel = torch.zeros_like(kernel, dtype=torch.promote_types(kernel.dtype, torch.float32))
    scales, scale_targets = (
        one.unsqueeze(1).chunk(slices, dim=-1) for one in (kernel, grad_kernel)
    )
    tables = _tables(x, images, length, scales)
    for group in _groups(batch, images):
        indices, weight = readers[group].flatten(), read_weights[group].flatten()
        starts = F.pad(counts[group].flatten().cumsum(0), (1, 0))
        tokens, targets = (one[group].unsqueeze(1).chunk(slices, dim=-1) for one in (x, grad_x))
        outs = grad[group].chunk(slices, dim=-1)
        trimmed = _trim(tables, len(x[group]))
        for out, part, scale, table, target, scale_target in zip(
            outs, tokens, scales, trimmed, targets, scale_targets, strict=True
        ):
            gathered = _bags(out.contiguous(), indices, starts, weight).view_as(table)
            scale_target += (
                torch.mul(gathered, part, out=table)
                .sum((0, 2), dtype=grad_kernel.dtype)
                .unsqueeze(1)
            )
            torch.sum(gathered.mul_(scale), 1, keepdim=True, out=target)
    grad_x[:, :prefix] = grad[:, :prefix]
    return grad_x, grad_kernel.to(kernel.dtype)


def _transpose(
    rows: Tensor, weights: Tensor, length: int, images: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute, for each row of the table, the tokens that read it, their weights and number."""
    batch, patches, count, corners = rows.shape
    read = _table_rows(rows, length, images=1).flatten(1)
    order = read.argsort(dim=1)
    first = torch.arange(batch, device=rows.device).unsqueeze(1) % images * length + (
        length - patches
    )
    counts = read.new_zeros(batch, count * length).scatter_add_(1, read, torch.ones_like(read))
    return order // (count * corners) + first, weights.flatten(1).gather(1, order), counts


def _weight_gradients(grad: Tensor, x: Tensor, rows: Tensor, kernel: Tensor) -> Tensor:
    """Multiply each corner's token with w_k * grad, tap by tap."""
    (batch, length, _), patches = x.shape, rows.shape[1]
    images = _pieces(x, 1)[0]
    grad_weights = x.new_empty(rows.shape)
    shift = (torch.arange(batch, device=x.device) % images * length).view(-1, 1, 1, 1)
    read = rows + shift
    for group in _groups(batch, images):
        tokens, out, target = (
            x[group].flatten(0, 1),
            grad[group, length - patches :],
            grad_weights[group],
        )
        starts = torch.arange(0, 4 * len(target) * patches, 4, device=x.device)
        bag_of = torch.arange(len(starts), device=x.device).repeat_interleave(4)
        for tap, scale in enumerate(kernel):
            dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                (out * scale).flatten(0, 1),
                tokens,
                read[group, :, tap].flatten(),
                starts,
                bag_of,
                0,
            )
            target[:, :, tap] = dots.view(-1, patches, 4)
    return grad_weights


@_deform_backward.register_fake
def _(
    grad: Tensor, x: Tensor, rows: Tensor, weights: Tensor, kernel: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weights), torch.empty_like(kernel)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_weights, grad_kernel = _deform_backward(grad, *ctx.saved_tensors)
    return grad_x, None, grad_weights, grad_kernel


_deform.register_autograd(_backward, setup_context=_save_inputs)

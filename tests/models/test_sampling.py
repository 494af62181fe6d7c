"""Eq. 1 against a slow loop, torchvision and finite differences."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from arl.models import sampling
from arl.models.sampling import (
    Grid,
    bilinear_corners,
    deform_by_indexing,
    deform_depthwise,
    make_grid,
    taps,
)

BATCH, HEIGHT, WIDTH, DIM, KERNEL, PREFIX = 5, 3, 7, 11, 3, 2
PATCHES, COUNT = HEIGHT * WIDTH, KERNEL**2


def grid_of(ids_keep: Tensor | None = None) -> Grid:
    return make_grid(HEIGHT, WIDTH, KERNEL, PREFIX, ids_keep, torch.device("cpu"))


def some_ids(kept: int) -> Tensor:
    return torch.stack([torch.randperm(PATCHES)[:kept] for _ in range(BATCH)])


def some_offsets(kept: int, spread: float) -> Tensor:
    return spread * torch.randn(BATCH, kept, 2, COUNT, dtype=torch.float64)


def sample(x: Tensor, offsets: Tensor, kernel: Tensor, grid: Grid) -> Tensor:
    rows, weights = bilinear_corners(offsets, grid)
    return deform_depthwise(x, rows, weights.to(x.dtype), kernel)


def slow_deform(
    tokens: dict[tuple[int, int], Tensor],
    position: tuple[int, int],
    offsets: Tensor,
    kernel: Tensor,
) -> Tensor:
    """Eq. 1 at one position, from a dictionary of the tokens there are."""
    out = torch.zeros(kernel.shape[1], dtype=kernel.dtype)
    for tap in range(COUNT):
        row = position[0] + tap // KERNEL - KERNEL // 2 + offsets[0, tap].item()
        column = position[1] + tap % KERNEL - KERNEL // 2 + offsets[1, tap].item()
        for r in (math.floor(row), math.floor(row) + 1):
            for c in (math.floor(column), math.floor(column) + 1):
                if (r, c) in tokens:
                    out += (1 - abs(row - r)) * (1 - abs(column - c)) * kernel[tap] * tokens[r, c]
    return out


@pytest.mark.parametrize("kept", [PATCHES, 8])
@pytest.mark.parametrize("spread", [0.7, 5.0])
@pytest.mark.parametrize(
    "table", [64, 1 << 11, 1 << 18]
)  # slices of channels, one image, several images at a time
def test_sampling_equals_a_slow_loop(
    kept: int, spread: float, table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "CPU_TABLE", table)
    dim = 37 if table == 64 else DIM
    ids_keep = None if kept == PATCHES else some_ids(kept)
    x = torch.randn(BATCH, PREFIX + kept, dim, dtype=torch.float64)
    kernel, offsets = torch.randn(COUNT, dim, dtype=torch.float64), some_offsets(kept, spread)
    out = sample(x, offsets, kernel, grid_of(ids_keep))
    torch.testing.assert_close(out[:, :PREFIX], x[:, :PREFIX], rtol=0, atol=0)
    for image in range(BATCH):
        ids = range(PATCHES) if ids_keep is None else ids_keep[image].tolist()
        tokens = {divmod(patch, WIDTH): x[image, PREFIX + index] for index, patch in enumerate(ids)}
        for index, position in enumerate(tokens):
            expected = slow_deform(tokens, position, offsets[image, index], kernel)
            torch.testing.assert_close(out[image, PREFIX + index], expected)


@pytest.mark.parametrize("table", [1 << 12, 1 << 18])
def test_sampling_and_its_gradients_equal_torchvision(
    table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "CPU_TABLE", table)
    dim = 37
    x = torch.randn(BATCH, PREFIX + PATCHES, dim, requires_grad=True)
    kernel = torch.randn(COUNT, dim, requires_grad=True)
    offsets = some_offsets(PATCHES, 1.0).float().requires_grad_()
    ours = sample(x, offsets, kernel, grid_of())[:, PREFIX:]
    theirs = deform_conv2d(
        x[:, PREFIX:].transpose(1, 2).reshape(BATCH, dim, HEIGHT, WIDTH),
        offsets.permute(0, 3, 2, 1).reshape(BATCH, 2 * COUNT, HEIGHT, WIDTH),
        kernel.t().reshape(dim, 1, KERNEL, KERNEL),
        padding=KERNEL // 2,
    )
    theirs = theirs.flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, (x, kernel, offsets), upstream),
        torch.autograd.grad(theirs, (x, kernel, offsets), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("visible", [False, True])
def test_gradients_of_the_sampling(visible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sampling, "CPU_TABLE", 2 * 2 * COUNT * 4 * 3
    )  # groups of two images and a last one
    height, width, batch, dim, kept = 2, 2, 3, 3, 3 if visible else 4
    ids_keep = (
        torch.stack([torch.randperm(height * width)[:kept] for _ in range(batch)])
        if visible
        else None
    )
    grid = make_grid(height, width, KERNEL, 1, ids_keep, torch.device("cpu"))
    # Away from whole numbers, where the bilinear weights have a kink.
    whole, part = (
        torch.randint(-1, 2, (batch, kept, 2, COUNT)),
        torch.empty(batch, kept, 2, COUNT).uniform_(0.1, 0.9),
    )
    inputs = (torch.randn(batch, 1 + kept, dim), whole + part, torch.randn(COUNT, dim))
    assert torch.autograd.gradcheck(
        lambda x, offsets, kernel: sample(x, offsets, kernel, grid),
        tuple(one.double().requires_grad_() for one in inputs),
    )


def test_the_exported_form_is_the_same() -> None:
    ids_keep = some_ids(8)
    x, kernel = torch.randn(BATCH, PREFIX + 8, DIM), torch.randn(COUNT, DIM)
    rows, weights = bilinear_corners(some_offsets(8, 1.0).float(), grid_of(ids_keep))
    torch.testing.assert_close(
        deform_by_indexing(x, rows, weights, kernel), deform_depthwise(x, rows, weights, kernel)
    )


def test_a_position_that_is_not_a_number_is_not_out_of_bounds() -> None:
    x, kernel = torch.randn(BATCH, PREFIX + PATCHES, DIM), torch.ones(COUNT, DIM)
    for value, expected in ((torch.nan, torch.nan), (1e30, 0.0), (-1e30, 0.0)):
        offsets = torch.full((BATCH, PATCHES, 2, COUNT), value)
        out = sample(x, offsets, kernel, grid_of())[:, PREFIX:]
        torch.testing.assert_close(out, torch.full_like(out, expected), equal_nan=True)


def test_low_precision_stays_close() -> None:
    x, kernel = torch.randn(BATCH, PREFIX + PATCHES, DIM), torch.randn(COUNT, DIM)
    offsets = some_offsets(PATCHES, 1.0).float()
    inputs = [
        x.bfloat16().requires_grad_(),
        offsets.requires_grad_(),
        kernel.bfloat16().requires_grad_(),
    ]
    exact = [one.detach().float().requires_grad_() for one in inputs]
    low, high = sample(*inputs, grid_of()), sample(*exact, grid_of())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), high, rtol=0.05, atol=0.1)
    for mine, other in zip(
        torch.autograd.grad(low.float().square().sum(), inputs),
        torch.autograd.grad(high.square().sum(), exact),
        strict=True,
    ):
        assert (
            torch.nn.functional.cosine_similarity(mine.float().flatten(), other.flatten(), dim=0)
            > 0.999
        )


def test_taps_are_the_neighbourhood() -> None:
    assert taps(3).t().tolist() == [[r, c] for r in (-1, 0, 1) for c in (-1, 0, 1)]
    assert taps(1).tolist() == [[0], [0]]


def test_the_operator_passes_torch_checks() -> None:
    x = torch.randn(2, 7, 5, requires_grad=True)
    rows, weights = (
        torch.randint(0, 7, (2, 6, COUNT, 4)),
        torch.rand(2, 6, COUNT, 4, requires_grad=True),
    )
    kernel = torch.randn(COUNT, 5, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.arl.deform_depthwise, (x, rows, weights, kernel), test_utils=checks
    )


def test_normalised_sampling_of_a_whole_image_is_the_plain_one() -> None:
    every_patch = torch.arange(PATCHES).expand(BATCH, -1)
    x, kernel = torch.randn(BATCH, PREFIX + PATCHES, DIM), torch.randn(COUNT, DIM)
    offsets = some_offsets(PATCHES, 3.0).float()
    grid = make_grid(
        HEIGHT, WIDTH, KERNEL, PREFIX, every_patch, torch.device("cpu"), normalize=True
    )
    torch.testing.assert_close(
        sample(x, offsets, kernel, grid), sample(x, offsets, kernel, grid_of())
    )


def test_normalised_sampling_reads_the_mass_of_the_whole_neighbourhood() -> None:
    """Equal tokens and weights: with masked neighbours the sample is that of the whole image."""
    ids_keep, device = some_ids(8), torch.device("cpu")
    kernel, offsets = torch.ones(COUNT, 1), torch.zeros(BATCH, 8, 2, COUNT)
    full = sample(
        torch.ones(BATCH, PREFIX + PATCHES, 1),
        torch.zeros(BATCH, PATCHES, 2, COUNT),
        kernel,
        grid_of(),
    )[:, PREFIX:].gather(1, ids_keep.unsqueeze(-1))
    x = torch.ones(BATCH, PREFIX + 8, 1)
    plain = sample(x, offsets, kernel, grid_of(ids_keep))[:, PREFIX:]
    grid = make_grid(HEIGHT, WIDTH, KERNEL, PREFIX, ids_keep, device, normalize=True)
    normalised = sample(x, offsets, kernel, grid)[:, PREFIX:]
    has_neighbour = plain > 1
    assert has_neighbour.any()
    assert (plain[has_neighbour] < full[has_neighbour]).any()
    torch.testing.assert_close(normalised[has_neighbour], full[has_neighbour])
    torch.testing.assert_close(normalised[~has_neighbour], plain[~has_neighbour])


def test_normalised_sampling_keeps_the_identity_kernel() -> None:
    ids_keep = some_ids(8)
    x, kernel = torch.randn(BATCH, PREFIX + 8, DIM), torch.zeros(COUNT, DIM)
    kernel[COUNT // 2] = 1
    grid = make_grid(HEIGHT, WIDTH, KERNEL, PREFIX, ids_keep, torch.device("cpu"), normalize=True)
    offsets = torch.zeros(BATCH, 8, 2, COUNT)
    torch.testing.assert_close(sample(x, offsets, kernel, grid), x)

"""Equations 1 and 2 against slow loops, identities and finite differences."""

import math

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor
from torchvision.ops import deform_conv2d

from arl.models import acdt
from arl.models.acdt import ACDTBlock, DeformableDepthwise, bilinear_corners, deform_depthwise, make_grid, taps
from arl.models.avit import AViT

BATCH, HEIGHT, WIDTH, DIM, KERNEL = 2, 5, 7, 11, 3
TAPS = KERNEL**2
CPU = torch.device("cpu")


def slow_deform(x: Tensor, positions: Tensor, kernel: Tensor, present: Tensor) -> Tensor:
    """Eq. 1, one sample at a time; x (H, W, C), positions (L, K, 2), present (H, W)."""
    height, width, dim = x.shape
    out = torch.zeros(len(positions), dim, dtype=x.dtype)
    for token, sampled in enumerate(positions):
        for tap, (row, column) in enumerate(sampled.tolist()):
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < height and 0 <= c < width and present[r, c]:
                        weight = (1 - abs(row - r)) * (1 - abs(column - c))
                        out[token] += weight * kernel[tap] * x[r, c]
    return out


def random_positions(grid_positions: Tensor, spread: float) -> Tensor:
    """Around every token of a batch; far enough to leave the grid."""
    regular = grid_positions.double().unsqueeze(-2) + taps(KERNEL).double()
    return regular + spread * torch.randn(BATCH, *regular.shape[-3:], dtype=torch.float64)


def sample(x: Tensor, positions: Tensor, kernel: Tensor, ids_keep: Tensor | None = None) -> Tensor:
    rows, weights = bilinear_corners(positions, make_grid(HEIGHT, WIDTH, ids_keep, CPU))
    return deform_depthwise(x, rows, weights.to(x.dtype), kernel)


def test_sampling_equals_a_slow_loop() -> None:
    x = torch.randn(BATCH, HEIGHT * WIDTH, DIM, dtype=torch.float64)
    kernel = torch.randn(TAPS, DIM, dtype=torch.float64)
    positions = random_positions(make_grid(HEIGHT, WIDTH, None, CPU).position, spread=2.0)
    expected = [
        slow_deform(x[i].view(HEIGHT, WIDTH, DIM), positions[i], kernel, torch.ones(HEIGHT, WIDTH))
        for i in range(BATCH)
    ]
    torch.testing.assert_close(sample(x, positions, kernel), torch.stack(expected))


def test_sampling_of_visible_tokens_equals_a_slow_loop_with_zeros_elsewhere() -> None:
    ids_keep = torch.stack([torch.randperm(HEIGHT * WIDTH)[:13] for _ in range(BATCH)])
    x = torch.randn(BATCH, 13, DIM, dtype=torch.float64)
    kernel = torch.randn(TAPS, DIM, dtype=torch.float64)
    positions = random_positions(make_grid(HEIGHT, WIDTH, ids_keep, CPU).position, spread=1.0)
    for image in range(BATCH):
        full = torch.zeros(HEIGHT * WIDTH, DIM, dtype=torch.float64)
        full[ids_keep[image]] = x[image]
        present = torch.zeros(HEIGHT * WIDTH)
        present[ids_keep[image]] = 1
        expected = slow_deform(full.view(HEIGHT, WIDTH, DIM), positions[image], kernel, present.view(HEIGHT, WIDTH))
        torch.testing.assert_close(sample(x, positions, kernel, ids_keep)[image], expected)


@pytest.mark.parametrize("dim", [64, 192, 200])
def test_sampling_and_its_gradients_equal_torchvision(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acdt, "TABLE_ELEMENTS", TAPS * HEIGHT * WIDTH * 64)  # slices of 64 channels
    x = torch.randn(BATCH, HEIGHT * WIDTH, dim, requires_grad=True)
    kernel = torch.randn(TAPS, dim, requires_grad=True)
    offsets = torch.randn(BATCH, HEIGHT * WIDTH, TAPS, 2, requires_grad=True)
    grid = make_grid(HEIGHT, WIDTH, None, CPU)
    ours = sample(x, grid.position.unsqueeze(-2) + taps(KERNEL) + offsets, kernel)
    theirs = deform_conv2d(
        x.transpose(1, 2).reshape(BATCH, dim, HEIGHT, WIDTH),
        offsets.flatten(2).transpose(1, 2).reshape(BATCH, 2 * TAPS, HEIGHT, WIDTH),
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
def test_gradients_of_the_sampling(visible: bool) -> None:
    height, width, batch, dim, kept = 2, 2, 2, 3, 3
    ids_keep = torch.stack([torch.randperm(height * width)[:kept] for _ in range(batch)]) if visible else None
    grid = make_grid(height, width, ids_keep, CPU)
    length = kept if visible else height * width
    # Away from whole numbers, where the bilinear weights have a kink.
    offsets = torch.randint(-1, 2, (batch, length, TAPS, 2)) + torch.empty(batch, length, TAPS, 2).uniform_(0.1, 0.9)

    def run(x: Tensor, offsets: Tensor, kernel: Tensor) -> Tensor:
        positions = grid.position.double().unsqueeze(-2) + taps(KERNEL).double() + offsets
        rows, weights = bilinear_corners(positions, grid)
        return deform_depthwise(x, rows, weights, kernel)

    inputs = (torch.randn(batch, length, dim), offsets, torch.randn(TAPS, dim))
    assert torch.autograd.gradcheck(run, tuple(one.double().requires_grad_() for one in inputs))


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (-3, 4)])
def test_whole_offsets_shift_the_map(shift: tuple[int, int]) -> None:
    module = DeformableDepthwise(DIM, KERNEL)
    with torch.no_grad():
        module.offset.bias.copy_(torch.tensor(shift).float().repeat(TAPS))
    x = torch.randn(BATCH, 1 + HEIGHT * WIDTH, DIM)
    out = module(x, torch.randn(BATCH, DIM), make_grid(HEIGHT, WIDTH, None, CPU))
    maps = x[:, 1:].view(BATCH, HEIGHT, WIDTH, DIM)
    expected = torch.zeros_like(maps)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            r, c = row + shift[0], column + shift[1]
            if 0 <= r < HEIGHT and 0 <= c < WIDTH:
                expected[:, row, column] = maps[:, r, c]
    torch.testing.assert_close(out[:, 1:], expected.flatten(1, 2))
    torch.testing.assert_close(out[:, :1], x[:, :1])


def test_offsets_follow_the_anatomy_of_each_image() -> None:
    module = DeformableDepthwise(DIM, KERNEL)
    torch.nn.init.normal_(module.offset.weight)
    x = torch.randn(1, 1 + HEIGHT * WIDTH, DIM).expand(2, -1, -1)
    context = torch.stack([torch.zeros(DIM), torch.ones(DIM)])
    first, second = module(x, context, make_grid(HEIGHT, WIDTH, None, CPU))
    assert not torch.allclose(first, second)


def test_a_position_that_is_not_a_number_is_not_out_of_bounds() -> None:
    positions = torch.full((1, HEIGHT * WIDTH, TAPS, 2), torch.nan)
    out = sample(torch.randn(1, HEIGHT * WIDTH, DIM), positions, torch.ones(TAPS, DIM))
    assert out.isnan().all()
    far = torch.full_like(positions, 1e30)
    assert sample(torch.randn(1, HEIGHT * WIDTH, DIM), far, torch.ones(TAPS, DIM)).eq(0).all()


def test_low_precision_stays_close() -> None:
    x = torch.randn(BATCH, HEIGHT * WIDTH, 64)
    kernel = torch.randn(TAPS, 64)
    positions = random_positions(make_grid(HEIGHT, WIDTH, None, CPU).position, spread=1.0).float()
    low = sample(x.bfloat16(), positions, kernel.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), sample(x, positions, kernel), rtol=0.05, atol=0.2)


def same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("anatomy.", "deform.")) for name in missing)


def test_the_block_starts_as_the_block_of_timm() -> None:
    dim, heads = 6 * 5, 5
    ours = ACDTBlock(dim, heads, 3.0, 0.0, KERNEL, anatomy_hidden=13)
    theirs = Block(dim, heads, mlp_ratio=3.0, qkv_bias=True)
    same_weights(ours, theirs)
    x = torch.randn(BATCH, 1 + HEIGHT * WIDTH, dim)
    code = torch.eye(16)[[3, 8]]
    torch.testing.assert_close(ours(x, code, make_grid(HEIGHT, WIDTH, None, CPU)), theirs(x))


def test_keys_and_values_come_from_the_deformed_tokens() -> None:
    """With an empty kernel the patches answer with their biases only, while the queries still differ."""
    dim, heads = 12, 3
    block = ACDTBlock(dim, heads, 2.0, 0.0, KERNEL, anatomy_hidden=7)
    torch.nn.init.zeros_(block.deform.weight)
    x = torch.randn(1, 1 + HEIGHT * WIDTH, dim)
    grid, code = make_grid(HEIGHT, WIDTH, None, CPU), torch.eye(16)[[0]]
    moved = x.clone()
    moved[:, 5] += 1
    others = [token for token in range(x.shape[1]) if token != 5]
    torch.testing.assert_close(block(x, code, grid)[:, others], block(moved, code, grid)[:, others])


def test_the_anatomy_learns_once_offsets_have_moved() -> None:
    model = AViT(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, anatomy_hidden=5)
    images, anatomy = torch.randn(3, 1, 32, 32), torch.tensor([0, 7, 16])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images, anatomy).square().sum().backward()
    block = model.blocks[0]
    assert block.anatomy.fc1.weight.grad.eq(0).all()
    assert block.deform.offset.weight.grad.ne(0).any()
    optimizer.step()
    optimizer.zero_grad()
    model(images, anatomy).square().sum().backward()
    learned = block.anatomy.fc1.weight.grad.ne(0).any(0)
    assert learned.nonzero().flatten().tolist() == [0, 7]


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="deform_kernel 2 is not an odd"):
        DeformableDepthwise(DIM, 2)


def test_the_operator_passes_torch_checks() -> None:
    x = torch.randn(2, 6, 5, requires_grad=True)
    rows = torch.randint(0, 6, (2, 6, TAPS, 4))
    weights = torch.rand(2, 6, TAPS, 4, requires_grad=True)
    kernel = torch.randn(TAPS, 5, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(deform_depthwise, (x, rows, weights, kernel), test_utils=checks)

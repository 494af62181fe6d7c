"""The block: deformation by anatomy (eq. 1) and attention to the deformed tokens (eq. 2)."""

import pytest
import torch
from timm.models.vision_transformer import Block

from arl.models.acdt import ACDTBlock, DeformableDepthwise
from arl.models.avit import AViT
from arl.models.sampling import Grid, make_grid

BATCH, HEIGHT, WIDTH, DIM, KERNEL = 2, 5, 7, 11, 3


def full_grid() -> Grid:
    return make_grid(HEIGHT, WIDTH, KERNEL, 1, None, torch.device("cpu"))


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (-3, 4)])
def test_whole_offsets_shift_the_map(shift: tuple[int, int]) -> None:
    module = DeformableDepthwise(DIM, KERNEL)
    with torch.no_grad():
        module.offset.bias.copy_(torch.tensor(shift).float().repeat_interleave(KERNEL**2))
    x = torch.randn(BATCH, 1 + HEIGHT * WIDTH, DIM)
    out = module(x, torch.randn(BATCH, DIM), full_grid())
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
    first, second = module(x, context, full_grid())
    assert not torch.allclose(first, second)


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
    torch.testing.assert_close(ours(x, code, full_grid()), theirs(x))


def test_keys_and_values_come_from_the_deformed_tokens() -> None:
    """With an empty kernel, keys and values of the patches are biases; the queries still differ."""
    dim, heads = 12, 3
    block = ACDTBlock(dim, heads, 2.0, 0.0, KERNEL, anatomy_hidden=7)
    torch.nn.init.zeros_(block.deform.weight)
    x = torch.randn(1, 1 + HEIGHT * WIDTH, dim)
    grid, code = full_grid(), torch.eye(16)[[0]]
    moved = x.clone()
    moved[:, 5] += 1
    others = [token for token in range(x.shape[1]) if token != 5]
    torch.testing.assert_close(block(x, code, grid)[:, others], block(moved, code, grid)[:, others])


def test_attention_is_equation_2() -> None:
    """Queries from x_P, keys and values from y_P, written out."""
    dim, heads = 12, 3
    block = ACDTBlock(dim, heads, 2.0, 0.0, KERNEL, anatomy_hidden=7)
    torch.nn.init.normal_(block.deform.offset.weight)
    torch.nn.init.normal_(block.deform.weight)
    x, code = torch.randn(BATCH, 1 + HEIGHT * WIDTH, dim), torch.eye(16)[[2, 9]]
    normed = block.norm1(x)
    deformed = block.deform(normed, block.anatomy(code), full_grid())
    (wq, wk, wv), (bq, bk, bv) = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
    heads_out = []
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        query, key = normed @ wq[part].t() + bq[part], deformed @ wk[part].t() + bk[part]
        attention = (query @ key.transpose(1, 2) / (dim // heads) ** 0.5).softmax(-1)
        heads_out.append(attention @ (deformed @ wv[part].t() + bv[part]))
    attended = x + block.attn.proj(torch.cat(heads_out, dim=-1))
    torch.testing.assert_close(
        block(x, code, full_grid()), attended + block.mlp(block.norm2(attended))
    )


def test_the_anatomy_learns_after_the_offsets_have_moved() -> None:
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

import pytest
import torch

from arl.objectives.masking import block_masking, num_masked, random_masking

B = 5


def _noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("patches", "ratio"), [(7, 0.5), (13, 0.75), (49, 0.6), (196, 0.75), (10, 0.9)]
)
def test_random_masking(patches, ratio) -> None:
    noise = _noise(B, patches)
    ids_keep, mask = random_masking(noise, ratio)
    hidden = round(patches * ratio)
    assert mask.dtype == torch.bool
    assert ids_keep.shape == (B, patches - hidden)
    for b in range(B):
        order = sorted(range(patches), key=lambda n: float(noise[b, n]))
        assert ids_keep[b].tolist() == sorted(order[: patches - hidden])
        assert mask[b].nonzero()[:, 0].tolist() == sorted(order[patches - hidden :])


def test_every_patch_is_as_likely() -> None:
    hidden = random_masking(_noise(4000, 11), 0.6).mask.float().mean(dim=0)
    assert (hidden - 7 / 11).abs().max() < 0.04  # 5 standard errors


def test_a_sample_depends_on_its_noise_only() -> None:
    noise, blocks = _noise(B, 49), _noise(B, 10, 4, seed=1)
    assert torch.equal(random_masking(noise, 0.5).mask[2:4], random_masking(noise[2:4], 0.5).mask)
    assert torch.equal(
        block_masking(blocks, noise, (7, 7), 0.4).mask[2:4],
        block_masking(blocks[2:4], noise[2:4], (7, 7), 0.4).mask,
    )


@pytest.mark.parametrize(
    ("grid", "ratio"), [((7, 7), 0.4), ((5, 11), 0.3), ((3, 13), 0.6), ((14, 14), 0.5)]
)
def test_block_masking_masks_exactly_the_ratio(grid, ratio) -> None:
    patches = grid[0] * grid[1]
    ids_keep, mask = block_masking(_noise(B, 10, 4), _noise(B, patches, seed=1), grid, ratio)
    hidden = round(patches * ratio)
    assert (mask.sum(dim=1) == hidden).all()
    assert ids_keep.shape == (B, patches - hidden)
    assert not mask.gather(1, ids_keep).any()


def test_block_masking_makes_blocks() -> None:
    grid, count = (14, 14), 200

    def neighbours(mask):  # masked pairs side by side
        mask = mask.view(count, *grid)
        return int((mask[:, :, 1:] & mask[:, :, :-1]).sum())

    noise = _noise(count, 196, seed=1)
    blocks = block_masking(_noise(count, 10, 4), noise, grid, 0.4).mask
    assert neighbours(blocks) > 1.5 * neighbours(random_masking(noise, 0.4).mask)


def test_one_try_is_one_rectangle() -> None:
    _, mask = block_masking(torch.full((1, 1, 4), 0.5), torch.zeros(1, 49), (7, 7), 16 / 49)
    rows, columns = mask.view(7, 7).nonzero().unbind(dim=1)
    filled = mask.view(7, 7)[2:5, 2:5]
    assert filled.all()  # area 4 + 0.5 * 12 = 10, a square of 3, in the middle
    assert len(rows) == 16
    assert columns.max() <= 6


def test_a_rectangle_has_the_drawn_aspect() -> None:
    tall = torch.tensor([[[0.5, 0.999, 0.5, 0.5]]])  # area 10, height / width 10 / 3: 6 x 2
    expected = torch.zeros(11, 7, dtype=torch.bool)
    expected[3:9, 3:5] = True
    expected[10, 3:] = True  # the rest, by noise
    noise = torch.linspace(0, 0.9, 77)[None]
    assert torch.equal(block_masking(tall, noise, (11, 7), 16 / 77).mask.view(11, 7), expected)


def test_a_rectangle_over_the_budget_is_not_used() -> None:
    noise = _noise(1, 49)
    tries = torch.tensor([[[0.999, 0.5, 0.5, 0.5]]])  # area 14, a square of 4 x 4 = 16
    assert torch.equal(
        block_masking(tries, noise, (7, 7), 14 / 49).mask, random_masking(noise, 14 / 49).mask
    )


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.99, 1.0])
def test_some_patches_stay_and_some_go(ratio) -> None:
    with pytest.raises(ValueError, match=rf"mask_ratio {ratio} masks \d of 7 patches"):
        num_masked(7, ratio)


def test_grid_must_fit() -> None:
    with pytest.raises(ValueError, match="noise of 49 patches does not fit a grid of 7 x 8"):
        block_masking(_noise(1, 2, 4), _noise(1, 49), (7, 8), 0.5)

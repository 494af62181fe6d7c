import math

import numpy as np
import pytest
import torch
from PIL import Image

from arl.loading.resample import resample, resample_mask

SIDE = 31


def _canvas(count=2):
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def _box(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def _slow(image, extent, box, size, flip=False, blur=0.0):
    """Triangle filter of one canvas (S, S) as loops."""

    def weights(first, length, valid, mirrored):
        scale = length / size
        support = math.sqrt(max(scale, 1) ** 2 + 6 * (blur * scale) ** 2)
        rows = []
        for i in range(size):
            unit = (i + 0.5) / size
            center = first + (1 - unit if mirrored else unit) * length
            row = [
                max(0.0, 1 - abs(j + 0.5 - center) / support) if j < valid else 0.0
                for j in range(SIDE)
            ]
            rows.append([weight / sum(row) if 0 <= center < valid else 0.0 for weight in row])
        return np.array(rows)

    down = weights(box[0], box[2], extent[0], False)
    across = weights(box[1], box[3], extent[1], flip)
    return torch.from_numpy(down @ image.double().numpy() @ across.T)


@pytest.mark.parametrize("size", [5, 13, 43])
@pytest.mark.parametrize("blur", [0.0, 0.7])
def test_equals_the_filter_as_loops(size, blur):
    image = _canvas()
    extent = torch.tensor([[29, 23], [31, 17]])
    inner = _box(
        [2.3, 0.0, 17.9, 23.0],
        [0.0, 1.7, 31.0, 11.3],
        [5.0, 6.0, 7.0, 11.0],
        [24.5, 3.0, 6.5, 13.9],
    )
    outer = _box([-7.7, -1.3, 41.0, 30.1], [20.1, -4.9, 19.0, 37.0])
    box = torch.cat([inner, outer])
    flip = torch.tensor([False, True, True, False, True, False])
    got = resample(image, extent, box, size, flip=flip, blur=torch.full((6,), blur))
    assert got.shape == (6, 1, size, size)
    for row in range(6):
        b = row % 2  # view-major
        expected = _slow(
            image[b, 0], extent[b].tolist(), box[row].tolist(), size, bool(flip[row]), blur
        )
        assert torch.allclose(got[row, 0].double(), expected, atol=1e-5)


def test_the_whole_canvas_at_its_own_size_is_itself():
    image = _canvas()
    whole = _box([0, 0, SIDE, SIDE]).repeat(2, 1)
    extent = torch.full((2, 2), SIDE)
    assert torch.equal(resample(image, extent, whole, SIDE), image)
    flip = torch.tensor([True, True])
    assert torch.allclose(resample(image, extent, whole, SIDE, flip=flip), image.flip(3), atol=1e-5)


@pytest.mark.parametrize("size", [7, 19, 53])
def test_equals_pillow(size):
    image = _canvas(1)
    expected = Image.fromarray(image[0, 0].numpy()).resize((size, size), Image.Resampling.BILINEAR)
    got = resample(image, torch.tensor([[SIDE, SIDE]]), _box([0, 0, SIDE, SIDE]), size)
    assert np.allclose(got[0, 0].numpy(), np.asarray(expected), atol=1e-5)


def test_pixels_beyond_the_extent_are_never_read():
    image = _canvas(1)
    image[:, :, 20:] = torch.nan
    image[:, :, :, 11:] = torch.nan
    got = resample(
        image.nan_to_num(1e30), torch.tensor([[20, 11]]), _box([3, 2, 17, 9]), 5, blur=torch.ones(1)
    )
    assert got.max() <= 1
    constant = torch.full((1, 1, SIDE, SIDE), 0.3)
    got = resample(constant, torch.tensor([[20, 11]]), _box([0, 0, 20, 20]), 10)
    assert torch.allclose(got[0, 0, :, :5], torch.tensor(0.3))
    assert (got[0, 0, :, 6:] == 0).all()


def test_blur_adds_its_variance():
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[0, 0, 15, 15] = 1
    extent, whole = torch.tensor([[SIDE, SIDE]]), _box([0, 0, SIDE, SIDE])
    blurred = resample(image, extent, whole, SIDE, blur=torch.tensor([2.0]))[0, 0]
    offset = torch.arange(SIDE) - 15.0
    variance = (blurred.sum(dim=0) * offset.square()).sum() / blurred.sum()
    assert float(variance) == pytest.approx(
        2.0**2, rel=1e-5
    )  # a triangle on whole pixels: (5^2 - 1) / 6


def test_a_row_does_not_depend_on_the_others():
    image = _canvas(4)
    extent = torch.full((4, 2), SIDE)
    box = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [9.0, 9.0, 22.0, 22.0]
    )
    blur = torch.tensor([0.0, 2.0, 0.0, 1.0])
    together = resample(image, extent, box, 13, blur=blur)
    for b in range(4):
        alone = resample(
            image[b : b + 1], extent[b : b + 1], box[b : b + 1], 13, blur=blur[b : b + 1]
        )
        assert torch.equal(alone[0], together[b])


def test_a_mask_moves_with_its_image():
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    mask[0, 0, 7:19, 5:13] = 1
    extent = torch.tensor([[29, 23]])
    box = _box([1.5, 0.5, 26.0, 21.0], [3.0, 2.0, 22.0, 17.0], [-9.0, -3.0, 40.0, 37.0])
    flip = torch.tensor([False, True, True])
    size = 47
    moved = resample_mask(mask, extent, box, size, flip=flip)
    assert moved.dtype == torch.uint8
    assert moved.shape == (3, 1, size, size)
    smooth = resample(mask.float(), extent, box, size, flip=flip)
    certain = (smooth - 0.5).abs() > 0.49
    assert torch.equal((smooth > 0.5)[certain], (moved == 1)[certain])
    assert certain.float().mean() > 0.8


def test_a_mask_at_its_own_size_is_itself_and_zero_beyond():
    mask = torch.ones(1, 1, SIDE, SIDE, dtype=torch.uint8)
    got = resample_mask(mask, torch.tensor([[11, 29]]), _box([-2, -1, SIDE, SIDE]), SIDE)
    expected = torch.zeros_like(mask)
    expected[:, :, 2:13, 1:30] = 1
    assert torch.equal(got, expected)


def test_no_views():
    got = resample(_canvas(), torch.full((2, 2), SIDE), torch.empty(0, 4), 7)
    assert got.shape == (0, 1, 7, 7)

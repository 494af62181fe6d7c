import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from arl.corpus.anatomy import anatomy_index
from arl.loading.augment import Strength, frame_boxes
from arl.loading.loader import Batch
from arl.loading.transforms import (
    MEAN,
    STD,
    MultiCrop,
    TrainView,
    denormalize,
    eval_view,
    normalize,
)

SIDE = 41
OFF = Strength(flip=0, gain=0, slope=0, slider=0, shadow=0, speckle=0, blur=0)


def _batch(count=6, mask=False):
    generator = torch.Generator().manual_seed(0)
    extent = torch.tensor([[41, 29], [23, 41], [41, 41]]).repeat(count // 3, 1)
    image = torch.randint(1, 256, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    for b, (height, width) in enumerate(extent.tolist()):
        image[b, :, height:] = 0
        image[b, :, :, width:] = 0
    return Batch(
        image=image,
        extent=extent,
        anatomy=torch.arange(count) % 3 + 3,  # breast, cardiac, doppler
        target=torch.zeros(count, dtype=torch.long),
        mask=(image > 128).to(torch.uint8) if mask else None,
        index=torch.arange(count),
    )


def _part(batch, start, stop):
    fields = {name: value[start:stop] for name, value in vars(batch).items() if value is not None}
    return Batch(**{"mask": None, **fields})


def _multi_crop(**options):
    return MultiCrop(19, 11, (0.4, 1.0), (0.1, 0.4), 3, seed=5, **options)


def test_shapes():
    batch = _batch()
    views = _multi_crop()(batch, step=0)
    assert views.global_crops.shape == (12, 1, 19, 19)
    assert views.local_crops.shape == (18, 1, 11, 11)
    assert torch.equal(views.anatomy, batch.anatomy)
    assert views.global_crops.dtype == torch.float32
    grey = denormalize(views.global_crops)
    assert grey.min() >= -1e-6
    assert grey.max() <= 1 + 1e-6


def test_one_global_crop_and_no_local_ones():
    views = MultiCrop(19, 11, (0.4, 1.0), (0.1, 0.4), 0, seed=5, global_crops_number=1)(
        _batch(), step=0
    )
    assert views.global_crops.shape == (6, 1, 19, 19)
    assert views.local_crops.shape == (0, 1, 11, 11)


def test_a_function_of_seed_and_step():
    batch = _batch()
    views = _multi_crop()
    first = views(batch, step=7)
    views(batch, step=8)
    assert torch.equal(views(batch, step=7).global_crops, first.global_crops)
    assert torch.equal(_multi_crop()(batch, step=7).local_crops, first.local_crops)
    assert not torch.equal(views(batch, step=8).global_crops, first.global_crops)
    other = MultiCrop(19, 11, (0.4, 1.0), (0.1, 0.4), 3, seed=6)(batch, step=7)
    assert not torch.equal(other.global_crops, first.global_crops)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_rank_sees(world_size):
    batch = _batch()
    whole = _multi_crop()(batch, step=3)
    share = 6 // world_size
    parts = [
        _multi_crop()(
            _part(batch, rank * share, (rank + 1) * share), step=3, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    for views, name in ((2, "global_crops"), (3, "local_crops")):
        pieces = [getattr(part, name).unflatten(0, (views, share)) for part in parts]
        assert torch.equal(torch.cat(pieces, dim=1).flatten(0, 1), getattr(whole, name))
    train = TrainView(19, seed=5)
    pieces = [
        train(
            _part(batch, rank * share, (rank + 1) * share), step=3, rank=rank, world_size=world_size
        ).image
        for rank in range(world_size)
    ]
    assert torch.equal(torch.cat(pieces), train(batch, step=3).image)


def test_images_are_made_a_few_at_a_time_and_nobody_can_tell(monkeypatch):
    batch = _batch(33, mask=True)
    makers = (_multi_crop(), TrainView(19, seed=5), lambda batch, step: eval_view(batch, 19))
    few = [make(batch, step=3) for make in makers]
    monkeypatch.setattr("arl.loading.transforms._CHUNK", 64)
    for parts, make in zip(few, makers, strict=True):
        for one, other in zip(parts, make(batch, step=3), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("part", ["flip", "gain", "slope", "slider", "shadow", "speckle", "blur"])
def test_every_part_reaches_the_views(part):
    batch = replace(_batch(), anatomy=torch.full((6,), anatomy_index("breast")))
    on = replace(OFF, **{part: 1.0})
    for changed, plain in (
        (_multi_crop(strength=on)(batch, step=0), _multi_crop(strength=OFF)(batch, step=0)),
        (
            TrainView(19, seed=5, strength=on)(batch, step=0),
            TrainView(19, seed=5, strength=OFF)(batch, step=0),
        ),
    ):
        assert (changed[0] != plain[0]).flatten(1).any(dim=1).all()


def test_train_views_differ_from_step_to_step():
    train = TrainView(19, seed=5)
    assert not torch.equal(train(_batch(), step=0).image, train(_batch(), step=1).image)
    assert not torch.equal(
        train(_batch(), step=0).image, TrainView(19, seed=6)(_batch(), step=0).image
    )


def test_views_of_an_image_differ_and_are_view_major():
    count = 6
    batch = _batch(count)
    flat = replace(batch, image=torch.zeros_like(batch.image))
    for b, (height, width) in enumerate(batch.extent.tolist()):
        flat.image[b, :, :height, :width] = 40 * b + 20
    views = _multi_crop(strength=OFF)(flat, step=0)
    expected = normalize((torch.arange(count) * 40 + 20) / 255)
    for crops, number in ((views.global_crops, 2), (views.local_crops, 3)):
        levels = crops.flatten(1).mean(dim=1).unflatten(0, (number, count))
        assert torch.allclose(levels, expected.expand(number, count), atol=1e-5)
        assert crops.flatten(1).std(dim=1).max() < 1e-5  # nothing of the empty part of the canvas
    textured = _multi_crop()(batch, step=0).global_crops.unflatten(0, (2, count))
    assert not torch.equal(textured[0], textured[1])


def test_scales_go_to_their_crops():
    ramp = torch.arange(SIDE, dtype=torch.uint8).expand(3, 1, SIDE, SIDE) * 6
    batch = replace(_batch(3), image=ramp.contiguous(), extent=torch.full((3, 2), SIDE))
    views = MultiCrop(19, 11, (0.99, 1.0), (0.04, 0.05), 3, seed=5, strength=OFF)(batch, step=0)

    def width(crops):  # share of the canvas
        size = crops.shape[-1]
        return (
            (crops[..., -2] - crops[..., 1]).mean(dim=(1, 2))
            * STD
            * 255
            / 6
            / SIDE
            * size
            / (size - 3)
        )

    assert (width(views.global_crops) > 0.8).all()
    assert (width(views.local_crops) < 0.3).all()


def test_normalisation_is_undone():
    grey = torch.rand(3, 5)
    assert torch.allclose(denormalize(normalize(grey)), grey, atol=1e-6)
    assert normalize(torch.tensor(MEAN)) == 0


def test_train_view_moves_the_mask_along():
    batch = _batch()
    smooth = torch.zeros_like(batch.image)
    smooth[:, :, 9:21, 7:27] = 255
    batch = replace(batch, image=smooth, mask=(smooth > 0).to(torch.uint8))
    image, mask = TrainView(37, seed=5, strength=replace(OFF, flip=1.0))(batch, step=0)
    assert mask is not None
    assert mask.dtype == torch.uint8
    grey = denormalize(image)
    certain = (grey - 0.5).abs() > 0.49
    assert torch.equal((grey > 0.5)[certain], (mask == 1)[certain])
    assert certain.float().mean() > 0.8
    assert TrainView(37, seed=5)(_batch(), step=0).mask is None


def test_the_widest_train_view_is_nearly_that_of_evaluation():
    batch = _batch(3)
    box = frame_boxes(torch.full((3, 4), 0.5), batch.extent, (1.0, 1.0))
    assert torch.allclose(box[:, 2:], batch.extent.float())
    ramp = (
        (torch.arange(SIDE)[:, None] * 2 + torch.arange(SIDE) * 3)
        .to(torch.uint8)
        .expand(3, 1, SIDE, SIDE)
    )
    smooth = replace(batch, image=ramp.contiguous())
    train = denormalize(
        TrainView(SIDE, seed=5, scale=(1.0, 1.0), strength=OFF)(smooth, step=0).image
    )
    whole = denormalize(eval_view(smooth, SIDE).image)
    assert (whole.amax(dim=(1, 2, 3)) - whole.amin(dim=(1, 2, 3)) > 0.5).all()
    assert (train - whole).abs().max() < 0.05  # the aspect varies


def test_hearts_keep_their_side():
    ramp = torch.arange(SIDE, dtype=torch.uint8).expand(60, 1, SIDE, SIDE).contiguous() * 6
    for name, mirrored in (("cardiac", False), ("breast", True)):
        batch = Batch(
            image=ramp,
            extent=torch.full((60, 2), SIDE),
            anatomy=torch.full((60,), anatomy_index(name)),
            target=torch.zeros(60, dtype=torch.long),
            mask=None,
            index=torch.arange(60),
        )
        views = TrainView(19, seed=5)(batch, step=0).image
        downwards = views[..., -1].mean(dim=(1, 2)) < views[..., 0].mean(dim=(1, 2))
        assert bool(downwards.any()) == mirrored


def test_eval_view_is_the_whole_image_stretched_to_the_square():
    batch = _batch(3, mask=True)
    whole = replace(batch, extent=torch.full((3, 2), SIDE))
    image, mask = eval_view(whole, SIDE)
    assert torch.equal(image, normalize(batch.image.float() / 255))
    assert torch.equal(mask, batch.mask)
    height, width = batch.extent[0].tolist()
    assert height != width
    stretched = denormalize(eval_view(batch, SIDE).image)[0, 0]
    plain = batch.image[:1, :, :height, :width].float() / 255
    expected = F.interpolate(plain, (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(stretched, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (torch.zeros(2, 1, 5, 5), r"float32 \(2, 1, 5, 5\)"),
        (torch.zeros(2, 3, 5, 5).byte(), r"uint8 \(2, 3, 5, 5\)"),
    ],
)
def test_canvases_are_grey_bytes(image, named):
    batch = Batch(
        image,
        torch.full((2, 2), 5),
        torch.zeros(2).long(),
        torch.zeros(2).long(),
        None,
        torch.arange(2),
    )
    with pytest.raises(ValueError, match=named):
        eval_view(batch, 5)


def test_pictures_of_the_augmentations(tmp_path):
    script = Path(__file__).parents[2] / "scripts/make_view_figure.py"
    spec = importlib.util.spec_from_file_location("make_view_figure", script)
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    image = Image.fromarray(_batch().image[0, 0, :, :29].numpy())
    figure.main(image, tmp_path / "figures", side=24)
    pictures = {
        path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "figures").iterdir()
    }
    assert pictures.keys() == {*figure.PARTS, "views"}
    for name in figure.PARTS:
        tiles = pictures[name].reshape(24, 5, 28)[:, :, :24]  # the image and four versions
        assert any((tiles[:, 0] != tiles[:, version]).any() for version in range(1, 5)), name


def test_constants_fit_real_ultrasound():
    root = os.environ.get("ARL_REAL_DATA")
    if not root:
        pytest.skip("ARL_REAL_DATA is not set: no real ultrasound here")
    files = sorted(Path(root, "BUSBRA/Images").glob("*.png"))[::37]
    pixels = torch.cat(
        [
            torch.from_numpy(np.asarray(Image.open(file).convert("L")).copy()).flatten()
            for file in files
        ]
    )
    grey = normalize(pixels.float() / 255)
    assert abs(float(grey.mean())) < 0.75
    assert 0.5 < float(grey.std()) < 1.5

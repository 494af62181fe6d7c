import math
from dataclasses import replace

import pytest
import torch

from arl.corpus.anatomy import anatomy_index
from arl.loading.augment import (
    DYNAMIC_RANGE,
    SLIDERS,
    Strength,
    apply_decibels,
    blur_std,
    decibels,
    draw,
    flips,
    frame_boxes,
    gain_curve,
    inner_boxes,
    shadow_loss,
    speckle_noise,
    step_generator,
)

ASPECT = (3 / 4, 4 / 3)
OFF = Strength(flip=0, gain=0, slope=0, slider=0, shadow=0, speckle=0, blur=0)


def _draws(count, views=1, seed=0):
    return draw(views, count, torch.Generator().manual_seed(seed)).part(0, count)


def test_generator_depends_on_all_of_its_arguments():
    def number(*arguments):
        return float(torch.rand(1, generator=step_generator(*arguments)))

    assert number(1, 2, "mask") == number(1, 2, "mask")
    others = [(1, 3, "mask"), (2, 2, "mask"), (2, 1, "mask"), (1, 2, "masks"), (1, 2, "views")]
    assert len({number(*case) for case in [(1, 2, "mask"), *others]}) == 6


def test_parts_make_the_whole():
    draws = draw(3, 7, torch.Generator().manual_seed(0))
    assert [tuple(field.shape) for field in draws] == [
        (3, 7, 4),
        (3, 7),
        (3, 7, 2 + SLIDERS),
        (3, 7, 6),
        (3, 7),
        (3, 7),
        (3, 7),
    ]
    first, second = draws.part(0, 5), draws.part(5, 7)
    for whole, head, tail in zip(draws, first, second, strict=True):
        both = torch.cat([head.unflatten(0, (3, 5)), tail.unflatten(0, (3, 2))], dim=1)
        assert torch.equal(both, whole)


def test_boxes_stay_inside_and_keep_their_share_and_shape():
    count = 2000
    draws = _draws(count)
    extent = torch.tensor([[97, 113]]).expand(count, 2)
    top, left, height, width = inner_boxes(draws.crop, extent, (0.2, 0.5)).unbind(dim=1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 97 + 1e-4).all()
    assert (left + width <= 113 + 1e-4).all()
    share, aspect = height * width / (97 * 113), width / height
    assert share.min() >= 0.2 - 1e-4
    assert share.max() <= 0.5 + 1e-4
    assert 0.34 < share.mean() < 0.36
    assert aspect.min() >= ASPECT[0] - 1e-4
    assert aspect.max() <= ASPECT[1] + 1e-4
    assert aspect.log().mean().abs() < 0.02
    assert top.min() < 1  # every place is reached
    assert (left + width).max() > 112


@pytest.mark.parametrize("extent", [(11, 113), (113, 11)])
def test_boxes_of_a_narrow_image_are_not_stretched(extent):
    box = inner_boxes(_draws(500).crop, torch.tensor([extent]).expand(500, 2), (0.3, 1.0))
    aspect = box[:, 3] / box[:, 2]
    assert aspect.min() >= ASPECT[0] - 1e-4
    assert aspect.max() <= ASPECT[1] + 1e-4
    assert (box[:, 2:].amin(dim=1) <= 11 + 1e-4).all()
    assert (box[:, :2] + box[:, 2:] <= torch.tensor(extent) + 1e-4).all()


def test_the_whole_image_is_taken_when_asked_for():
    crop = torch.tensor([[0.3, 0.5, 0.7, 0.9]])
    box = inner_boxes(crop, torch.tensor([[53, 53]]), (1.0, 1.0))
    assert torch.allclose(box, torch.tensor([[0.0, 0.0, 53.0, 53.0]]), atol=1e-4)


def test_frames_are_a_share_of_the_image_in_its_own_form():
    count, extent = 2000, torch.tensor([60.0, 100.0])
    box = frame_boxes(_draws(count).crop, extent.expand(count, 2), (0.3, 1.0))
    first, sides = box[:, :2], box[:, 2:]
    share, form = sides.prod(dim=1) / (60 * 100), sides[:, 1] / sides[:, 0] / (100 / 60)
    assert share.min() == pytest.approx(0.3, abs=0.01)
    assert 0.97 < share.max() <= 1
    assert form.min() == pytest.approx(0.9, abs=0.005)
    assert form.max() == pytest.approx(1 / 0.9, abs=0.005)
    assert (first >= 0).all()
    assert (first + sides <= extent + 1e-4).all()


def test_a_whole_frame_is_the_image():
    crop = torch.tensor([[0.3, 0.5, 0.25, 0.9]])
    box = frame_boxes(crop, torch.tensor([[60, 100]]), (1.0, 1.0))
    assert torch.allclose(box, torch.tensor([[0.0, 0.0, 60.0, 100.0]]), atol=1e-4)


def test_hearts_are_never_mirrored():
    uniform = torch.linspace(0, 0.999, 1000)
    breast = torch.full((1000,), anatomy_index("breast"))
    heart = torch.full((1000,), anatomy_index("cardiac"))
    assert int(flips(uniform, breast, Strength()).sum()) == 500
    assert int(flips(uniform, heart, Strength(flip=1.0)).sum()) == 0


def test_blur_is_occasional_and_limited():
    std = blur_std(torch.linspace(0, 0.999, 1000), Strength(blur=0.3, blur_std=2.0))
    assert int((std > 0).sum()) == pytest.approx(300, abs=1)
    assert std.max() == pytest.approx(2.0)
    assert float(std[std > 0].mean()) == pytest.approx(1.0, abs=0.01)
    assert (blur_std(torch.zeros(3), OFF) == 0).all()


def test_gain_slope_and_sliders_add_up():
    gain = torch.zeros(1, 2 + SLIDERS, dtype=torch.float64).add_(0.5)
    strength = Strength(gain=6.0, slope=10.0, slider=4.0)
    assert (gain_curve(gain, strength, 11) == 0).all()
    gain[0, 0] = 1.0
    assert torch.allclose(
        gain_curve(gain, strength, 11), torch.full((1, 11), 6.0, dtype=torch.float64)
    )
    gain[0, 1] = 0.0  # attenuation: brighter above, darker below
    line = gain_curve(gain, strength, 11)[0]
    assert math.isclose(float(line[0]), 6 + 5)
    assert math.isclose(float(line[5]), 6)
    assert math.isclose(float(line[-1]), 6 - 5)
    gain[0, 1] = 0.5
    gain[0, 2 + SLIDERS - 1] = 0.0  # the lowest slider
    curve = gain_curve(gain, strength, 11)[0]
    assert math.isclose(float(curve[-1]), 6 - 4)
    assert torch.allclose(curve[:9], torch.full((9,), 6.0, dtype=torch.float64))


def test_shadow_is_a_band_from_its_top_downwards():
    size = 101
    #                       whether loss width position tilt top
    shadow = torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    strength = Strength(shadow_loss=(4.0, 15.0), shadow_width=(0.1, 0.3))
    loss = shadow_loss(shadow, strength, size)[0]
    assert (loss[: int(0.3 * size)] == 0).all()  # starts at 0.6 * 0.5 of the depth
    assert loss.max() == 15.0
    assert (loss[36:, 50] == 15.0).all()  # in the core, once it has set in
    assert (loss[:, :30] == 0).all()
    assert (loss[:, 71:] == 0).all()
    assert torch.allclose(loss, loss.flip(1))
    width = (loss > 7.5).sum(dim=1)
    assert width[-1] > width[40]


def test_speckle_is_the_logarithm_of_an_exponential():
    noise = speckle_noise(torch.arange(40), 97)
    corners = noise[:, ::2, 1::4]  # interpolated everywhere, but less here
    assert noise.shape == (40, 97, 97)
    assert abs(float(noise.mean())) < 0.1
    assert 2.5 < float(corners.std()) < 5.6  # 5.57 dB before interpolation
    skew = ((noise - noise.mean()) / noise.std()).pow(3).mean()
    assert skew < -0.3  # long tail to the dark


def test_pixel_noise_is_each_rows_own():
    seeds = torch.tensor([11, 5, 11])
    noise = speckle_noise(seeds, 19)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(speckle_noise(seeds[1:2], 19)[0], noise[1])
    assert speckle_noise(seeds[:0], 19).shape == (0, 19, 19)


def test_switched_off_changes_nothing():
    image = torch.rand(5, 1, 17, 17)
    change = decibels(_draws(5), OFF, 17)
    assert change.shape == (5, 1, 17, 17)
    assert (change == 0).all()
    assert torch.equal(apply_decibels(image, change), image)


@pytest.mark.parametrize("part", ["gain", "slope", "slider", "shadow", "speckle"])
def test_every_part_can_be_switched_on_alone(part):
    values = {"gain": 6.0, "slope": 10.0, "slider": 5.0, "shadow": 1.0, "speckle": 1.0}
    draws = _draws(7)
    change = decibels(draws, replace(OFF, **{part: values[part]}), 17)[:, 0]
    assert (change.flatten(1) != 0).any(dim=1).all()
    if part in ("gain", "slope", "slider"):
        assert torch.equal(change, change[:, :, :1].expand_as(change))  # a function of depth
    expected = {
        "gain": lambda: (2 * draws.gain[:, :1, None] - 1) * 6.0,
        "shadow": lambda: -shadow_loss(draws.shadow, Strength(), 17),
        "speckle": lambda: speckle_noise(draws.seed, 17) * (1 - draws.speckle[:, None, None]) * 0.5,
    }
    if part in expected:
        assert torch.allclose(change, expected[part]().expand_as(change), atol=1e-5)


def test_shadow_and_speckle_come_as_often_as_they_should():
    draws = _draws(400)
    shaded = decibels(draws, replace(OFF, shadow=0.2), 13).flatten(1).abs().amax(dim=1) > 0
    grainy = decibels(draws, replace(OFF, speckle=0.5), 13).flatten(1).abs().amax(dim=1) > 0
    assert torch.equal(grainy, draws.speckle < 0.5)
    assert torch.equal(shaded, draws.shadow[:, 0] < 0.2)
    assert abs(float(shaded.float().mean()) - 0.2) < 0.08
    assert abs(float(grainy.float().mean()) - 0.5) < 0.1


def test_decibels_are_added_to_the_grey_level():
    image = torch.tensor([0.0, 0.05, 0.1, 0.5, 0.99])
    brighter = apply_decibels(image, torch.full((5,), 0.1 * DYNAMIC_RANGE))
    assert torch.allclose(brighter, torch.tensor([0.0, 0.1, 0.2, 0.6, 1.0]))
    darker = apply_decibels(image, torch.full((5,), -0.2 * DYNAMIC_RANGE))
    assert torch.allclose(darker, torch.tensor([0.0, 0.0, 0.0, 0.3, 0.79]))


@pytest.mark.parametrize("change", [-40.0, -6.0, -3.0, 3.0, 6.0, 40.0])
def test_brighter_stays_brighter(change):
    image = torch.linspace(0, 1, 1001)
    changed = apply_decibels(image, torch.full((1001,), change))
    assert (changed.diff() >= -1e-6).all()
    assert changed[0] == 0
    assert changed.max() <= 1

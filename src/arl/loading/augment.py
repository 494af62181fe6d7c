"""Ultrasound-safe augmentation of batches: changes that a probe, a beam or an operator can cause.

Geometry is a crop of the valid part of the image, a horizontal flip where the view has no fixed
side, and a mild blur. Everything else happens in decibels. A B-mode image is the log-compressed
envelope, x = 1 + 20 log10(A) / DR. Overall gain, the sliders of time-gain compensation (TGC),
attenuation with depth, acoustic shadow and multiplicative speckle are therefore *added*, and their
sum is applied once. There is no hue, solarise, vertical flip or rotation, because none of them
gives an ultrasound image.

`draw` makes the uniform random numbers of the global batch; each rank takes its slice of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arl.corpus.anatomy import anatomy_index

DYNAMIC_RANGE = 60.0  # dB between black and white of a usual B-mode display
SLIDERS = 6  # of the TGC, evenly over the depth
# Below this grey level a change fades out: pixels without signal, outside the sector, stay black.
_BLACK = 0.1
_ONSET = 0.05  # fraction of the depth over which a shadow sets in
_SPECKLE_CELL = (2, 4)  # pixels, axial and lateral: speckle is wider than deep
# dB; the mean of 10 log10 of an exponential variable: 10 log10(e) times minus Euler's constant.
_SPECKLE_MEAN = -2.5068
# In standard heart views left and right of the display have a meaning: a mirrored view is another
# view.
_SIDED = (anatomy_index("cardiac"),)


@dataclass(frozen=True)
class Strength:
    """Strength of each augmentation; zero disables it."""

    flip: float = 0.5  # probability
    gain: float = 6.0  # dB, maximum, up or down
    # attenuation: dB lost or gained from the top of the view to its bottom, maximum
    slope: float = 10.0
    slider: float = 5.0  # dB, maximum, of each TGC slider, up or down
    shadow: float = 0.2  # probability
    shadow_loss: tuple[float, float] = (4.0, 15.0)  # dB in the core of a shadow
    shadow_width: tuple[float, float] = (0.08, 0.3)  # fraction of the view's width
    speckle: float = 0.5  # probability
    # maximum; 1 multiplies the envelope with fully developed speckle (5.6 dB)
    speckle_power: float = 0.5
    blur: float = 0.3  # probability
    blur_std: float = 1.0  # pixels of the view, maximum

    @property
    def brightens(self) -> bool:
        """Whether any augmentation of brightness is enabled."""
        return any((self.gain, self.slope, self.slider, self.shadow, self.speckle))


class Draws(NamedTuple):
    """Uniform random numbers in [0, 1): (V, B_global, ...), or (R, ...) for one rank."""

    crop: Tensor  # (..., 4): area, aspect, top, left
    flip: Tensor  # (...)
    gain: Tensor  # (..., 2 + SLIDERS): gain, slope, sliders
    shadow: Tensor  # (..., 6): occurrence, loss, width, position, tilt, depth of the top
    speckle: Tensor  # (...): occurrence and power
    blur: Tensor  # (...): occurrence and width
    seed: Tensor  # long (...): of the pixel noise

    def part(self, start: int, stop: int) -> "Draws":
        """Rows (V * (stop - start), ...), view-major, of images start, ..., stop - 1."""
        return Draws(*(field[:, start:stop].flatten(0, 1) for field in self))

    def rows(self, part: slice) -> "Draws":
        """Some of a rank's rows."""
        return Draws(*(field[part] for field in self))


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A generator that depends on the seed, the step and the purpose only."""
    state = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def draw(views: int, batch: int, generator: torch.Generator) -> Draws:
    """Random numbers of `views` views of a global batch, equally many for any strength."""

    def uniform(*width: int) -> Tensor:
        return torch.rand((views, batch, *width), generator=generator)

    return Draws(
        crop=uniform(4),
        flip=uniform(),
        gain=uniform(2 + SLIDERS),
        shadow=uniform(6),
        speckle=uniform(),
        blur=uniform(),
        seed=torch.randint(1 << 31, (views, batch), generator=generator),
    )


def _between(uniform: Tensor, bounds: Sequence[float]) -> Tensor:
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def _occasional(uniform: Tensor, probability: float) -> Tensor:
    """Uniform in (0, 1] with the probability, otherwise 0."""
    return torch.where(uniform < probability, 1 - uniform / max(probability, 1e-9), 0)


def _sides(
    crop: Tensor, area: Tensor, scale: Sequence[float], aspect: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Height and width (R,) of a random fraction of the area and a random aspect."""
    crop_area = _between(crop[:, 0], scale) * area
    ratio = _between(crop[:, 1], [math.log(bound) for bound in aspect]).exp()
    return (crop_area / ratio).sqrt(), (crop_area * ratio).sqrt()


def _placed(crop: Tensor, extent: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Boxes (R, 4) at a random place inside of the image."""
    first = crop[:, 2:] * (extent - torch.stack([height, width], dim=1))
    return torch.cat([first, height[:, None], width[:, None]], dim=1)


def inner_boxes(
    crop: Tensor, extent: Tensor, scale: Sequence[float], aspect: Sequence[float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Boxes (R, 4) inside of the image, as in RandomResizedCrop.

    A box longer than the image is cut to the image, and its other side to the widest aspect
    allowed. torchvision samples again instead.

    Args:
        crop: uniform (R, 4).
        extent: valid height and width, (R, 2).
        scale: least and greatest fraction of the image's valid area.
        aspect: least and greatest width / height.
    """
    height, width = _sides(crop, extent[:, 0] * extent[:, 1], scale, aspect)
    height, width = torch.minimum(height, extent[:, 0]), torch.minimum(width, extent[:, 1])
    height, width = (
        torch.minimum(height, width / aspect[0]),
        torch.minimum(width, height * aspect[1]),
    )
    return _placed(crop, extent, height, width)


def frame_boxes(
    crop: Tensor, extent: Tensor, scale: Sequence[float], aspect: Sequence[float] = (9 / 10, 10 / 9)
) -> Tensor:
    """Boxes (R, 4) like `inner_boxes`, with the image's aspect ratio times a random `aspect`.

    Scaling them to a square stretches them like the whole image in evaluation. The aspect varies
    less than in pretraining, because "taller than wide" is a sign of malignancy.
    """
    height, width = _sides(crop, torch.ones_like(crop[:, 0]), scale, aspect)
    return _placed(
        crop, extent, height.clamp(max=1) * extent[:, 0], width.clamp(max=1) * extent[:, 1]
    )


def flips(uniform: Tensor, anatomy: Tensor, strength: Strength) -> Tensor:
    """The mirrored views, bool (R,): none of an anatomy whose display has a fixed side."""
    sided = torch.zeros_like(anatomy, dtype=torch.bool)
    for index in _SIDED:
        sided |= anatomy == index
    return (uniform < strength.flip) & ~sided


def blur_std(uniform: Tensor, strength: Strength) -> Tensor:
    """Standard deviation of the blur, pixels of the view, (R,): `resample` takes it."""
    return _occasional(uniform, strength.blur) * strength.blur_std


def gain_curve(gain: Tensor, strength: Strength, size: int) -> Tensor:
    """Gain, attenuation and TGC over depth, dB, (R, size): constant, line and slider curve."""
    signed = 2 * gain - 1
    depth = torch.linspace(0, 1, size, dtype=gain.dtype, device=gain.device)
    sliders = F.interpolate(
        signed[:, None, 2:] * strength.slider, size=size, mode="linear", align_corners=True
    )
    straight = signed[:, :1] * strength.gain + signed[:, 1:2] * strength.slope * (depth - 0.5)
    return straight + sliders[:, 0]


def shadow_loss(shadow: Tensor, strength: Strength, size: int) -> Tensor:
    """Loss behind a reflector, dB, (R, size, size): a band with soft edges.

    The band starts at a random lateral position in the upper 60 % and reaches the bottom of the
    view. It follows a slightly tilted beam and widens by up to half, as behind a rib or a stone
    under a convex probe.
    """
    _, loss, width, position, tilt, top = shadow[:, :, None, None].unbind(dim=1)
    line = (torch.arange(size, dtype=shadow.dtype, device=shadow.device) + 0.5) / size
    depth, lateral = line[None, :, None], line[None, None, :]
    fallen = depth - 0.6 * top
    center = position + (0.4 * tilt - 0.2) * fallen
    half = 0.5 * _between(width, strength.shadow_width) * (1 + 0.5 * fallen)
    # the penumbra on each side is half as wide as the core
    core = (1.5 - (lateral - center).abs() / half).clamp_(0, 1)
    return core * (fallen / _ONSET).clamp(0, 1) * _between(loss, strength.shadow_loss)


def speckle_noise(seed: Tensor, size: int) -> Tensor:
    """Log-compressed speckle, dB, zero mean, (R, size, size); each row has a seed of its own.

    Fully developed speckle multiplies the intensity with an exponential variable. Its logarithm is
    the Fisher-Tippett noise of B-mode. The noise has one sample per 2 x 4 pixels, the shape of a
    resolution cell, and is interpolated between them.
    """
    cells = [-(-size // cell) for cell in _SPECKLE_CELL]
    uniform = torch.empty(len(seed), *cells)
    generator = torch.Generator()
    for row, value in zip(uniform, seed.tolist(), strict=True):
        torch.rand(cells, generator=generator.manual_seed(value), out=row)
    decibels = (
        uniform.to(seed.device).clamp_(min=1e-7).log_().neg_().clamp_(min=1e-4).log10_().mul_(10)
    )
    grown = F.interpolate(
        (decibels - _SPECKLE_MEAN)[:, None], size=(size, size), mode="bilinear", align_corners=False
    )
    return grown[:, 0]


def decibels(draws: Draws, strength: Strength, size: int) -> Tensor:
    """Sum of all changes of brightness, dB, (R, 1, size, size)."""
    change = gain_curve(draws.gain, strength, size)[:, :, None].repeat(1, 1, size)
    # Most views have neither shadow nor speckle, so only the rows that have one are computed.
    shaded = (draws.shadow[:, 0] < strength.shadow).nonzero()[:, 0]
    change.index_add_(0, shaded, shadow_loss(draws.shadow[shaded], strength, size), alpha=-1)
    power = _occasional(draws.speckle, strength.speckle) * strength.speckle_power
    grainy = power.nonzero()[:, 0]
    change.index_add_(
        0, grainy, speckle_noise(draws.seed[grainy], size) * power[grainy, None, None]
    )
    return change[:, None]


def apply_decibels(image: Tensor, change: Tensor) -> Tensor:
    """Brighten or darken images in [0, 1] by `change` dB; black stays black."""
    signal = (image * (1 / _BLACK)).clamp_(max=1)
    return torch.add(image, signal.mul_(change), alpha=1 / DYNAMIC_RANGE).clamp_(0, 1)

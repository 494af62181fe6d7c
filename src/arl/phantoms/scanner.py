"""A synthetic scanner: turns a painted tissue into the grey levels of a displayed frame."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arl.phantoms.geometry import Array, ScanConverter
from arl.phantoms.speckle import envelope, speckle_field, transmission, with_clutter
from arl.phantoms.tissue import Tissue, uniform

# Smallest envelope, -80 dB: keeps the logarithm finite.
_FLOOR = 1e-4
# Fraction of the grey scale at 0 dB and gain 0.
_REFERENCE = 0.40


@dataclass(frozen=True)
class Scanner:
    """Acquisition and display settings that distinguish two machines."""

    device: str
    # Standard deviation of the pulse, as a fraction of the depth.
    axial: float
    # Standard deviation of the beam at the focus, as a fraction of the aperture.
    lateral: float
    looks: int
    # dB.
    gain: float
    # dB.
    dynamic_range: float
    gamma: float
    # Electronic noise at the face, dB.
    noise: float
    # Side lobes, dB.
    clutter: float


ALPHA = Scanner(
    device="Phantom Alpha",
    axial=0.0042,
    lateral=0.0085,
    looks=3,
    gain=3,
    dynamic_range=60,
    gamma=1.1,
    noise=-44,
    clutter=-27,
)
BETA = Scanner(
    device="Phantom Beta",
    axial=0.0055,
    lateral=0.0115,
    looks=2,
    gain=6,
    dynamic_range=54,
    gamma=1.35,
    noise=-39,
    clutter=-24,
)


def acquire(
    tissue: Tissue, scanner: Scanner, converter: ScanConverter, rng: Generator
) -> NDArray[np.uint8]:
    """Simulate one displayed frame: (height, width) grey levels, 0 outside the field of view."""
    received = 20 * np.log10(np.maximum(_receive(tissue, scanner, rng), np.float32(_FLOOR)))
    # Operators set the gain by eye, so it varies from frame to frame.
    gain = np.float32(scanner.gain + rng.normal(0, 1.5))
    level = (_REFERENCE + (received + gain) / np.float32(scanner.dynamic_range)).astype(np.float32)
    smooth = cv2.GaussianBlur(np.clip(converter(level), 0, 1), (0, 0), 0.5)
    grey = np.rint(255 * np.power(smooth, np.float32(scanner.gamma)))
    return np.where(converter.inside, grey, 0).astype(np.uint8)


def _receive(tissue: Tissue, scanner: Scanner, rng: Generator) -> Array:
    """The envelope in beam space, (samples, beams), relative to average soft tissue."""
    samples, beams = tissue.x.shape
    path = transmission(tissue.attenuation, tissue.step) + _coupling(tissue, rng)
    level = with_clutter(tissue.echo, scanner.clutter) + path
    depth = ((np.arange(samples) + 0.5) / samples).astype(np.float32)
    focus = np.float32(uniform(rng, 0.35, 0.65))
    # The width of a Gaussian beam grows from its focus as a hyperbola.
    relative = np.sqrt(1 + np.square((depth - focus) / np.float32(0.45))).astype(np.float32)
    width = scanner.lateral * beams * relative
    field = speckle_field(level, scanner.axial * samples, width, scanner.looks, rng)
    field[..., : scanner.looks] += (tissue.specular * np.power(np.float32(10), path / 20))[
        ..., None
    ]
    # the TGC amplifies electronic noise with depth
    noise = np.power(np.float32(10), (scanner.noise + 14 * depth) / 20)[:, None, None]
    field += noise * np.repeat(
        rng.standard_normal((samples, beams, 2), dtype=np.float32), scanner.looks, axis=2
    )
    return envelope(field)


def _coupling(tissue: Tissue, rng: Generator) -> Array:
    """Loss in dB from poor contact at the probe's ends and from the TGC's error over depth."""
    samples, beams = tissue.x.shape
    across = np.linspace(-1, 1, beams, dtype=np.float32)
    ends = -uniform(rng, 0, 5) * np.abs(across) ** 4
    bad = -uniform(rng, 0, 9) * np.exp(
        -0.5 * ((across - rng.uniform(-1.2, 1.2)) / rng.uniform(0.05, 0.2)) ** 2
    )
    knots = np.interp(np.linspace(0, 5, samples), np.arange(6), np.cumsum(rng.normal(-0.5, 1.4, 6)))
    return np.asarray((ends + bad)[None, :] + knots[:, None], np.float32)

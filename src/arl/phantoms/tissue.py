"""A tissue to paint on: echogenicity, attenuation and specular echoes at the samples of a probe.

A region is an array of signed distances in cm, negative inside; a surface is an array of distances
in cm.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arl.phantoms.geometry import Probe

Array = NDArray[np.float32]
AnyArray = NDArray[np.floating[Any]]

# Side of the random tile that textures are read from.
_TILE = 64
# Angles at which an outline is tabulated.
_TURNS = 2048
# Cubic refinement of the tile, so that the lookup can be linear.
_FINER = 4


def uniform(rng: Generator, low: float, high: float) -> float:
    """Draw from the uniform distribution on [low, high)."""
    return float(rng.uniform(low, high))


@dataclass(frozen=True)
class Structure:
    """A named region: the ground truth of a segmentation mask."""

    name: str
    region: Array


class Oval(NamedTuple):
    """Centre, half axes (cm) and rotation (radians): the arguments of `ellipse` and `blob`."""

    x: float
    z: float
    a: float
    b: float
    angle: float = 0.0

    def point(self, u: float, v: float) -> tuple[float, float]:
        """x and z of the point u cm along the first axis and v cm along the second."""
        cosine, sine = float(np.cos(self.angle)), float(np.sin(self.angle))
        return self.x + u * cosine - v * sine, self.z + u * sine + v * cosine


class Tissue:
    """Maps over (samples, beams) that a scene paints; 0 dB is soft tissue of average brightness."""

    def __init__(self, probe: Probe, samples: int, beams: int) -> None:
        self.probe = probe
        # cm, at the widest.
        self.width = 2 * probe.extent()[1]
        self.x, self.z = probe.points(samples, beams)
        # lateral position as a fraction of the aperture, 0..1
        self.beam = np.broadcast_to(
            (np.arange(beams, dtype=np.float32) + 0.5) / beams, self.x.shape
        )
        # cm between samples.
        self.step = probe.depth / samples
        along_beam = (np.arange(samples, dtype=np.float32) + 0.5) * np.float32(self.step)
        # cm from the face.
        self.deep = np.broadcast_to(along_beam[:, None], self.x.shape)
        # distance between beams, cm: it grows with depth for a curved probe
        self.pitch = np.hypot(np.gradient(self.x, axis=1), np.gradient(self.z, axis=1))
        # dB.
        self.echo = np.zeros_like(self.x)
        # dB/cm, two-way excess over what the TGC assumes.
        self.attenuation = np.zeros_like(self.x)
        # Amplitude of the coherent echo, 1 = 0 dB.
        self.specular = np.zeros_like(self.x)

    def fill(
        self, region: AnyArray, echo: AnyArray | float, attenuation: float = 0.0, edge: float = 0.05
    ) -> None:
        """Replace the contents of a region, with a soft border of `edge` cm.

        The fill also removes earlier specular echoes inside the region.
        """
        inside = np.clip(0.5 - region / np.float32(edge), 0, 1).astype(np.float32)
        self.echo += (inside * (echo - self.echo)).astype(np.float32)
        self.attenuation += inside * (np.float32(attenuation) - self.attenuation)
        self.specular -= inside * self.specular

    def add(self, change: AnyArray) -> None:
        """Raise the echogenicity by `change` dB."""
        self.echo += change.astype(np.float32)

    def shine(
        self, distance: AnyArray, level: float, thickness: float, strength: AnyArray | float = 1.0
    ) -> None:
        """Paint a reflector of `thickness` cm with a coherent echo of `level` dB.

        `strength` (0..1) scales the echo along the surface; 1 is perpendicular incidence.
        """
        # a specular reflection is coherent: it adds to the amplitude, not to the speckle
        profile = (np.exp(-0.5 * np.square(distance / np.float32(thickness))) * strength).astype(
            np.float32
        )
        self.specular += np.float32(10 ** (level / 20)) * profile
        self.echo += np.maximum(np.float32(level - 4) - self.echo, 0) * profile

    def texture(self, rng: Generator, along: float, across: float, angle: float = 0.0) -> Array:
        """Smooth noise of unit variance; `along` and `across` are its correlation lengths, cm."""
        return self.warped(rng, along, across, self.x, self.z, angle)

    def warped(
        self, rng: Generator, along: float, across: float, x: Array, z: Array, angle: float = 0.0
    ) -> Array:
        """`texture` at other coordinates, e.g. depth below a curved surface."""
        tile = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
        fine = cv2.resize(tile, None, fx=_FINER, fy=_FINER, interpolation=cv2.INTER_CUBIC)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u = (x * cosine + z * sine) * np.float32(_FINER / along) + _TILE * _FINER / 2
        v = (z * cosine - x * sine) * np.float32(_FINER / across) + _TILE * _FINER / 2
        read = cv2.remap(
            fine * np.float32(1.25), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        return np.asarray(read, np.float32)

    def wavy(self, rng: Generator, depth: float, amplitude: float, length: float) -> Array:
        """Depth in cm of an undulating interface, (samples, beams), with period `length` cm."""
        depths = np.full_like(self.x, depth)
        for octave in (1.0, 2.3, 4.1):
            phase, scale = rng.uniform(0, 2 * np.pi), amplitude / octave
            depths += np.float32(scale) * np.sin(
                self.x * np.float32(2 * np.pi * octave / length) + np.float32(phase)
            )
        return depths


def ellipse(tissue: Tissue, x: float, z: float, a: float, b: float, angle: float = 0.0) -> Array:
    """Region of an ellipse with half axes `a` and `b` in cm, rotated by `angle` radians."""
    u, v = local_axes(tissue, x, z, angle)
    return np.asarray(
        (np.hypot(u / np.float32(a), v / np.float32(b)) - 1) * np.float32(min(a, b)), np.float32
    )


def local_axes(tissue: Tissue, x: float, z: float, angle: float = 0.0) -> tuple[Array, Array]:
    """Coordinates relative to (x, z) on axes that are rotated by `angle` radians."""
    dx, dz = tissue.x - np.float32(x), tissue.z - np.float32(z)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return dx * cosine + dz * sine, dz * cosine - dx * sine


def blob(
    tissue: Tissue,
    rng: Generator,
    x: float,
    z: float,
    a: float,
    b: float,
    angle: float = 0.0,
    roughness: float = 0.0,
) -> Array:
    """Region of an ellipse whose radius varies by a fraction `roughness` over the angle."""
    u, v = local_axes(tissue, x, z, angle)
    u, v = u / np.float32(a), v / np.float32(b)
    turn = np.arctan2(v, u) * np.float32(_TURNS / (2 * np.pi))
    radius = _outline(rng, roughness)[turn.astype(np.int32) % _TURNS]
    return (np.hypot(u, v) - radius) * np.float32(min(a, b))


def _outline(rng: Generator, roughness: float) -> Array:
    """Radius around 1 at `_TURNS` angles: harmonics 2 to 8, the higher the smaller."""
    order = np.arange(2, 9)
    size = 1.4 * roughness / order**0.8 * rng.standard_normal(len(order))
    angle = np.arange(_TURNS)[:, None] * (2 * np.pi / _TURNS)
    radius = 1 + np.cos(order * angle + rng.uniform(0, 2 * np.pi, len(order))) @ size
    return np.maximum(radius, 0.35).astype(np.float32)


def segment(tissue: Tissue, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distance to the line between two points (x, z), cm."""
    dx, dz = end[0] - start[0], end[1] - start[1]
    u, v = tissue.x - np.float32(start[0]), tissue.z - np.float32(start[1])
    along = np.clip((u * np.float32(dx) + v * np.float32(dz)) / np.float32(dx * dx + dz * dz), 0, 1)
    return np.asarray(np.hypot(u - along * np.float32(dx), v - along * np.float32(dz)), np.float32)


def union(*regions: AnyArray) -> Array:
    """Points inside any of the regions."""
    return np.asarray(np.minimum.reduce(regions), np.float32)


def intersection(*regions: AnyArray) -> Array:
    """Points inside all of the regions."""
    return np.asarray(np.maximum.reduce(regions), np.float32)


def facing(tissue: Tissue, region: Array) -> Array:
    """Perpendicularity of beam and border, 0..1: bright caps above and below, faint sides."""
    along = np.square(np.gradient(region, axis=0) / np.float32(tissue.step))
    across = np.square(np.gradient(region, axis=1) / tissue.pitch)
    return np.asarray(along / (along + across + np.float32(1e-6)), np.float32)

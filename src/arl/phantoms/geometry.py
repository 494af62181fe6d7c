"""Probe geometries: where a beam's samples lie in the body, and scan conversion to pixels.

Body coordinates are centimetres: x to the right, z downward from the middle of the probe's face.
Beam coordinates are (sample, beam): sample 0 lies at the face, beam 0 at the left.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """Parallel beams under a flat face of `width` cm."""

    depth: float
    width: float
    kind: str = "linear"

    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the image, cm."""
        return -self.width / 2, self.width / 2, 0.0, self.depth

    def points(self, samples: int, beams: int) -> tuple[Array, Array]:
        """x and z of every sample, each (samples, beams), cm."""
        z = (np.arange(samples) + 0.5) * (self.depth / samples)
        x = ((np.arange(beams) + 0.5) / beams - 0.5) * self.width
        return _grid(x, z)

    def beam_coordinates(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Position as fractions of depth and aperture; both are in 0..1 inside the image."""
        return z / self.depth, x / self.width + 0.5


@dataclass(frozen=True)
class Curved:
    """Beams that fan out over `angle` radians from a face of curvature `radius` cm.

    A radius near 0 is a phased array.
    """

    depth: float
    angle: float
    radius: float
    # Convex | sector.
    kind: str

    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the image, cm."""
        half = (self.radius + self.depth) * math.sin(self.angle / 2)
        return -half, half, self.radius * (math.cos(self.angle / 2) - 1), self.depth

    def points(self, samples: int, beams: int) -> tuple[Array, Array]:
        """x and z of every sample, each (samples, beams), cm."""
        distance = self.radius + (np.arange(samples) + 0.5) * (self.depth / samples)
        angles, distances = _grid(((np.arange(beams) + 0.5) / beams - 0.5) * self.angle, distance)
        return distances * np.sin(angles), distances * np.cos(angles) - np.float32(self.radius)

    def beam_coordinates(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Position as fractions of depth and opening angle; both are in 0..1 inside the image."""
        below = z + np.float32(self.radius)
        return (np.hypot(x, below) - self.radius) / self.depth, np.arctan2(
            x, below
        ) / self.angle + 0.5


Probe = Linear | Curved


def _grid(
    columns: NDArray[np.floating[Any]], rows: NDArray[np.floating[Any]]
) -> tuple[Array, Array]:
    x, z = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return x, z


@dataclass(frozen=True)
class ScanConverter:
    """Turns maps in beam space into images of one height with square pixels."""

    # (height, width).
    sample_of_pixel: Array
    beam_of_pixel: Array
    # Pixels within the field of view.
    inside: NDArray[np.bool_]
    # cm a pixel.
    spacing: float

    @classmethod
    def of(cls, probe: Probe, height: int, samples: int, beams: int) -> "ScanConverter":
        """Build the converter for images of `height` pixels; the width follows from the probe."""
        left, right, top, bottom = probe.extent()
        spacing = (bottom - top) / height
        width = round((right - left) / spacing)
        x = left + (np.arange(width) + 0.5) * ((right - left) / width)
        z = top + (np.arange(height) + 0.5) * spacing
        depth, lateral = probe.beam_coordinates(*_grid(x, z))
        inside = (depth >= 0) & (depth <= 1) & (lateral >= 0) & (lateral <= 1)
        sample = (depth * samples - 0.5).astype(np.float32)
        return cls(sample, (lateral * beams - 0.5).astype(np.float32), inside, spacing)

    def __call__(self, beam_map: Array) -> Array:
        """(samples, beams) -> (height, width); the edge value fills pixels outside the view."""
        maps = self.beam_of_pixel, self.sample_of_pixel
        return np.asarray(
            cv2.remap(beam_map, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            np.float32,
        )

"""Scenes of the chest: lung between the ribs, the heart from outside and from the oesophagus."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from arl.phantoms import superficial
from arl.phantoms.geometry import Array, Curved, Linear, Probe
from arl.phantoms.tissue import (
    Structure,
    Tissue,
    blob,
    ellipse,
    facing,
    intersection,
    segment,
    uniform,
    union,
)

VIEWS = ("A2C", "A4C", "PLAX", "PSAX_PM")
# dB.
_BLOOD = -24.0


def lung_probe(patient: Generator) -> Probe:
    """Linear in four of ten patients, convex in the others."""
    if patient.random() < 0.4:
        return superficial.probe(patient, (4.0, 6.5))
    return Curved(
        uniform(patient, 7, 12),
        math.radians(uniform(patient, 55, 70)),
        uniform(patient, 3.5, 5.5),
        "convex",
    )


def lung(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Ribs, the pleural line, and A-lines (normal) or B-lines and consolidation (covid)."""
    m = {"covid": 1.0, "normal": 0.0, None: float(patient.random() < 0.4)}[label]
    depth = tissue.probe.depth * uniform(patient, 0.2, 0.3)
    pleura = tissue.wavy(view, depth, 0.02 * depth, 6) + _along_face(tissue)
    ragged = float(np.clip(patient.normal(0.01 + 0.025 * m, 0.015), 0, 0.06)) * depth
    lines = np.clip(patient.normal(1.0 - 0.6 * m, 0.3), 0, 1.3)
    streaks = patient.poisson(0.7 + 2.2 * m)
    spots = patient.poisson(0.1 + 0.8 * m)
    _chest_wall(tissue, view, pleura, depth)
    _air(tissue, view, pleura, depth, float(lines), ragged)
    for _ in range(max(0, streaks + int(view.integers(-1, 2)))):
        _b_line(tissue, view, pleura)
    for _ in range(spots):
        _consolidation(tissue, view, pleura, depth)
    _ribs(tissue, patient, view, depth)
    if isinstance(tissue.probe, Linear):
        superficial.skin(tissue, view, 0.04 * tissue.probe.depth)
    return None


def _along_face(tissue: Tissue) -> Array:
    """Depth offset in cm that bends a surface halfway towards a curved probe face."""
    if isinstance(tissue.probe, Linear):
        return np.zeros_like(tissue.x)
    radius = tissue.probe.radius + 0.3 * tissue.probe.depth
    return (
        np.sqrt(np.maximum(radius**2 - np.square(tissue.x), 0)) - np.float32(radius)
    ) * np.float32(0.5)


def _chest_wall(tissue: Tissue, rng: Generator, pleura: Array, depth: float) -> None:
    superficial.fat(tissue, rng, np.full_like(tissue.z, -1.0), -5)
    muscle = pleura - np.float32(0.55 * depth)
    superficial.fibres(tissue, rng, muscle - tissue.z, -9, rng.normal(0, 0.1), muscle)
    superficial.fascia(tissue, rng, muscle, 3, 0.02 * depth)


def _air(
    tissue: Tissue, rng: Generator, pleura: Array, depth: float, lines: float, ragged: float
) -> None:
    """Paint haze and A-lines: reverberations of the pleura at multiples of its depth."""
    below = tissue.z - pleura
    haze = (
        -8
        - 4.5 * below / np.float32(depth)
        + 2 * tissue.texture(rng, 1.2, 0.15)
        + 2 * tissue.texture(rng, 0.3, 2)
    )
    tissue.fill(-below, haze, edge=0.02 * depth)
    uneven = np.float32(ragged) * tissue.texture(rng, 0.2 * depth, 99)
    whole = np.clip(0.9 - 8 * ragged / depth + 0.3 * tissue.texture(rng, 0.3 * depth, 99), 0.1, 1)
    tissue.shine(below - uneven, 12, 0.035 * depth + 0.5 * ragged, whole)
    for order in range(1, 5):
        strength = np.clip(lines * (0.8 + 0.3 * tissue.texture(rng, 1.0, 9)), 0, 1.2) * lines
        tissue.shine(below - np.float32(order * depth), 7 - 4.5 * order, 0.045 * depth, strength)


def _b_line(tissue: Tissue, rng: Generator, pleura: Array) -> None:
    """A ray along the beam from the pleura to the bottom, which erases A-lines."""
    beam, width = rng.uniform(0.12, 0.88), rng.uniform(0.008, 0.03)
    ray = np.exp(-0.5 * np.square((tissue.beam - np.float32(beam)) / np.float32(width))) * (
        tissue.z > pleura
    )
    below = np.maximum(tissue.z - pleura, 0) / np.float32(tissue.probe.depth)
    level = uniform(rng, -4, 2) - 3 * below + 1.5 * tissue.texture(rng, 1, 0.1)
    tissue.echo += np.maximum(level - tissue.echo, 0) * ray
    tissue.specular *= 1 - np.float32(0.7) * ray * (tissue.z > pleura + np.float32(0.1))


def _consolidation(tissue: Tissue, rng: Generator, pleura: Array, depth: float) -> None:
    """Airless lung under the pleura: dark, with a shredded bright lower border."""
    size = depth * rng.uniform(0.3, 0.75)
    half = 0.3 * tissue.probe.extent()[1]
    x = rng.uniform(-half, half)
    patch = blob(tissue, rng, x, depth, 1.2 * size, size, roughness=0.14)
    patch = intersection(patch, pleura + np.float32(0.03 * depth) - tissue.z)
    tissue.fill(patch, -11 + 3 * tissue.texture(rng, 0.12 * depth, 0.1 * depth), edge=0.05 * depth)
    tissue.shine(
        patch,
        3,
        0.04 * depth,
        facing(tissue, patch) * (tissue.z > pleura + np.float32(0.1 * depth)),
    )
    tissue.specular *= np.where(patch < 0, np.float32(0.4), np.float32(1))


def _ribs(tissue: Tissue, patient: Generator, view: Generator, depth: float) -> None:
    """One or two ribs at the sides, bright in front, black behind."""
    half = tissue.probe.extent()[1] * (1 if isinstance(tissue.probe, Linear) else 0.62)
    size = depth * uniform(patient, 0.5, 0.7)
    for side in (-1, 1)[: int(patient.integers(1, 3))]:
        x = side * half * uniform(patient, 0.72, 1.1) + view.normal(0, 0.1)
        rib = ellipse(tissue, x, 0.78 * depth, size, 0.28 * depth)
        tissue.fill(rib, -14, attenuation=40 / (0.56 * depth), edge=0.05)
        tissue.shine(rib, 8, 0.04 * depth, facing(tissue, rib) * (tissue.z < 0.78 * depth))


def cardiac_probe(patient: Generator) -> Curved:
    """A phased array."""
    return Curved(uniform(patient, 14, 17.5), math.radians(uniform(patient, 74, 92)), 0.4, "sector")


@dataclass(frozen=True)
class _Heart:
    """Maps shapes from heart coordinates (cm) to the tissue."""

    tissue: Tissue
    rng: Generator
    x: float
    z: float
    scale: float
    # Radians.
    tilt: float

    def at(self, x: float, z: float) -> tuple[float, float]:
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        return self.x + self.scale * (x * cosine - z * sine), self.z + self.scale * (
            x * sine + z * cosine
        )

    def oval(self, x: float, z: float, a: float, b: float, angle: float = 0.0) -> Array:
        size = a * self.scale, b * self.scale
        return blob(
            self.tissue, self.rng, *self.at(x, z), *size, angle + self.tilt, roughness=0.022
        )

    def below(self, z: float) -> Array:
        """Region deeper than the plane z of the heart."""
        x0, z0 = self.at(0, z)
        normal = -math.sin(self.tilt), math.cos(self.tilt)
        dx, dz = self.tissue.x - np.float32(x0), self.tissue.z - np.float32(z0)
        return -(dx * np.float32(normal[0]) + dz * np.float32(normal[1]))

    def leaflet(
        self, start: tuple[float, float], end: tuple[float, float], bend: float = 0.25
    ) -> None:
        """Paint a valve leaflet: two thin pieces that meet at an angle."""
        dx, dz = end[0] - start[0], end[1] - start[1]
        knee = start[0] + 0.5 * dx - bend * dz, start[1] + 0.5 * dz + bend * dx
        for piece, width in (((start, knee), 0.1), ((knee, end), 0.06)):
            distance = segment(self.tissue, *(self.at(*point) for point in piece))
            self.tissue.fill(distance - np.float32(width), self.rng.uniform(-5, 1), edge=0.15)

    def paint_muscle(self, region: Array) -> None:
        tissue, rng = self.tissue, self.rng
        level = -3 + np.clip(3 * tissue.texture(rng, 2, 2), -7, 4)
        tissue.fill(region, level + 2.5 * tissue.texture(rng, 0.7, 0.25), edge=0.25)
        tissue.shine(
            region,
            6,
            0.12,
            facing(tissue, region) * (tissue.z > 6) * np.clip(tissue.texture(rng, 3, 3), 0, 1),
        )

    def paint_cavity(self, region: Array, blood: float) -> None:
        tissue, rng = self.tissue, self.rng
        # the exponential is near-field haze
        swirl = 4 * tissue.texture(rng, 2.2, 1.2) + 9 * np.exp(-tissue.z / np.float32(2.5))
        tissue.fill(region, blood + swirl, attenuation=-0.3, edge=0.3)
        tissue.shine(
            region, 0, 0.06, facing(tissue, region) * np.clip(tissue.texture(rng, 2, 2), 0, 1)
        )

    def left_apical(self, x: float, wall: float, full: float, blood: float) -> Array:
        """Paint left ventricle, left atrium and mitral valve; returns the ventricle's cavity."""
        a, annulus = 2.15 * full, 9.6
        ventricle = intersection(
            self.oval(x, 6.6, a, 4.3 * (0.6 + 0.4 * full)), -self.below(annulus)
        )
        atrium = intersection(self.oval(x + 0.1, 11.7, 2.0, 2.2), self.below(annulus))
        self.paint_muscle(
            union(ventricle - np.float32(wall * self.scale), atrium - np.float32(0.3))
        )
        self.paint_cavity(union(ventricle, atrium), blood)
        # 0 open, 1 closed.
        spread = self.rng.uniform(0.1, 0.95)
        for side in (-1.0, 1.0):
            self.leaflet(
                (x + side * 1.55, annulus),
                (x + side * 1.55 * (1 - spread), annulus - 1.6 * (1 - 0.7 * spread)),
            )
        return ventricle

    def apical_two(self, wall: float, full: float, blood: float) -> Array:
        """Left ventricle and atrium in the middle, no right self."""
        return self.left_apical(0.3, wall, full, blood)

    def apical_four(self, wall: float, full: float, blood: float) -> Array:
        """All four chambers: the right ones at the left, the tricuspid valve nearer to the apex."""
        right = intersection(self.oval(-1.9, 7.3, 1.5, 3.2, 0.12), -self.below(9.2))
        atrium = intersection(self.oval(-2.2, 11.3, 1.8, 2.1), self.below(9.2))
        self.paint_muscle(union(right - np.float32(0.45), atrium - np.float32(0.3)))
        self.paint_cavity(union(right, atrium), blood)
        spread = self.rng.uniform(0.1, 0.95)
        for side in (-1.0, 1.0):
            start = -2.1 + side * 1.2
            self.leaflet(
                (start, 9.2), (start - side * 1.2 * spread, 9.2 - 1.2 * (1 - 0.7 * spread))
            )
        return self.left_apical(1.9, wall, full, blood)

    def long_axis(self, wall: float, full: float, blood: float) -> Array:
        """Parasternal long axis: right ventricle, left ventricle, aortic root and left atrium."""
        outflow = self.oval(0.2, 3.6, 3.4, 0.95, -0.1)
        root, atrium = self.oval(3.4, 5.7, 2.3, 1.25, -0.25), self.oval(3.6, 8.9, 2.2, 1.55, 0.1)
        ventricle = self.oval(-1.9, 7.3, 3.7 * (0.7 + 0.3 * full), 2.15 * full, -0.12)
        solid = union(
            ventricle - np.float32(wall * self.scale),
            root - np.float32(0.3),
            atrium - np.float32(0.25),
        )
        self.paint_muscle(union(solid, outflow - np.float32(0.4)))
        self.paint_cavity(union(ventricle, root, atrium), blood)
        self.paint_cavity(outflow, blood)
        # Descending aorta.
        self.paint_cavity(self.oval(4.4, 12.0, 1.1, 1.1), blood)
        swing = self.rng.uniform(-0.6, 0.9)
        self.leaflet((1.7, 6.7), (-0.3, 7.2 + swing))
        self.leaflet((1.9, 8.9), (0.3, 8.4 + 0.5 * swing))
        self.leaflet((2.3, 5.6), (3.3, 5.6 + 0.3 * swing))
        return ventricle

    def short_axis(self, wall: float, full: float, blood: float) -> Array:
        """Parasternal short axis: the ring with two papillary muscles beside a crescent."""
        radius = 2.3 * full
        ring = self.oval(0.6, 7.4, radius + wall, radius + wall)
        crescent = intersection(self.oval(-1.2, 6.3, 3.5, 3.0, -0.5), -(ring - np.float32(0.05)))
        self.paint_muscle(union(ring, crescent - np.float32(0.4)))
        self.paint_cavity(crescent, blood)
        cavity = self.oval(0.6, 7.4, radius, radius * self.rng.uniform(0.92, 1.0))
        self.paint_cavity(cavity, blood)
        for turn in (0.65, 2.45):
            at = 0.6 + 0.75 * radius * math.cos(turn), 7.4 + 0.75 * radius * math.sin(turn)
            papillary = blob(self.tissue, self.rng, *self.at(*at), 0.55, 0.45, turn, roughness=0.1)
            self.tissue.fill(papillary, -3.0, edge=0.15)
        return cavity


def cardiac(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """An echocardiographic view, named by the label; the mask is the left ventricle's cavity."""
    scale, wall = uniform(patient, 0.84, 1.12), uniform(patient, 0.75, 1.25)
    full, haze = uniform(patient, 0.85, 1.05), uniform(patient, -6, 4)
    name = label or str(view.choice(VIEWS))
    # 1: end of diastole.
    phase = uniform(view, 0.78, 1.0)
    heart = _Heart(
        tissue, view, view.normal(0, 0.35), view.normal(0, 0.2), scale, view.normal(0, 0.1)
    )
    _mediastinum(tissue, view)
    draw = {
        "A2C": heart.apical_two,
        "A4C": heart.apical_four,
        "PLAX": heart.long_axis,
        "PSAX_PM": heart.short_axis,
    }[name]
    ventricle = draw(wall / phase, full * phase, _BLOOD + haze)
    _dropout(tissue, view)
    _chest(tissue, view)
    return Structure("lv", ventricle)


def _mediastinum(tissue: Tissue, rng: Generator) -> None:
    """Lung and fat around the heart: streaks of haze, darker with depth."""
    streaks = 4 * tissue.texture(rng, 3, 0.5) + 3 * tissue.texture(rng, 1.0, 0.4)
    tissue.fill(np.full_like(tissue.z, -1.0), uniform(rng, -10, -4) + streaks - 0.25 * tissue.z)


def _chest(tissue: Tissue, rng: Generator) -> None:
    near = np.exp(-tissue.z / np.float32(uniform(rng, 0.7, 1.3)))
    tissue.echo += np.maximum(2 - tissue.echo, 0) * near + 3 * tissue.texture(rng, 2, 0.2) * near
    tissue.shine(tissue.z - 0.1, 8, 0.2)


def _dropout(tissue: Tissue, rng: Generator) -> None:
    """A rib or lung edge that takes a part of the sector."""
    for _ in range(rng.integers(0, 3)):
        centre, width = rng.uniform(0, 1), rng.uniform(0.03, 0.09)
        ray = np.exp(-0.5 * np.square((tissue.beam - np.float32(centre)) / np.float32(width)))
        tissue.add(-rng.uniform(3, 10) * ray)


def esophageal_probe(patient: Generator) -> Curved:
    """A transoesophageal phased array."""
    return Curved(uniform(patient, 10, 13), math.radians(uniform(patient, 82, 96)), 0.25, "sector")


def esophageal(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Transoesophageal view: left atrium under the probe, left ventricle below, right heart."""
    scale, wall = uniform(patient, 0.78, 0.95), uniform(patient, 0.7, 1.1)
    haze = uniform(patient, -6, 3)
    heart = _Heart(
        tissue, view, view.normal(0, 0.3), view.normal(0, 0.15), scale, view.normal(0, 0.12)
    )
    _mediastinum(tissue, view)
    chambers = [
        (heart.oval(0.7, 3.0, 3.2, 2.1), 0.2),
        (heart.oval(1.4, 8.6, 1.9, 3.6, 0.1), wall),
        (heart.oval(-2.9, 5.4, 1.7, 1.6), 0.2),
        (heart.oval(-2.4, 9.2, 1.4, 2.4, -0.2), 0.45),
    ]
    heart.paint_muscle(union(*(region - np.float32(thick) for region, thick in chambers)))
    for region, _ in chambers:
        heart.paint_cavity(region, _BLOOD + haze)
    spread = view.uniform(0.1, 0.9)
    for side in (-1.0, 1.0):
        heart.leaflet(
            (1.2 + side * 1.5, 5.1),
            (1.2 + side * 1.5 * (1 - spread), 5.1 + 1.5 * (1 - 0.7 * spread)),
        )
    _dropout(tissue, view)
    tissue.shine(tissue.z - 0.1, 8, 0.15)
    return Structure("lv", chambers[1][0])

"""Scenes of the abdomen and pelvis, seen with a convex probe.

The order of random draws follows the rule in `superficial`."""

import math

import numpy as np
from numpy.random import Generator

from arl.phantoms.geometry import Array, Curved
from arl.phantoms.superficial import fat, fibres
from arl.phantoms.tissue import (
    Oval,
    Structure,
    Tissue,
    blob,
    ellipse,
    facing,
    intersection,
    local_axes,
    uniform,
    union,
)

# dB: bile, urine, blood.
_FLUID = -32.0
# dB/cm: fluid attenuates less than the TGC assumes.
_ENHANCE = -1.5


def probe(patient: Generator, depth: tuple[float, float]) -> Curved:
    """A convex probe whose depth setting lies in the given range, cm."""
    angle, radius = math.radians(uniform(patient, 56, 72)), uniform(patient, 4.5, 6.0)
    return Curved(uniform(patient, *depth), angle, radius, "convex")


def body_wall(tissue: Tissue, rng: Generator, thickness: float) -> None:
    """Skin, subcutaneous fat and muscle in the first `thickness` cm."""
    # Pressed against the face.
    z = 0.7 * tissue.deep + 0.3 * tissue.z
    top, bottom = tissue.wavy(rng, 0.5 * thickness, 0.08, 9), tissue.wavy(rng, thickness, 0.1, 9)
    fat(tissue, rng, z - top, -4)
    fibres(tissue, rng, intersection(top - z, z - bottom), -8, 0.0, top)
    for sheet, level in ((top, 4), (bottom, 5)):
        tissue.shine(z - sheet, level, 0.06, np.clip(0.7 + 0.4 * tissue.texture(rng, 1.5, 9), 0, 1))
    tissue.shine(tissue.deep, 9, 0.12)


def parenchyma(
    tissue: Tissue, rng: Generator, region: Array, echo: float, attenuation: float = 0.0
) -> None:
    """Homogeneous liver."""
    mottled = 1.0 * tissue.texture(rng, 0.5, 0.3) + 0.8 * tissue.texture(rng, 2.5, 1.5)
    tissue.fill(region, echo + mottled, attenuation, edge=0.15)


def vessels(tissue: Tissue, rng: Generator, region: Array, count: int) -> None:
    """Portal branches cut at all angles, with bright walls."""
    d = tissue.probe.depth
    for _ in range(count):
        x, z = rng.uniform(-0.35, 0.35) * d, rng.uniform(0.25, 0.85) * d
        long, wide = rng.uniform(0.3, 2.2), rng.uniform(0.12, 0.3)
        branch = intersection(
            blob(tissue, rng, x, z, long, wide, rng.uniform(-1.1, 1.1), roughness=0.06), region
        )
        tissue.fill(branch - np.float32(0.12), 5.0, edge=0.15)
        tissue.fill(branch, _FLUID + 8, _ENHANCE / 2)


def gas(tissue: Tissue, rng: Generator, x: float, z: float, width: float) -> None:
    """Bowel gas: a bright ragged front with a dirty, reverberating shadow."""
    front = blob(tissue, rng, x, z, width, 0.35 * width, rng.normal(0, 0.2), roughness=0.12)
    ringing = 4 * np.cos(2 * np.pi * front / np.float32(0.7))
    tissue.fill(
        front, -2 + ringing + 3 * tissue.texture(rng, 0.4, 0.2), attenuation=uniform(rng, 5, 10)
    )
    tissue.shine(front, 9, 0.1, facing(tissue, front) * (tissue.z < z))


def gallbladder(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Liver around a pear-shaped gallbladder.

    `benign` has stones or polyps, `malignant` has a mass in the wall, `normal` has neither.
    """
    d, everywhere = tissue.probe.depth, np.full_like(tissue.z, -1.0)
    wall = uniform(patient, 1.2, 2.2)
    long, wide = uniform(patient, 2.4, 3.5), uniform(patient, 1.25, 1.8)
    angle, depth = uniform(patient, -0.5, 0.5), d * uniform(patient, 0.42, 0.52)
    drawn = str(patient.choice(["normal", "benign", "malignant"], p=[0.5, 0.35, 0.15]))
    parenchyma(tissue, view, everywhere, uniform(patient, -3, 1), uniform(patient, -0.2, 0.5))
    vessels(tissue, view, everywhere, 4)
    _below_the_liver(tissue, view, depth + 1.3 * wide)
    x, z, long = view.normal(0, 0.4), depth + view.normal(0, 0.2), long * view.uniform(0.9, 1.1)
    oval = Oval(x, z, long, wide, angle + view.normal(0, 0.1))
    lumen = _bile(tissue, view, oval, uniform(patient, 0.1, 0.22))
    _paint_gallbladder_lesions(tissue, patient, view, label or drawn, lumen, oval)
    body_wall(tissue, view, wall)
    return Structure("gallbladder", lumen)


def _below_the_liver(tissue: Tissue, rng: Generator, depth: float) -> None:
    border = tissue.wavy(rng, depth, 0.5, 12) + np.float32(rng.normal(0, 0.25)) * tissue.x
    bowel = -7 + 4 * tissue.texture(rng, 0.9, 0.4) + 3 * tissue.texture(rng, 2, 1)
    tissue.fill(border - tissue.z, bowel, 0.4, edge=0.3)
    for _ in range(rng.integers(0, 3)):
        gas(
            tissue,
            rng,
            rng.choice([-1, 1]) * rng.uniform(3, 5),
            depth + rng.uniform(0.7, 3),
            rng.uniform(0.6, 1.2),
        )


def _bile(tissue: Tissue, rng: Generator, oval: Oval, wall: float) -> Array:
    """Body and neck, `wall` cm thick; returns the lumen."""
    _, z, a, b, angle = oval
    body = blob(tissue, rng, *oval, roughness=0.02)
    lumen = union(body, ellipse(tissue, *oval.point(a, 0), 0.5 * a, 0.35 * b, angle))
    tissue.fill(lumen - np.float32(wall), 4.0, edge=0.1)
    # reverberation under the near wall
    haze = 9 * np.exp(-np.maximum(tissue.z - (z - b), 0) / np.float32(0.35 * b))
    tissue.fill(lumen, _FLUID + haze + 2 * tissue.texture(rng, 0.8, 0.3), _ENHANCE, edge=0.08)
    tissue.shine(lumen, 4, 0.06, facing(tissue, lumen))
    return lumen


def _paint_gallbladder_lesions(
    tissue: Tissue, patient: Generator, view: Generator, kind: str, lumen: Array, oval: Oval
) -> None:
    # every patient draws all parameters, so that the label does not shift later draws
    sludge, stones = patient.random(), int(patient.integers(1, 4)) + 1
    stone_too, polyp = patient.random() < 0.1, patient.random() < 0.12
    sizes, hard = patient.uniform(0.25, 0.6, 4), float(np.clip(patient.normal(26, 7), 8, 45))
    mass, spread = uniform(patient, 1.1, 1.8), uniform(patient, -0.5, 0.5)
    if sludge < 0.15:
        level = np.float32(oval.z + oval.b * uniform(patient, 0.2, 0.7))
        tissue.fill(
            intersection(lumen, level - tissue.z),
            -14 + 2 * tissue.texture(view, 0.6, 0.2),
            edge=0.2,
        )
    if kind == "malignant":
        _wall_mass(tissue, view, oval, mass, spread)
    if kind == "benign" and polyp:
        for size in sizes[:stones]:
            _on_the_floor(tissue, view, oval, 0.6 * float(size), 0.0)
    elif kind == "benign" or (kind == "malignant" and stone_too):
        for size in sizes[:stones]:
            _on_the_floor(tissue, view, oval, float(size), hard)


def _on_the_floor(tissue: Tissue, rng: Generator, oval: Oval, radius: float, hard: float) -> None:
    """Paint a stone that attenuates `hard` dB, or at 0 dB a polyp, on the dependent wall."""
    fraction = rng.uniform(-0.65, 0.75)
    at = oval.point(fraction * oval.a, max(oval.b * math.sqrt(1 - fraction**2) - 0.8 * radius, 0.0))
    body = blob(tissue, rng, *at, radius, 0.85 * radius, roughness=0.06)
    tissue.fill(body, 4.0 if hard else -3.0, attenuation=hard / (2 * radius) if hard else 0.0)
    tissue.shine(body, 9 if hard else 0, 0.08, facing(tissue, body) * (tissue.z < at[1]))


def _wall_mass(tissue: Tissue, rng: Generator, oval: Oval, mass: float, spread: float) -> None:
    """Paint irregular solid tissue that grows from the wall into the lumen and the liver."""
    at = oval.point(spread * oval.a, math.copysign(0.75 * oval.b, spread))
    growth = blob(tissue, rng, *at, 1.4 * mass, mass, oval.angle, roughness=0.13)
    shell = np.abs(blob(tissue, rng, *oval, roughness=0.04)) - np.float32(0.22)
    thick = intersection(shell, ellipse(tissue, *at, 2.6 * mass, 2.6 * mass))
    solid = -4 + 3 * tissue.texture(rng, 0.35, 0.25) + 1.5 * tissue.texture(rng, 0.9, 0.7)
    tissue.fill(union(growth, thick), solid, attenuation=0.7, edge=0.15)


def liver(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Right lobe with portal branches, hepatic veins and the diaphragm; more or less fatty."""
    d, z = tissue.probe.depth, tissue.z
    fatty, wall, dome = (
        uniform(patient, 0, 1),
        uniform(patient, 1.2, 2.4),
        d * uniform(patient, 0.78, 0.9),
    )
    everywhere = np.full_like(z, -1.0)
    parenchyma(tissue, view, everywhere, 3 * fatty - 1, 0.9 * fatty)
    vessels(tissue, view, everywhere, int(view.integers(3, 6)))
    _hepatic_veins(tissue, view, dome)
    side = 1 if patient.random() < 0.5 else -1
    lung = -ellipse(
        tissue, side * 0.12 * d, dome - 0.75 * d + view.normal(0, 0.2), 0.85 * d, 0.75 * d
    )
    tissue.fill(lung, -13 + 4 * tissue.texture(view, 1.5, 0.4), 1.0)
    tissue.shine(lung, 10, 0.1, facing(tissue, lung))
    body_wall(tissue, view, wall)
    return None


def _hepatic_veins(tissue: Tissue, rng: Generator, dome: float) -> None:
    """Two or three dark bands that converge under the diaphragm."""
    x = rng.normal(0, 1)
    for turn in rng.uniform(-0.9, 0.9, int(rng.integers(1, 4))):
        u, v = local_axes(tissue, x, dome, math.pi / 2 + float(turn))
        vein = (
            np.abs(v + np.float32(0.15) * np.sin(u))
            - np.float32(0.1)
            - np.float32(0.05) * np.maximum(u + 6, 0)
        )
        tissue.fill(
            intersection(vein, np.abs(u + np.float32(3.2)) - np.float32(2.6)),
            _FLUID + 8,
            _ENHANCE / 2,
        )


def kidney(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """A kidney below liver or spleen: cortex, dark pyramids around a bright sinus, capsule."""
    d, z = tissue.probe.depth, tissue.z
    long, wide = uniform(patient, 4.2, 5.6), uniform(patient, 1.9, 2.6)
    angle, depth, wall = (
        uniform(patient, -0.45, 0.45),
        d * uniform(patient, 0.46, 0.58),
        uniform(patient, 1.2, 2.2),
    )
    parenchyma(tissue, view, np.full_like(z, -1.0), uniform(patient, -2, 1))
    vessels(tissue, view, np.full_like(z, -1.0), 2)
    _below_the_liver(tissue, view, depth + 0.6 * wide)
    oval = Oval(view.normal(0, 0.5), depth, long, wide, angle + view.normal(0, 0.08))
    body = blob(tissue, view, *oval, roughness=0.02)
    tissue.fill(body - np.float32(0.25), 3 + 3 * tissue.texture(view, 0.8, 0.3), edge=0.2)
    tissue.fill(body, uniform(patient, -6, -2) + tissue.texture(view, 0.3, 0.2))
    _collecting_system(tissue, view, oval)
    tissue.shine(body, 4, 0.07, facing(tissue, body))
    body_wall(tissue, view, wall)
    return Structure("kidney", body)


def _collecting_system(tissue: Tissue, rng: Generator, oval: Oval) -> None:
    x, z, long, wide, angle = oval
    dark = uniform(rng, -13, -7)
    for turn in np.arange(7) * (2 * math.pi / 7) + rng.uniform(0, 0.5):
        at = oval.point(0.66 * long * math.cos(turn), 0.6 * wide * math.sin(turn))
        pyramid = blob(tissue, rng, *at, 0.13 * long, 0.2 * wide, angle, roughness=0.08)
        tissue.fill(pyramid, dark + tissue.texture(rng, 0.3, 0.2), edge=0.2)
    sinus = blob(tissue, rng, x, z, 0.55 * long, 0.36 * wide, angle, roughness=0.09)
    tissue.fill(sinus, 6 + 4 * tissue.texture(rng, 0.5, 0.25), edge=0.25)


def bladder(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """A full bladder, its wall, the enhancement behind it and a prostate or uterus below."""
    d, z = tissue.probe.depth, tissue.z
    long, wide = uniform(patient, 3.0, 4.8), uniform(patient, 1.7, 2.8)
    wall, thick = uniform(patient, 1.2, 2.2), uniform(patient, 0.2, 0.45)
    organ = (uniform(patient, 1.6, 2.8), uniform(patient, 1.1, 1.7))
    tissue.fill(
        np.full_like(z, -1.0),
        -5 + 4 * tissue.texture(view, 1.2, 0.5) + 2 * tissue.texture(view, 0.4, 0.2),
    )
    depth, x = wall + wide + 0.5, view.normal(0, 0.3)
    below = blob(
        tissue, view, x + view.normal(0, 0.4), depth + wide + 0.8 * organ[1], *organ, roughness=0.05
    )
    tissue.fill(below, -1 + 2 * tissue.texture(view, 0.4, 0.25))
    tissue.shine(below, 2, 0.08, facing(tissue, below))
    for _ in range(view.integers(0, 3)):
        gas(
            tissue,
            view,
            view.choice([-1, 1]) * view.uniform(4, 6),
            0.55 * d,
            view.uniform(0.6, 1.3),
        )
    urine = blob(tissue, view, x, depth, long, wide, view.normal(0, 0.06), roughness=0.04)
    tissue.fill(urine - np.float32(thick), -2.0, edge=0.15)
    haze = 14 * np.exp(-np.maximum(z - np.float32(depth - wide), 0) / np.float32(0.3 * wide))
    tissue.fill(urine, _FLUID + haze + 2 * tissue.texture(view, 1.5, 0.3), _ENHANCE, edge=0.1)
    tissue.shine(urine, 6, 0.07, facing(tissue, urine))
    body_wall(tissue, view, wall)
    return Structure("bladder", urine)


def aorta(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Aorta before the spine, across or along; wide ones carry thrombus."""
    d, z = tissue.probe.depth, tissue.z
    radius, wall = uniform(patient, 0.7, 2.1), uniform(patient, 1.0, 2.0)
    depth, across = d * uniform(patient, 0.48, 0.58), view.random() < 0.6
    tissue.fill(
        np.full_like(z, -1.0),
        -6 + 5 * tissue.texture(view, 1.0, 0.5) + 2 * tissue.texture(view, 0.3, 0.2),
    )
    parenchyma(tissue, view, ellipse(tissue, -0.2 * d, 0.25 * d, 0.4 * d, 0.13 * d, 0.15), -2)
    _spine(tissue, view, depth + radius + 0.5, across)
    tilt = np.float32(view.normal(0, 0.05))
    along = np.abs(z - tissue.wavy(view, depth, 0.08, 14) - tilt * tissue.x) - np.float32(radius)
    lumen = (
        blob(tissue, view, 0.4, depth, radius, 0.95 * radius, roughness=0.02) if across else along
    )
    if across:
        cava = ellipse(tissue, -1.4 - radius, depth + 0.3, 1.0, 0.6)
        tissue.fill(cava, _FLUID, _ENHANCE, edge=0.1)
    tissue.fill(np.abs(lumen) - np.float32(0.12), 3.0)
    tissue.fill(lumen, _FLUID, _ENHANCE, edge=0.1)
    if radius > 1.5:
        clot = lumen + np.float32(0.25 * radius) * (1 + 0.5 * np.sin(tissue.x))
        tissue.fill(intersection(lumen, -clot), -12 + 2 * tissue.texture(view, 0.5, 0.2))
    tissue.shine(lumen, 7, 0.08, facing(tissue, lumen))
    body_wall(tissue, view, wall)
    return Structure("aorta", lumen)


def _spine(tissue: Tissue, rng: Generator, depth: float, across: bool) -> None:
    """The front of the vertebrae: one convex arch across, a row of them along."""
    if across:
        bone = ellipse(tissue, 0, depth + 1.9, 2.3, 1.9)
    else:
        front = 0.35 * np.square(
            np.sin(tissue.x * np.float32(math.pi / 3.2) + np.float32(rng.uniform(0, 6)))
        )
        bone = np.float32(depth) + front - tissue.z
    tissue.fill(bone, -13 + 3 * tissue.texture(rng, 0.6, 0.3), attenuation=5)
    tissue.shine(bone, 10, 0.12, facing(tissue, bone) * (tissue.z < depth + 1.4))


def abdominal(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Bowel loops with dark walls, contents and gas; some patients have free fluid."""
    d, z = tissue.probe.depth, tissue.z
    wall, ascites = uniform(patient, 1.2, 2.4), patient.random() < 0.4
    thick, loops = uniform(patient, 0.15, 0.4), int(patient.integers(4, 8))
    tissue.fill(
        np.full_like(z, -1.0),
        -4 + 4 * tissue.texture(view, 1.3, 0.6) + 2 * tissue.texture(view, 0.4, 0.2),
    )
    if ascites:
        level = tissue.wavy(view, d * uniform(view, 0.35, 0.5), 0.7, 7)
        tissue.fill(intersection(wall - z, z - level), _FLUID, _ENHANCE, edge=0.2)
    for _ in range(loops):
        _loop(tissue, view, view.uniform(-0.4, 0.4) * d, view.uniform(0.28, 0.75) * d, thick)
    body_wall(tissue, view, wall)
    return None


def _loop(tissue: Tissue, rng: Generator, x: float, z: float, thick: float) -> None:
    size = rng.uniform(0.8, 1.8)
    outer = blob(tissue, rng, x, z, 1.3 * size, size, rng.uniform(-0.8, 0.8), roughness=0.07)
    tissue.fill(outer - np.float32(0.08), 2.0, edge=0.15)
    tissue.fill(outer, -13.0, edge=0.1)
    inner = outer + np.float32(thick)
    filling = rng.choice([_FLUID + 6, -6.0, 1.0])
    tissue.fill(inner, filling + 3 * tissue.texture(rng, 0.4, 0.3), edge=0.15)
    tissue.shine(inner, 1, 0.06, facing(tissue, inner))
    if rng.random() < 0.45:
        gas(tissue, rng, x, z - 0.2 * size, 0.6 * size)

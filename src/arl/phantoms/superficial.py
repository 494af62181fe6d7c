"""Scenes near the skin, seen with a linear probe.

They are breast, thyroid, muscle, soft tissue, testicle, lymph nodes and vessels.

A scene paints a `Tissue` and draws from two generators. `patient` yields the same numbers for every
image of a patient, so a scene must always draw from `patient` in the same order. `view` differs
from image to image.
"""

import numpy as np
from numpy.random import Generator

from arl.phantoms.geometry import Array, Linear
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


def probe(patient: Generator, depth: tuple[float, float]) -> Linear:
    """A linear probe whose depth setting lies in the given range, cm."""
    chosen = uniform(patient, *depth)
    return Linear(chosen, chosen * uniform(patient, 0.78, 1.15))


def skin(tissue: Tissue, rng: Generator, thickness: float = 0.15) -> None:
    """Gel and membrane, then epidermis and dermis: bright, with a darker line between."""
    base = tissue.wavy(rng, thickness, 0.015, 5)
    tissue.fill(tissue.z - base, 5.0 + 2 * tissue.texture(rng, 0.5, 0.03))
    tissue.shine(tissue.z - base, 3, 0.02)
    tissue.shine(tissue.z, 12, 0.04)


def fat(tissue: Tissue, rng: Generator, region: Array, echo: float = -9.0) -> None:
    """Hypoechoic lobules in a net of bright curved septa."""
    lobules = tissue.texture(rng, 0.8, 0.32) + 0.4 * tissue.texture(rng, 0.35, 0.16, 0.3)
    septa = np.exp(-np.square(lobules / np.float32(0.12))) * np.clip(
        0.4 + 0.6 * tissue.texture(rng, 0.5, 0.4), 0, 1.3
    )
    strands = 2 * tissue.texture(rng, 0.4, 0.06) + 1.5 * tissue.texture(rng, 0.15, 0.08)
    tissue.fill(region, echo - 1 + strands + 14 * septa)


def fibres(
    tissue: Tissue, rng: Generator, region: Array, echo: float, angle: float, depth: Array
) -> None:
    """Muscle: dark bundles with bright perimysium at `angle` radians to its fascia at `depth`."""
    below = tissue.z - depth
    bundles = tissue.warped(rng, 1.6, 0.075, tissue.x, below, angle)
    fine = tissue.warped(rng, 0.5, 0.04, tissue.x, below, angle)
    lines = 7 * np.clip(bundles - 0.35, 0, 2) + 3 * fine
    tissue.fill(region, echo + lines + 2.5 * tissue.texture(rng, 1.2, 0.7))


def fascia(
    tissue: Tissue, rng: Generator, depth: Array, level: float, thickness: float = 0.025
) -> None:
    """A bright interface that comes and goes along its course."""
    strength = np.clip(0.75 + 0.35 * tissue.texture(rng, 0.7, 5), 0.15, 1.2)
    tissue.shine(tissue.z - depth, level, thickness, strength)


def breast(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Skin, fat, gland, retromammary fat, pectoral muscle; a benign or malignant mass in the gland.

    Unlabelled: no mass in three of ten patients.
    """
    d = tissue.probe.depth
    gland, muscle = d * uniform(patient, 0.14, 0.34), d * uniform(patient, 0.62, 0.88)
    density = uniform(patient, -3, 2)
    _breast_layers(tissue, view, gland, muscle, density)
    drawn = patient.choice(["benign", "malignant", "none"], p=[0.4, 0.3, 0.3])
    chosen = label or str(drawn)
    mass = _breast_mass(tissue, patient, view, chosen, (gland + muscle) / 2)
    return None if chosen == "none" else Structure("lesion", mass)


def _breast_layers(
    tissue: Tissue, rng: Generator, gland: float, muscle: float, density: float
) -> None:
    z, d = tissue.z, tissue.probe.depth
    fat(tissue, rng, np.full_like(z, -1.0))
    top, bottom = (
        tissue.wavy(rng, gland, 0.05 * d, 4),
        tissue.wavy(rng, muscle - 0.1 * d, 0.03 * d, 5),
    )
    streaks = tissue.texture(rng, 0.5, 0.055, uniform(rng, -0.2, 0.2))
    streaks += tissue.texture(rng, 0.22, 0.045, rng.normal(0, 0.2))
    ducts = 5 * np.clip(streaks, -0.7, 2.5) + 4 * tissue.texture(rng, 0.7, 0.28)
    tissue.fill(intersection(top - z, z - bottom), density - 2 + ducts, edge=0.12)
    pectoral = tissue.wavy(rng, muscle, 0.02 * d, 6)
    fibres(tissue, rng, pectoral - z, -10, uniform(rng, -0.1, 0.1), pectoral)
    fascia(tissue, rng, pectoral, 4)
    chest = tissue.wavy(rng, muscle + d * uniform(rng, 0.14, 0.3), 0.03 * d, 6)
    tissue.fill(chest - z, -22 + 5 * tissue.texture(rng, 0.8, 0.15), attenuation=4)
    fascia(tissue, rng, chest, 8, 0.04)
    skin(tissue, rng)


def _breast_mass(
    tissue: Tissue, patient: Generator, view: Generator, kind: str, depth: float
) -> Array:
    """Paint a mass by BI-RADS descriptors; the distributions of the two kinds overlap."""
    m = 1.0 if kind == "malignant" else 0.0
    d, size = tissue.probe.depth, uniform(patient, 0.14, 0.24)
    # Depth over width.
    aspect = float(np.clip(patient.normal(0.62 + 0.33 * m, 0.15), 0.35, 1.5))
    rough = float(np.clip(patient.normal(0.05 + 0.1 * m, 0.05), 0.0, 0.3))
    # dB/cm; negative: posterior enhancement.
    shadow = float(patient.normal(-7 + 19.0 * m, 5.5))
    echo = float(patient.normal(-12 - 4 * m, 2.5))
    spikes = float(np.clip(patient.normal(-0.05 + 0.33 * m, 0.16), 0, 0.7))
    specks = patient.poisson(0.5 + 2 * m)
    x, z = (
        uniform(patient, -0.2, 0.2) * tissue.width + view.normal(0, 0.1),
        depth + view.normal(0, 0.03) * d,
    )
    half = size * d * view.uniform(0.9, 1.12)
    oval = Oval(x, z, half / aspect**0.5, half * aspect**0.5, view.normal(0, 0.12))
    region = blob(tissue, view, *oval, roughness=rough)
    if kind == "none":
        return region
    _spiculation(tissue, view, oval, spikes)
    _mass(tissue, view, region, echo, shadow, spikes)
    _calcifications(tissue, view, oval, specks)
    return region


def _mass(
    tissue: Tissue, rng: Generator, region: Array, echo: float, shadow: float, spikes: float
) -> None:
    """Paint an echogenic halo and a hypoechoic interior; spicules blur the margin."""
    halo = np.exp(-0.5 * np.square(region / np.float32(0.06)))
    tissue.add(halo * (2 + 6 * spikes))
    inner = 2.0 * tissue.texture(rng, 0.3, 0.1) + 1.5 * tissue.texture(rng, 0.1, 0.06)
    tissue.fill(region, echo + inner, attenuation=shadow, edge=0.04 + 0.15 * spikes)
    rim = facing(tissue, region) * np.float32(max(0.0, 1 - 3 * spikes))
    tissue.shine(region, -1, 0.03, rim)


def _spiculation(tissue: Tissue, rng: Generator, oval: Oval, strength: float) -> None:
    """Straight bright and dark strands that radiate from the mass."""
    u, v = local_axes(tissue, oval.x, oval.z, oval.angle)
    ring = tissue.warped(rng, 0.16, 1.0, np.arctan2(v, u), np.zeros_like(u))
    radius = np.hypot(u / np.float32(oval.a), v / np.float32(oval.b))
    tissue.add(14 * strength * ring * np.exp(-2.2 * np.maximum(radius - 0.9, 0)))


def _calcifications(tissue: Tissue, rng: Generator, oval: Oval, count: int) -> None:
    for _ in range(count):
        at = oval.point(rng.normal(0, 0.35) * oval.a, rng.normal(0, 0.35) * oval.b)
        tissue.shine(np.hypot(tissue.x - np.float32(at[0]), tissue.z - np.float32(at[1])), 5, 0.03)


def thyroid(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Transverse neck: strap muscles, thyroid lobe, trachea and carotid.

    Three of four unlabelled patients have a nodule.
    """
    # on which side of the image the trachea lies.
    side = 1.0 if patient.random() < 0.5 else -1.0
    width = tissue.width
    d, size, echo = tissue.probe.depth, uniform(patient, 0.9, 1.12), uniform(patient, -1, 3.5)
    lobe_x, lobe_z = -side * 0.06 * width, d * uniform(patient, 0.40, 0.47)
    shift = view.normal(0, 0.1)
    _neck(tissue, view, lobe_z - 0.26 * d * size)
    lobe = _lobe(
        tissue, view, lobe_x + shift, lobe_z, 0.27 * width * size, 0.23 * d * size, side, echo
    )
    _trachea(tissue, view, side * 0.47 * width + shift, d * 0.36, 0.2 * width)
    carotid = ellipse(
        tissue,
        -side * 0.4 * width + shift,
        0.5 * d,
        0.085 * width,
        0.078 * width,
        view.normal(0, 0.3),
    )
    vessel(tissue, carotid)
    drawn = patient.choice(["benign", "malignant", "none"], p=[0.45, 0.3, 0.25])
    chosen = label or str(drawn)
    nodule = _nodule(tissue, patient, view, chosen, (lobe_x + shift, lobe_z))
    skin(tissue, view, 0.12)
    return (
        None
        if chosen == "none"
        else Structure("nodule", intersection(nodule, lobe - np.float32(0.1)))
    )


def _neck(tissue: Tissue, rng: Generator, lobe_top: float) -> None:
    z, d = tissue.z, tissue.probe.depth
    fat(tissue, rng, np.full_like(z, -1.0), -7)
    top, bottom = (
        tissue.wavy(rng, 0.55 * lobe_top, 0.03 * d, 6),
        tissue.wavy(rng, lobe_top + 0.05 * d, 0.03 * d, 5),
    )
    fibres(tissue, rng, intersection(top - z, z - bottom), -12, 0.0, top)
    fascia(tissue, rng, top, 2)
    deep = tissue.wavy(rng, 0.72 * d, 0.04 * d, 5)
    fibres(tissue, rng, deep - z, -13, uniform(rng, -0.2, 0.2), deep)
    fascia(tissue, rng, deep, 0)


def _lobe(
    tissue: Tissue, rng: Generator, x: float, z: float, a: float, b: float, side: float, echo: float
) -> Array:
    lobe = blob(tissue, rng, x, z, a, b, angle=-0.1 * side, roughness=0.04)
    isthmus = ellipse(tissue, x + side * 1.3 * a, z - 0.75 * b, a, 0.2 * b)
    gland = union(lobe, isthmus)
    tissue.fill(
        gland,
        echo + 1.2 * tissue.texture(rng, 0.25, 0.12) + tissue.texture(rng, 0.8, 0.5),
        edge=0.06,
    )
    tissue.shine(gland, 3, 0.02, facing(tissue, gland))
    return gland


def _trachea(tissue: Tissue, rng: Generator, x: float, z: float, radius: float) -> None:
    """Paint the cartilage arch, the bright air line and its reverberations."""
    ring, front = (
        ellipse(tissue, x, z + 0.9 * radius, radius, radius),
        tissue.z < np.float32(z + 0.9 * radius),
    )
    inward = np.maximum(-ring, 0) / np.float32(radius)
    ringing = 6 * np.cos(inward * np.float32(10 * np.pi)) * np.exp(-2.5 * inward)
    shadow = intersection(
        np.abs(tissue.x - np.float32(x)) - np.float32(0.97 * radius),
        np.float32(z + radius) - tissue.z,
    )
    tissue.fill(
        union(ring, shadow),
        -15 + ringing + 3 * tissue.texture(rng, 0.25, 0.6),
        attenuation=3,
        edge=0.15,
    )
    tissue.fill(
        intersection(
            np.abs(ring + np.float32(0.07)) - np.float32(0.07), tissue.z - np.float32(z + radius)
        ),
        -11,
    )
    tissue.shine(ring + np.float32(0.17), 11, 0.035, facing(tissue, ring) * front)


def vessel(tissue: Tissue, lumen: Array, wall: float = 4.0) -> None:
    """Anechoic blood in a bright wall."""
    tissue.fill(np.abs(lumen) - np.float32(0.05), 0.0)
    tissue.fill(lumen, -32, attenuation=-2.5, edge=0.04)
    tissue.shine(lumen, wall + 3, 0.025, facing(tissue, lumen))


def _nodule(
    tissue: Tissue, patient: Generator, view: Generator, kind: str, centre: tuple[float, float]
) -> Array:
    """Paint a nodule by ACR TI-RADS descriptors; the distributions of the two kinds overlap."""
    m = 1.0 if kind == "malignant" else 0.0
    size = uniform(patient, 0.12, 0.19) * tissue.probe.depth
    aspect = float(np.clip(patient.normal(0.7 + 0.35 * m, 0.14), 0.45, 1.5))
    echo = float(patient.normal(-2.5 - 9 * m, 3.0))
    rough = float(np.clip(patient.normal(0.04 + 0.11 * m, 0.045), 0.0, 0.3))
    cystic = float(np.clip(patient.normal(0.45 - 0.55 * m, 0.4), 0, 1))
    halo = float(np.clip(patient.normal(5 - 5 * m, 3), 0, 9))
    specks = patient.poisson(0.5 + 4 * m)
    x, z = (
        centre[0] + uniform(patient, -0.3, 0.3) + view.normal(0, 0.05),
        centre[1] + uniform(patient, -0.12, 0.12),
    )
    oval = Oval(x, z, size / aspect**0.5, size * aspect**0.5, view.normal(0, 0.1))
    region = blob(tissue, view, *oval, roughness=rough)
    if kind == "none":
        return region
    tissue.add(-halo * np.exp(-0.5 * np.square((region - np.float32(0.03)) / np.float32(0.04))))
    holes = 14 * cystic * np.clip(tissue.texture(view, 0.16, 0.11) - 0.2, 0, 1.5)
    tissue.fill(region, echo - holes + 1.5 * tissue.texture(view, 0.2, 0.1), attenuation=-2 + 3 * m)
    _calcifications(tissue, view, oval, specks)
    return region


def muscle(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Two pennate bellies between aponeuroses, as in a gastrocnemius or vastus."""
    d, z = tissue.probe.depth, tissue.z
    slope = uniform(patient, 0.15, 0.42) * (1 if patient.random() < 0.5 else -1)
    depths = [d * uniform(patient, *limits) for limits in ((0.12, 0.25), (0.48, 0.62), (0.8, 0.95))]
    tilt = np.float32(view.normal(0, 0.03)) * tissue.x
    fat(tissue, view, np.full_like(z, -1.0), -6)
    sheets = [tissue.wavy(view, depth, 0.02 * d, 8) + tilt for depth in depths]
    fibres(tissue, view, sheets[0] - z, -7, slope, sheets[0])
    fibres(tissue, view, sheets[1] - z, -11, -0.7 * slope, sheets[1])
    fibres(tissue, view, sheets[2] - z, -16, 0.0, sheets[2])
    for sheet, level in zip(sheets, (9, 9, 5), strict=True):
        fascia(tissue, view, sheet, level, 0.035)
    skin(tissue, view)
    return Structure("muscle", intersection(sheets[0] - z, z - sheets[1]))


def soft_tissue(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Fat, muscle and bone with its shadow; the fat holds a lipoma or a fluid collection."""
    d, z = tissue.probe.depth, tissue.z
    depth, bone = d * uniform(patient, 0.35, 0.55), d * uniform(patient, 0.72, 0.88)
    fluid, size = patient.random() < 0.5, uniform(patient, 0.5, 0.9)
    fat(tissue, view, np.full_like(z, -1.0), uniform(patient, -10, -4))
    bed = tissue.wavy(view, depth, 0.03 * d, 5)
    fibres(tissue, view, bed - z, -9, view.normal(0, 0.08), bed)
    fascia(tissue, view, bed, 6, 0.03)
    x = view.normal(0, 0.3)
    region = blob(
        tissue, view, x, 0.58 * depth, size, 0.3 * depth, roughness=0.12 if fluid else 0.03
    )
    echo = (
        -26 + 8 * tissue.texture(view, 0.3, 0.2)
        if fluid
        else -3 + 3 * tissue.texture(view, 0.4, 0.04)
    )
    tissue.fill(region, echo, attenuation=-5 if fluid else 0)
    tissue.shine(region, 0, 0.03, facing(tissue, region))
    _bone(tissue, view, tissue.wavy(view, bone, 0.04 * d, 6))
    skin(tissue, view, 0.18)
    return Structure("collection" if fluid else "lipoma", region)


def _bone(tissue: Tissue, rng: Generator, depth: Array) -> None:
    tissue.fill(depth - tissue.z, -26, attenuation=10)
    fascia(tissue, rng, depth, 14, 0.05)


def testicle(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """A testis in its tunica with mediastinum line and epididymis; some have a hydrocele."""
    d, width, z = tissue.probe.depth, tissue.width, tissue.z
    long, short = width * uniform(patient, 0.33, 0.46), d * uniform(patient, 0.26, 0.33)
    fluid = max(0.0, uniform(patient, -0.15, 0.4))
    x, angle = view.normal(0, 0.15), view.normal(0, 0.08)
    wall = tissue.wavy(view, 0.16 * d, 0.02 * d, 5)
    fibres(tissue, view, np.full_like(z, -1.0), -8, 0.0, wall)
    sac = blob(
        tissue,
        view,
        x,
        (0.52 - 0.1 * fluid) * d,
        long + fluid,
        short + 0.6 * fluid,
        angle,
        roughness=0.02,
    )
    tissue.fill(sac, -30, attenuation=-1)
    testis = blob(tissue, view, x, 0.52 * d, long, short, angle, roughness=0.015)
    cap = blob(
        tissue, view, x - 0.95 * long, 0.46 * d, 0.2 * long, 0.32 * short, angle, roughness=0.08
    )
    tissue.fill(cap, -2 + 2 * tissue.texture(view, 0.2, 0.2))
    tissue.fill(testis, 3 + 1.2 * tissue.texture(view, 0.18, 0.1) + tissue.texture(view, 0.9, 0.6))
    u, v = local_axes(tissue, x + 0.1 * long, 0.6 * d, angle)
    tissue.shine(np.hypot(v, np.maximum(np.abs(u) - np.float32(0.45 * long), 0)), 9, 0.05)
    tissue.shine(testis, 10, 0.03, facing(tissue, testis))
    skin(tissue, view)
    return Structure("testis", testis)


def oncology(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """Enlarged, rounded lymph nodes without hilum beside a vessel; some are necrotic."""
    d, width, z = tissue.probe.depth, tissue.width, tissue.z
    count, necrotic = int(patient.integers(2, 5)), patient.random() < 0.4
    sizes = patient.uniform(0.08, 0.17, 4) * d
    fat(tissue, view, np.full_like(z, -1.0), -5)
    bed = tissue.wavy(view, 0.18 * d, 0.03 * d, 5)
    fibres(tissue, view, intersection(bed - z, z - bed - np.float32(0.12 * d)), -11, 0.0, bed)
    deep = tissue.wavy(view, 0.8 * d, 0.05 * d, 5)
    fibres(tissue, view, deep - z, -13, view.normal(0, 0.1), deep)
    nodes = []
    for i in range(count):
        x, at = (
            ((i + 0.5) / count - 0.5) * 0.8 * width + view.normal(0, 0.1),
            d * view.uniform(0.42, 0.62),
        )
        nodes.append(
            blob(tissue, view, x, at, 1.2 * sizes[i], sizes[i], view.normal(0, 0.3), roughness=0.05)
        )
        core = np.clip(-nodes[-1] / np.float32(0.6 * sizes[i]), 0, 1) * (-9 if necrotic else 0)
        tissue.fill(nodes[-1], -13 + 2 * tissue.texture(view, 0.2, 0.12) + core, attenuation=-1.5)
        tissue.shine(nodes[-1], 1, 0.025, facing(tissue, nodes[-1]))
    vessel(tissue, ellipse(tissue, view.normal(0.3, 0.05) * width, 0.75 * d, 0.1 * width, 0.08 * d))
    skin(tissue, view)
    return Structure("nodes", union(*nodes))


def doppler(
    tissue: Tissue, patient: Generator, view: Generator, label: str | None
) -> Structure | None:
    """A vessel in long axis with intima-media lines, with or without plaque, in grey scale."""
    d, z = tissue.probe.depth, tissue.z
    depth, radius = d * uniform(patient, 0.42, 0.58), uniform(patient, 0.25, 0.4)
    slope, plaque = view.normal(0, 0.06), patient.random() < 0.5
    fat(tissue, view, np.full_like(z, -1.0), -6)
    bed = tissue.wavy(view, 0.22 * d, 0.03 * d, 6)
    fibres(
        tissue, view, intersection(bed - z, z - np.float32(depth - radius - 0.1)), -10, slope, bed
    )
    axis = tissue.wavy(view, depth, 0.03, 7) + np.float32(slope) * tissue.x
    lumen = np.abs(z - axis) - np.float32(radius)
    tissue.fill(lumen - np.float32(0.09), -14)
    tissue.shine(lumen - np.float32(0.09), 8, 0.03)
    tissue.fill(lumen, -34, attenuation=-3, edge=0.03)
    tissue.shine(lumen, 4, 0.018, np.clip(0.8 + 0.3 * tissue.texture(view, 0.8, 5), 0, 1))
    if plaque:
        heap = ellipse(
            tissue, view.normal(0, 0.5), depth + radius, uniform(patient, 0.4, 0.9), 0.45 * radius
        )
        tissue.fill(
            intersection(heap, lumen), -5 + 3 * tissue.texture(view, 0.2, 0.1), attenuation=4
        )
    skin(tissue, view)
    return Structure("vessel", lumen)

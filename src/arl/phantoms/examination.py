"""Examinations of synthetic patients: images of one patient share anatomy, lesion and probe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arl.phantoms import abdomen, superficial, thorax
from arl.phantoms.geometry import Probe, ScanConverter
from arl.phantoms.scanner import Scanner, acquire
from arl.phantoms.tissue import Structure, Tissue

Scene = Callable[[Tissue, Generator, Generator, str | None], Structure | None]

_SCENES: dict[str, tuple[Callable[[Generator], Probe], Scene]] = {
    "abdominal": (partial(abdomen.probe, depth=(10, 14)), abdomen.abdominal),
    "aorta": (partial(abdomen.probe, depth=(10, 14)), abdomen.aorta),
    "bladder": (partial(abdomen.probe, depth=(10, 14)), abdomen.bladder),
    "breast": (partial(superficial.probe, depth=(3.0, 4.5)), superficial.breast),
    "cardiac": (thorax.cardiac_probe, thorax.cardiac),
    "doppler": (partial(superficial.probe, depth=(3.0, 4.2)), superficial.doppler),
    "esophageal": (thorax.esophageal_probe, thorax.esophageal),
    "gallbladder": (partial(abdomen.probe, depth=(7.5, 10.5)), abdomen.gallbladder),
    "kidney": (partial(abdomen.probe, depth=(10, 14)), abdomen.kidney),
    "liver": (partial(abdomen.probe, depth=(12, 16)), abdomen.liver),
    "lung": (thorax.lung_probe, thorax.lung),
    "muscle": (partial(superficial.probe, depth=(3.5, 5.0)), superficial.muscle),
    "oncology": (partial(superficial.probe, depth=(3.0, 4.5)), superficial.oncology),
    "soft_tissue": (partial(superficial.probe, depth=(2.5, 4.0)), superficial.soft_tissue),
    "testicle": (partial(superficial.probe, depth=(3.0, 4.2)), superficial.testicle),
    "thyroid": (partial(superficial.probe, depth=(3.0, 4.0)), superficial.thyroid),
}
LABELS: dict[str, tuple[str, ...]] = {
    "breast": ("benign", "malignant"),
    "cardiac": thorax.VIEWS,
    "gallbladder": ("normal", "benign", "malignant"),
    "lung": ("normal", "covid"),
    "thyroid": ("benign", "malignant"),
}
# beam-space samples and beams per pixel row of the image
_SAMPLES, _BEAMS = 1.25, 0.75


@dataclass(frozen=True)
class Phantom:
    """One synthetic image with its ground truth."""

    # (height, width).
    image: NDArray[np.uint8]
    # Name of the segmented structure.
    structure: str | None
    # (height, width); None: nothing to outline.
    mask: NDArray[np.bool_] | None
    label: str | None
    probe: str
    # cm a pixel.
    spacing: float
    # cm.
    depth: float


def examine(
    anatomy: str, scanner: Scanner, seed: Sequence[int], labels: Sequence[str | None], height: int
) -> list[Phantom]:
    """Simulate the images of one patient, one per entry of `labels`.

    A label of None lets the patient's own random state decide, and the image stays unlabelled.

    The patient's own parameters follow from `seed` alone, so labels of one patient must agree,
    except for the cardiac views. `height` is in pixels; the width follows from the probe.

    Raises:
        ValueError: unknown anatomy, or a label that the anatomy does not have.
    """
    if anatomy not in _SCENES:
        raise ValueError(f"no phantom of anatomy {anatomy!r}: expected one of {', '.join(_SCENES)}")
    for label in labels:
        if label is not None and label not in LABELS.get(anatomy, ()):
            raise ValueError(
                f"label {label!r} of a {anatomy} phantom is not one of {LABELS.get(anatomy, ())}"
            )
    return [
        _image(anatomy, scanner, seed, 1 + view, label, height) for view, label in enumerate(labels)
    ]


def _image(
    anatomy: str, scanner: Scanner, seed: Sequence[int], number: int, label: str | None, height: int
) -> Phantom:
    build_probe, scene = _SCENES[anatomy]
    # the patient stream is the same for all images, the view stream differs
    patient, view = (np.random.default_rng([*seed, stream]) for stream in (0, number))
    probe = build_probe(patient)
    tissue = Tissue(probe, round(_SAMPLES * height), round(_BEAMS * height))
    structure = scene(tissue, patient, view, label)
    converter = ScanConverter.of(probe, height, *tissue.x.shape)
    image = acquire(tissue, scanner, converter, view)
    mask = None if structure is None else (converter(structure.region) < 0) & converter.inside
    if structure is None or mask is None or not mask.any():
        return Phantom(image, None, None, label, probe.kind, converter.spacing, probe.depth)
    return Phantom(image, structure.name, mask, label, probe.kind, converter.spacing, probe.depth)

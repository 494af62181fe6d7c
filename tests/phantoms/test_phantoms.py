"""Every anatomy's phantom: rendered, deterministic, with a ground truth that the image shows."""

import numpy as np
import pytest

from arl.corpus.anatomy import ANATOMIES
from arl.phantoms.examination import LABELS, Phantom, examine
from arl.phantoms.scanner import Scanner

SCANNER = Scanner("test", 0.0042, 0.0085, 3, 3, 60, 1.1, -44, -27)
HEIGHT = 96
PROBES = {
    "linear": {
        "breast",
        "doppler",
        "lung",
        "muscle",
        "oncology",
        "soft_tissue",
        "testicle",
        "thyroid",
    },
    "convex": {"abdominal", "aorta", "bladder", "gallbladder", "kidney", "liver", "lung"},
    "sector": {"cardiac", "esophageal"},
}


def many(anatomy: str, label: str | None, patients: int) -> list[Phantom]:
    return [
        examine(anatomy, SCANNER, [11, patient], [label], HEIGHT)[0] for patient in range(patients)
    ]


def contrast(phantom: Phantom) -> float:
    """Mean level inside the mask less that of what lies around it."""
    assert phantom.mask is not None
    rows, columns = np.nonzero(phantom.mask)
    box = np.zeros_like(phantom.mask)
    box[max(rows.min() - 4, 0) : rows.max() + 5, max(columns.min() - 4, 0) : columns.max() + 5] = (
        True
    )
    around = box & ~phantom.mask & (phantom.image > 0)
    return float(phantom.image[phantom.mask].mean() - phantom.image[around].mean())


@pytest.mark.parametrize("anatomy", ANATOMIES)
def test_every_anatomy_renders(anatomy):
    first, second = examine(anatomy, SCANNER, [3, 5], [None, None], HEIGHT)
    again = examine(anatomy, SCANNER, [3, 5], [None, None], HEIGHT)[1]
    assert np.array_equal(second.image, again.image)
    assert not np.array_equal(first.image, second.image)
    assert (first.probe, first.depth, first.spacing) == (
        second.probe,
        second.depth,
        second.spacing,
    )  # one patient
    assert first.image.dtype == np.uint8
    assert first.image.shape[0] == HEIGHT
    assert anatomy in PROBES[first.probe]
    shown = first.image[first.image > 0]
    assert shown.size > 0.3 * first.image.size
    assert 20 < shown.mean() < 140
    assert shown.std() > 10
    assert first.label is None
    if first.mask is not None:
        assert first.mask.shape == first.image.shape
        assert 0.003 < first.mask.mean() < 0.6


@pytest.mark.parametrize(
    ("anatomy", "label", "structure"),
    [
        ("breast", "benign", "lesion"),
        ("breast", "malignant", "lesion"),
        ("thyroid", "malignant", "nodule"),
        ("gallbladder", "normal", "gallbladder"),
        ("bladder", None, "bladder"),
        ("cardiac", "A4C", "lv"),
        ("aorta", None, "aorta"),
        ("doppler", None, "vessel"),
    ],
)
def test_dark_structures_are_darker_than_their_surroundings(anatomy, label, structure):
    phantoms = many(anatomy, label, 5)
    assert {phantom.structure for phantom in phantoms} == {structure}
    assert np.mean([contrast(phantom) for phantom in phantoms]) < -8


def test_a_testis_is_brighter_than_its_surroundings():
    assert np.mean([contrast(phantom) for phantom in many("testicle", None, 5)]) > 8


def behind(phantom: Phantom) -> float:
    """Level under the lesion against the level beside that, at the same depth."""
    assert phantom.mask is not None
    rows, columns = np.nonzero(phantom.mask)
    middle, half = int(columns.mean()), max(int(np.ptp(columns)) // 4, 1)
    strip = phantom.image[rows.max() + 3 : rows.max() + 18].astype(float)
    away = np.ones(strip.shape[1], bool)
    away[columns.min() : columns.max() + 1] = False
    return float(strip[:, middle - half : middle + half + 1].mean() - strip[:, away].mean())


def test_breast_masses_differ_as_bi_rads_says():
    benign, malignant = many("breast", "benign", 12), many("breast", "malignant", 12)
    assert (
        np.mean([behind(p) for p in benign]) > np.mean([behind(p) for p in malignant]) + 10
    )  # enhancement, shadow
    shape = [
        [np.ptp(np.nonzero(p.mask)[0]) / np.ptp(np.nonzero(p.mask)[1]) for p in kind]
        for kind in (benign, malignant)
    ]
    assert np.mean(shape[0]) < 0.8
    assert np.mean(shape[1]) > np.mean(shape[0]) + 0.15  # taller than wide


def test_classes_overlap():
    shape = [
        [
            np.ptp(np.nonzero(p.mask)[0]) / np.ptp(np.nonzero(p.mask)[1])
            for p in many("breast", label, 12)
        ]
        for label in LABELS["breast"]
    ]
    assert max(shape[0]) > min(shape[1])


def test_stones_cast_shadows():
    normal, stones = (many("gallbladder", label, 10) for label in ("normal", "benign"))

    def darkest_column(phantom: Phantom) -> float:
        rows, columns = np.nonzero(phantom.mask)
        below = phantom.image[rows.max() + 3 : rows.max() + 15, columns.min() : columns.max()]
        return float(below.mean(axis=0).min())

    assert np.mean([darkest_column(p) for p in stones]) < 0.6 * np.mean(
        [darkest_column(p) for p in normal]
    )


def brightest_ray(phantom: Phantom) -> float:
    """How far one column in the lower part of the picture stands out from its neighbours."""
    width = phantom.image.shape[1]
    low = (
        phantom.image[2 * HEIGHT // 3 : 11 * HEIGHT // 12, width // 4 : -width // 4]
        .astype(float)
        .mean(axis=0)
    )
    return float(np.max(low[7:-7] - np.convolve(low, np.ones(15) / 15, "valid")))


def test_b_lines_reach_the_bottom():
    normal, covid = (
        np.mean([brightest_ray(p) for p in many("lung", label, 24)])
        for label in ("normal", "covid")
    )
    assert normal > 10  # some healthy lungs have one
    assert covid > 1.12 * normal


def test_cardiac_views_hold_a_left_ventricle_of_the_view():
    views = {view: many("cardiac", view, 4) for view in LABELS["cardiac"]}
    for phantoms in views.values():
        assert all(p.structure == "lv" and 0.01 < p.mask.mean() < 0.2 for p in phantoms)
    assert all(
        np.ptp(np.nonzero(p.mask)[0]) > 1.3 * np.ptp(np.nonzero(p.mask)[1])
        for p in views["A4C"] + views["A2C"]
    )
    assert all(np.ptp(np.nonzero(p.mask)[0]) < np.ptp(np.nonzero(p.mask)[1]) for p in views["PLAX"])
    assert all(
        np.ptp(np.nonzero(p.mask)[0]) < 1.3 * np.ptp(np.nonzero(p.mask)[1])
        for p in views["PSAX_PM"]
    )


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no phantom of anatomy 'spleen'"):
        examine("spleen", SCANNER, [0], [None], HEIGHT)
    with pytest.raises(ValueError, match="label 'cyst' of a breast phantom"):
        examine("breast", SCANNER, [0], ["cyst"], HEIGHT)

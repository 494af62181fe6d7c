"""Speckle statistics against the theory of fully developed speckle."""

import numpy as np
import pytest

from arl.phantoms.geometry import Curved, Linear, ScanConverter
from arl.phantoms.scanner import Scanner, acquire
from arl.phantoms.speckle import blur_lateral, envelope, speckle_field, transmission, with_clutter
from arl.phantoms.tissue import Oval, Tissue, blob, ellipse, segment

SAMPLES, BEAMS = 307, 211


def uniform(looks: int, level: float = 0.0) -> np.ndarray:
    lateral = np.linspace(2.6, 1.1, SAMPLES, dtype=np.float32)
    flat = np.full((SAMPLES, BEAMS), level, np.float32)
    rng = np.random.default_rng(1)
    return envelope(
        np.concatenate([speckle_field(flat, 1.3, lateral, looks, rng) for _ in range(3)])
    )


def test_single_look_is_rayleigh():
    amplitude = uniform(looks=1)
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.91, abs=0.05)
    assert (20 * np.log10(amplitude)).std() == pytest.approx(5.57, abs=0.15)
    assert np.square(amplitude).mean() == pytest.approx(1, rel=0.03)


def test_compounding_raises_the_snr_by_the_root_of_the_looks():
    amplitude = uniform(looks=4)
    assert amplitude.mean() / amplitude.std() == pytest.approx(2 * 1.91, abs=0.12)


def test_level_is_in_decibels():
    np.testing.assert_allclose(uniform(1, level=-20.0), uniform(1) / 10, rtol=1e-4)


def test_lateral_blur_keeps_the_variance_at_every_depth_and_widens_the_speckle():
    sigma = np.linspace(1.0, 4.3, SAMPLES, dtype=np.float32)
    noise = np.random.default_rng(2).standard_normal((SAMPLES, 1009, 2), dtype=np.float32)
    field = blur_lateral(noise, sigma)[:, 20:-20]
    thirds = np.array_split(field, 3)
    assert [part.var() for part in thirds] == pytest.approx([1, 1, 1], rel=0.05)
    neighbours = [(part[:, 1:] * part[:, :-1]).mean() for part in thirds]
    widths = [part.mean() for part in np.array_split(sigma, 3)]
    assert neighbours == pytest.approx(
        [np.exp(-0.25 / width**2) for width in widths], rel=0.05
    )  # Gaussian's own


def test_lateral_kernels_have_unit_energy_between_the_widths_of_the_bank():
    impulse = np.zeros((SAMPLES, 61, 2), np.float32)
    impulse[:, 30] = 1
    energy = np.square(blur_lateral(impulse, np.linspace(1.0, 4.3, SAMPLES, dtype=np.float32))).sum(
        axis=1
    )
    np.testing.assert_allclose(energy, 1, rtol=1e-4)


def test_attenuation_adds_up_along_the_beam():
    attenuation = np.zeros((SAMPLES, BEAMS), np.float32)
    attenuation[100:150, 50:150] = 7.0
    change = transmission(attenuation, step=0.02)
    np.testing.assert_allclose(change[160:, 70:130], -7.0 * 50 * 0.02, rtol=1e-4)
    assert np.all(change[:100] == 0)
    assert np.all(change[:, :40] == 0)


def test_clutter_fills_a_void_by_its_level():
    level = np.zeros((SAMPLES, BEAMS), np.float32)
    level[:, 100:103] = -80.0
    np.testing.assert_allclose(with_clutter(level, -30.0)[:, 101], -30, atol=0.3)


PROBES = [
    Linear(4.1, 3.7),
    Curved(11.3, np.radians(61), 5.3, "convex"),
    Curved(15.7, np.radians(83), 0.4, "sector"),
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.kind)
def test_scan_conversion_puts_points_where_they_are(probe):
    tissue, converter = Tissue(probe, 401, 307), ScanConverter.of(probe, 157, 401, 307)
    left, right, top, _ = probe.extent()
    x = (
        left
        + (np.arange(converter.inside.shape[1]) + 0.5) * (right - left) / converter.inside.shape[1]
    )
    z = top + (np.arange(157) + 0.5) * converter.spacing
    inner = converter.inside & np.roll(converter.inside, 3, 0) & np.roll(converter.inside, -3, 0)
    inner &= np.roll(converter.inside, 3, 1) & np.roll(converter.inside, -3, 1)
    inner[:3], inner[-3:], inner[:, :3], inner[:, -3:] = False, False, False, False
    np.testing.assert_allclose(
        converter(tissue.x)[inner], np.broadcast_to(x, inner.shape)[inner], atol=0.01
    )
    np.testing.assert_allclose(
        converter(tissue.z)[inner], np.broadcast_to(z[:, None], inner.shape)[inner], atol=0.01
    )


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.kind)
def test_nothing_is_shown_outside_the_field_of_view(probe):
    converter = ScanConverter.of(probe, 97, 121, 73)
    scanner = Scanner("test", 0.0042, 0.0085, 2, 6, 60, 1.1, -44, -27)
    image = acquire(Tissue(probe, 121, 73), scanner, converter, np.random.default_rng(3))
    assert image.shape == converter.inside.shape
    assert not image[~converter.inside].any()
    assert (image[converter.inside] > 8).mean() > 0.9
    if probe.kind == "linear":
        assert converter.inside.all()
    else:
        assert not converter.inside[0, 0]
        assert not converter.inside[-1, 0]
        expected = (
            probe.angle / 2 * ((probe.radius + probe.depth) ** 2 - probe.radius**2)
        )  # area of the fan
        assert converter.inside.sum() * converter.spacing**2 == pytest.approx(expected, rel=0.02)


def test_regions_have_the_area_of_their_shape():
    tissue = Tissue(Linear(6.0, 8.0), 601, 801)
    cell = 6.0 * 8.0 / (601 * 801)
    oval = Oval(0.3, 3.1, 1.7, 0.9, 0.4)
    assert (ellipse(tissue, *oval) < 0).sum() * cell == pytest.approx(np.pi * 1.7 * 0.9, rel=0.01)
    assert (blob(tissue, np.random.default_rng(0), *oval) < 0).sum() * cell == pytest.approx(
        np.pi * 1.53, rel=0.01
    )
    assert oval.point(1.7, 0) == pytest.approx((0.3 + 1.7 * np.cos(0.4), 3.1 + 1.7 * np.sin(0.4)))
    capsule = segment(tissue, (-1.0, 2.0), (1.0, 4.0)) < 0.5
    assert capsule.sum() * cell == pytest.approx(np.pi * 0.25 + np.hypot(2, 2), rel=0.01)


def test_a_fill_replaces_what_was_there():
    tissue = Tissue(Linear(4.0, 4.0), 101, 101)
    tissue.shine(tissue.z - 2, 10, 0.1)
    tissue.fill(tissue.z - 3, -30.0, attenuation=2.0)
    np.testing.assert_allclose(tissue.echo[:70], -30)
    np.testing.assert_allclose(tissue.attenuation[:70], 2)
    assert not tissue.specular[:70].any()
    np.testing.assert_allclose(tissue.echo[80:], 0, atol=1e-6)

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from arl.evaluation.speckle import local_snr, radial_spectrum, spectrum_distance


def speckle(seed: int = 0, shape: tuple[int, int] = (131, 97)) -> np.ndarray:
    """The envelope of a circular Gaussian field: fully developed speckle."""
    rng = np.random.default_rng(seed)
    return np.hypot(rng.normal(size=shape), rng.normal(size=shape))


def test_fully_developed_speckle_has_rayleighs_snr() -> None:
    assert local_snr(speckle(shape=(401, 307)), window=31) == pytest.approx(
        np.sqrt(np.pi / (4 - np.pi)), rel=0.03
    )


def test_blur_raises_the_local_snr_and_moves_the_spectrum() -> None:
    original = speckle()
    distances = [
        spectrum_distance(gaussian_filter(original, sigma), original) for sigma in (0.5, 1.0, 2.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] > 1
    assert local_snr(gaussian_filter(original, 1.5)) > 2 * local_snr(original)


def test_another_draw_of_the_same_speckle_is_near() -> None:
    assert (
        spectrum_distance(speckle(1), speckle(2))
        < 2.0
        < spectrum_distance(gaussian_filter(speckle(1), 0.5), speckle(1))
    )
    assert spectrum_distance(speckle(1), speckle(1)) == 0


@pytest.mark.parametrize("cycles", [5, 19])
def test_a_wave_is_in_the_ring_of_its_frequency(cycles: int) -> None:
    size = 128
    wave = np.cos(2 * np.pi * cycles * np.arange(size) / size) * np.ones((size, 1))
    spectrum = radial_spectrum(wave)
    assert spectrum.sum() == pytest.approx(1)
    assert spectrum.argmax() == int(cycles / size * 2 * 32)


def test_brightness_and_contrast_do_not_matter_to_the_spectrum() -> None:
    assert spectrum_distance(3 * speckle() + 50, speckle()) == pytest.approx(0, abs=1e-6)


def test_pictures_without_speckle_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"shape \(63, 200\) is too small for 32 rings: it needs 64 pixels"
    ):
        radial_spectrum(np.ones((63, 200)))
    with pytest.raises(ValueError, match=r"shape \(5, 9\) is smaller than a window of 7"):
        local_snr(np.ones((5, 9)))
    with pytest.raises(ValueError, match="even everywhere"):
        local_snr(np.ones((20, 20)))

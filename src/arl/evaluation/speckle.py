"""Speckle statistics of a picture: its radial spectrum, and its variation in even tissue.

A blurred reconstruction keeps the organ and loses the high frequencies; pixel errors hardly notice.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from arl.evaluation.metrics import Floats

_FLOOR = 1e-12  # of a power, so that an even picture has a spectrum too


def radial_spectrum(image: npt.ArrayLike, bins: int = 32) -> Floats:
    """Mean power in rings of equal width up to the Nyquist frequency: (bins,), the sum is 1.

    A Hann window keeps the borders out of it.

    Raises:
        ValueError: the image (H, W) is smaller than the rings need.
    """
    pixels = np.asarray(image, np.float64)
    if pixels.ndim != 2 or min(pixels.shape) < 2 * bins:
        raise ValueError(
            f"an image of shape {pixels.shape} is too small for {bins} rings:"
            f" it needs {2 * bins} pixels"
        )
    window = np.outer(np.hanning(pixels.shape[0]), np.hanning(pixels.shape[1]))
    power = np.abs(np.fft.fft2((pixels - pixels.mean()) * window)) ** 2
    radius = np.hypot(
        *np.meshgrid(
            np.fft.fftfreq(pixels.shape[0]), np.fft.fftfreq(pixels.shape[1]), indexing="ij"
        )
    )
    ring = np.minimum(
        (radius * 2 * bins).astype(np.int64), bins
    )  # the corners beyond Nyquist are ring `bins`
    sums = np.bincount(ring.ravel(), power.ravel(), bins + 1)[:bins]
    counts = np.bincount(ring.ravel(), minlength=bins + 1)[:bins]
    mean = sums / counts + _FLOOR
    return np.asarray(mean / mean.sum())


def spectrum_distance(image: npt.ArrayLike, reference: npt.ArrayLike, bins: int = 32) -> float:
    """Root mean square difference of the logarithms of two radial spectra, decibels."""
    ours, theirs = radial_spectrum(image, bins), radial_spectrum(reference, bins)
    return float(np.sqrt(np.mean((10 * np.log10(ours / theirs)) ** 2)))


def local_snr(image: npt.ArrayLike, window: int = 7) -> float:
    """Median of mean / standard deviation in small windows; 1.91 for fully developed speckle.

    That is Rayleigh's value, before the scanner's compression (Burckhardt 1978); a blurred picture
    has more.

    Raises:
        ValueError: the image (H, W) is smaller than a window, or even everywhere.
    """
    pixels = np.asarray(image, np.float64)
    if pixels.ndim != 2 or min(pixels.shape) < window:
        raise ValueError(
            f"an image of shape {pixels.shape} is smaller than a window of {window} pixels"
        )
    mean = uniform_filter(pixels, window)
    # The difference of two filters costs a fixed time per pixel, whatever the window.
    variance = uniform_filter(pixels**2, window) - mean**2
    inner = slice(window // 2, -(window // 2) or None)
    mean, variance = mean[inner, inner], variance[inner, inner]
    # Rounding leaves a tiny variance in even regions, such as the black border of a scan.
    varied = variance > 1e-9 * np.maximum(mean**2, 1)
    if not varied.any():
        raise ValueError("the image is even everywhere: it has no speckle to measure")
    return float(np.median(mean[varied] / np.sqrt(variance[varied])))

"""Speckle by the beam-space method: reflectivity convolved with the pulse's point spread function.

Complex Gaussian reflectivity, shaped by the echogenicity, is blurred axially by the pulse and
laterally by a beam whose width changes with depth. The envelope of each look is then Rayleigh
distributed (mean / std = 1.91, std in dB = 5.57): fully developed speckle (Burckhardt 1978).
Compounding averages independent looks.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Number of lateral widths; widths in between are interpolated.
_BANK = 5
# Kernels end at this many standard deviations.
_REACH = 3.0
_ONE = np.ones(1, dtype=np.float32)


def _gaussian(sigma: float, reach: int) -> Array:
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    kernel = np.exp(-0.5 * (offsets / np.float32(sigma)) ** 2)
    # unit energy keeps the variance of the field
    return np.asarray(kernel / np.linalg.norm(kernel), np.float32)


def blur_axial(field: Array, sigma: float) -> Array:
    """Convolve (samples, beams, channels) along the samples with a Gaussian of unit energy."""
    kernel = _gaussian(sigma, int(np.ceil(_REACH * sigma)))
    return np.asarray(cv2.sepFilter2D(field, -1, _ONE, kernel), np.float32)


def blur_lateral(field: Array, sigma: Array) -> Array:
    """Convolve (samples, beams, channels) along the beams with a Gaussian of width sigma[sample].

    Kernels come from a bank of widths and are interpolated between its two nearest members; the
    mixture is scaled back to unit energy, so that the speckle's level does not depend on the depth.
    """
    bank = np.linspace(sigma.min(), sigma.max(), _BANK).astype(np.float32)
    reach = int(np.ceil(_REACH * float(bank[-1])))
    kernels = [_gaussian(float(width), reach) for width in bank]
    position = (sigma - bank[0]) / max(float(bank[-1] - bank[0]), 1e-6) * (_BANK - 1)
    weight = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(_BANK))).astype(np.float32)
    weight /= np.linalg.norm(weight @ np.stack(kernels), axis=1, keepdims=True)
    out = np.zeros_like(field)
    for member, kernel in enumerate(kernels):
        rows = np.flatnonzero(weight[:, member])
        if rows.size:
            out[rows] += weight[rows, member, None, None] * cv2.sepFilter2D(
                field[rows], -1, kernel, _ONE
            )
    return out


def speckle_field(level: Array, axial: float, lateral: Array, looks: int, rng: Generator) -> Array:
    """Complex echoes of diffuse tissue, (samples, beams, 2 * looks): real, then imaginary parts.

    Args:
        level: root mean square echo amplitude in dB, (samples, beams).
        axial: standard deviation of the pulse, samples.
        lateral: standard deviation of the beam at each depth, beams, (samples,).
        looks: independent realisations.
    """
    rows, columns = (int(np.ceil(_REACH * s)) for s in (axial, float(lateral.max())))
    amplitude = np.power(np.float32(10), level / np.float32(20)) * np.float32(np.sqrt(0.5))
    amplitude = cv2.copyMakeBorder(amplitude, rows, rows, columns, columns, cv2.BORDER_REPLICATE)
    field = rng.standard_normal((*amplitude.shape, 2 * looks), dtype=np.float32)
    field *= amplitude[..., None]
    field = blur_lateral(blur_axial(field, axial)[rows:-rows], lateral)
    return field[:, columns:-columns]


def envelope(field: Array) -> Array:
    """Mean magnitude over the looks of (samples, beams, 2 * looks), as (samples, beams)."""
    looks = field.shape[-1] // 2
    power = np.square(field[..., :looks]) + np.square(field[..., looks:])
    return np.asarray(np.sqrt(power).mean(axis=-1), np.float32)


def with_clutter(level: Array, clutter: float) -> Array:
    """Add side-lobe energy: the mean power of a wide neighbourhood, `clutter` dB down."""
    samples, beams = level.shape
    power = np.power(np.float32(10), level / np.float32(10))
    wide = cv2.blur(
        power, (max(beams // 3, 1), max(samples // 12, 1)), borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(10 * np.log10(power + np.float32(10 ** (clutter / 10)) * wide), np.float32)


def transmission(attenuation: Array, step: float) -> Array:
    """Level change in dB that the tissue above each sample causes.

    The lateral edges of a shadow are soft because a part of the beam passes beside the tissue.

    Args:
        attenuation: two-way excess over what the TGC assumes, dB/cm, (samples, beams); negative
            enhances.
        step: cm between samples.
    """
    loss = np.cumsum(attenuation, axis=0, dtype=np.float32) * np.float32(step)
    reach = max(round(0.012 * attenuation.shape[1]), 1)
    return np.asarray(
        -cv2.blur(loss, (2 * reach + 1, 1), borderType=cv2.BORDER_REPLICATE), np.float32
    )

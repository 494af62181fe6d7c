"""Statistics of how a picture looks: grey levels, spectrum, texture and layout.

They need no network. A page of text, noise, another modality or a photograph of a screen differs
from ultrasound in many of them, even where the features of a small encoder do not.
"""

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from arl.corpus.record import Pixels
from arl.evaluation.metrics import Floats

SIZE = 96  # pixels: all pictures are compared at one size
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_BANDS = np.geomspace(1.5, SIZE / 2, 9)  # cycles a picture
_TINY = 1e-6
_LAYOUT = 4  # cells a side
_ORIENTATIONS = 6
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_SATURATED = 250

Grey = npt.NDArray[np.float32]  # (SIZE, SIZE) in 0..1


def appearance(picture: Pixels) -> Floats:
    """The statistics (d,) of one grey picture (h, w) of any size.

    The picture is stretched to a square first, as the network's input is.
    """
    square = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    grey = square.astype(np.float32) / 255
    parts = [
        grey_levels(square, grey),
        spectrum(grey),
        local_contrast(grey),
        layout(grey),
        edges(grey),
        np.sqrt(binary_patterns(square.astype(np.int16), 1)),
        np.sqrt(binary_patterns(square.astype(np.int16), 3)),
        orientations(grey),
    ]
    return np.concatenate(parts).astype(np.float64)


def grey_levels(square: Pixels, grey: Grey) -> Floats:
    """Quantiles, mean and spread, and the fractions of black, of white and of levels in use."""
    levels = len(np.unique(square)) / 256
    black, white = (square == 0).mean(), (square >= _SATURATED).mean()
    moments = [grey.mean(), grey.std(), black, white, levels]
    return np.concatenate([np.quantile(grey, _QUANTILES), moments])


def spectrum(grey: Grey) -> Floats:
    """Of eight radial bands: log power, its shares along both axes, and its highest peak.

    Speckle has a smooth spectrum. A raster, or the moire of a photographed screen, has peaks.
    """
    window = np.hanning(SIZE)
    values = np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * np.outer(window, window)))
    power = np.abs(values) ** 2 + _TINY
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    radius, angle = np.hypot(y, x), np.arctan2(np.abs(y), np.abs(x))
    statistics = []
    for low, high in pairwise(_BANDS):
        band = (radius >= low) & (radius < high)
        mean = power[band].mean()
        along_x = power[band & (angle <= np.pi / 6)].mean()
        along_y = power[band & (angle >= np.pi / 3)].mean()
        statistics += [mean, along_x / mean, along_y / mean, power[band].max() / mean]
    return np.log(np.asarray(statistics, np.float64))


def local_contrast(grey: Grey) -> Floats:
    """Quantiles of the local deviation, and of its ratio to the local mean.

    The ratio is nearly constant in fully developed speckle (Burckhardt 1978).
    """
    mean = cv2.blur(grey, (5, 5))
    deviation = np.sqrt(np.maximum(cv2.blur(grey * grey, (5, 5)) - mean * mean, 0))
    quantiles = (0.1, 0.5, 0.9)
    ratio = deviation / (mean + 0.02)
    return np.concatenate([np.quantile(deviation, quantiles), np.quantile(ratio, quantiles)])


def layout(grey: Grey) -> Floats:
    """Mean grey level of each cell of a coarse grid, and of the four borders."""
    cells = cv2.resize(grey, (_LAYOUT, _LAYOUT), interpolation=cv2.INTER_AREA)
    borders = [grey[0].mean(), grey[-1].mean(), grey[:, 0].mean(), grey[:, -1].mean()]
    return np.concatenate([(cells - cells.mean()).ravel(), borders])


def edges(grey: Grey) -> Floats:
    """Of the differences along both axes: log mean, fraction of flat steps, and a high quantile."""
    statistics: list[float] = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis))
        flat = float((steps < 1 / 255).mean())
        statistics += [float(np.log(steps.mean() + 1e-4)), flat, float(np.quantile(steps, 0.99))]
    return np.asarray(statistics)


def binary_patterns(levels: npt.NDArray[np.int16], radius: int) -> Floats:
    """Shares of the ten rotation-invariant uniform binary patterns (Ojala 2002)."""
    inner = levels[radius:-radius, radius:-radius]
    shifted = (np.roll(levels, (dy * radius, dx * radius), (0, 1)) for dy, dx in _NEIGHBOURS)
    ring = np.stack([other[radius:-radius, radius:-radius] >= inner for other in shifted])
    changes = (ring != np.roll(ring, 1, axis=0)).sum(axis=0)
    patterns = np.where(changes <= 2, ring.sum(axis=0), len(_NEIGHBOURS) + 1)
    counts = np.bincount(patterns.ravel(), minlength=len(_NEIGHBOURS) + 2)
    return np.asarray(counts / patterns.size)


def orientations(grey: Grey) -> Floats:
    """Square roots of the shares of gradient orientations in each quarter (Dalal 2005)."""
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    turns = (np.arctan2(dy, dx) % np.pi) / np.pi * _ORIENTATIONS
    bins = np.minimum(turns.astype(int), _ORIENTATIONS - 1)
    half = SIZE // 2
    quarters = [(slice(y, y + half), slice(x, x + half)) for y in (0, half) for x in (0, half)]
    sums = [
        np.bincount(bins[part].ravel(), weights=strength[part].ravel(), minlength=_ORIENTATIONS)
        for part in quarters
    ]
    shares = np.concatenate([part / (part.sum() + _TINY) for part in sums])
    return np.asarray(np.sqrt(shares), np.float64)

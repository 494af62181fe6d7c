"""Masked images as encoders with decoders complete them, and the fidelity of their speckle."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arl.evaluation.metrics import Floats
from arl.evaluation.results import Interval
from arl.evaluation.speckle import local_snr, spectrum_distance
from arl.evaluation.statistics import bca_limits, cluster_bootstrap, mean_statistic
from arl.models.reconstructor import Reconstructor
from arl.objectives.masking import Masking, random_masking

_RINGS = 16  # of the spectrum; fewer for images of less than twice as many pixels


def masks(images: int, patches: int, ratio: float, seed: int) -> Masking:
    """The same random masks for every method."""
    return random_masking(
        torch.rand(images, patches, generator=torch.Generator().manual_seed(seed)), ratio
    )


def completed(model: Reconstructor, images: Tensor, anatomy: Tensor, masking: Masking) -> Tensor:
    """Images (B, 1, S, S) with the masked patches as predicted."""
    model.eval()
    images_completed: Tensor = model(images, anatomy, masking)
    return images_completed


@dataclass(frozen=True)
class Speckle:
    """Distance of completed from true images: means over images, intervals over patients."""

    error: Interval  # root mean square of all pixels, grey levels
    spectrum: Interval  # `spectrum_distance`, decibels
    snr: Interval  # `local_snr` of the completed image less that of the true one


def speckle(pictures: Floats, truth: Floats, patients: npt.ArrayLike, *, seed: int) -> Speckle:
    """The statistics of pictures (n, S, S) and true images, in grey levels.

    Raises:
        ValueError: fewer than two patients, or images of less than a local window.
    """
    # A spectrum of a small image has fewer rings than pixels to Nyquist.
    rings = min(_RINGS, truth.shape[-1] // 2)
    pairs = list(zip(pictures, truth, strict=True))
    values = {
        "error": [float(np.sqrt(np.mean((p - t) ** 2))) for p, t in pairs],
        "spectrum": [spectrum_distance(p, t, rings) for p, t in pairs],
        "snr": [local_snr(p) - local_snr(t) for p, t in pairs],
    }
    statistics = [mean_statistic(each) for each in values.values()]
    drawn = cluster_bootstrap(statistics, patients, resamples=1000, seed=seed)
    return Speckle(*(Interval(one.value, *bca_limits(one)) for one in drawn))


def seen(truth: Floats, masking: Masking, patch: int) -> Floats:
    """What the encoder sees of images (n, S, S): masked patches are black."""
    grid = masking.mask.reshape(len(truth), truth.shape[1] // patch, -1).numpy()
    hidden = grid.repeat(patch, axis=1).repeat(patch, axis=2)
    return np.where(hidden, 0.0, truth)

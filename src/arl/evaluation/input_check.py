"""Whether an input looks like the images that a task model was trained on.

Two Mahalanobis distances are measured against the training images: of the statistics of the picture
(`evaluation.appearance`), and of these with the pooled tokens of the encoder (Lee 2018). The
validation images set both limits: a conformal quantile, so that of new images of the same kind at
most `alpha` pass a limit, half of it for each distance.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from arl.evaluation.appearance import appearance
from arl.evaluation.metrics import Floats
from arl.models.encoder import Encoder

FILE = "input_check.safetensors"
ALPHA = 0.05
# From so many limits on an input is not answered: see docs/decisions/input-check.md.
REFUSED = 1.6
_RIDGE = 0.1  # of the covariance of standardised statistics
_CLIP = 8.0  # standard deviations; one extreme statistic must not decide alone
_DEPTHS = 3  # blocks whose tokens are pooled, evenly spaced, the last among them


class Verdict(StrEnum):
    """What follows from the distance of an input."""

    USUAL = "usual"  # like the training images
    UNUSUAL = "unusual"  # answered with a warning
    FOREIGN = "foreign"  # not answered


@torch.no_grad()
def pooled_tokens(encoder: Encoder, image: Tensor, anatomy: Tensor) -> Floats:
    """Mean and deviation of the patch tokens after three blocks: (B, 6 * C).

    Args:
        encoder: in evaluation mode.
        image: normalised, (B, in_chans, S, S).
        anatomy: indices (B,).
    """
    device = next(encoder.parameters()).device
    depth = len(encoder.blocks)
    blocks = sorted({round(depth * (i + 1) / _DEPTHS) - 1 for i in range(_DEPTHS)} - {-1})
    maps = encoder.forward_intermediates(
        image.to(device), blocks, intermediates_only=True, anatomy=anatomy.to(device)
    )
    pooled = [part for one in maps for part in (one.mean(dim=(2, 3)), one.std(dim=(2, 3)))]
    return np.asarray(torch.cat(pooled, dim=1).double().cpu().numpy())


def appearances(pictures: npt.NDArray[np.uint8]) -> Floats:
    """Statistics (n, d) of pictures (n, h, w)."""
    return np.stack([appearance(picture) for picture in pictures])


@dataclass(frozen=True)
class Distance:
    """Mahalanobis distance to the mean of training vectors, in units of its limit."""

    mean: Floats  # (d,)
    scale: Floats  # (d,)
    precision: Floats  # (d, d), of the standardised vectors
    limit: float = 1.0

    @classmethod
    def fit(cls, training: Floats, validation: Floats, alpha: float) -> "Distance":
        """Fit to training vectors (n, d) and set the limit by validation vectors (m, d)."""
        # A statistic without spread in training must not divide by zero.
        mean, scale = training.mean(axis=0), training.std(axis=0) + 1e-6
        standard = np.clip((training - mean) / scale, -_CLIP, _CLIP)
        ridge = _RIDGE * np.eye(training.shape[1])
        precision = np.asarray(np.linalg.inv(np.cov(standard, rowvar=False) + ridge), np.float64)
        unlimited = cls(mean, scale, precision)
        distances = np.sort(unlimited(validation))
        # With few validation images the largest distance is all that is known of the tail.
        rank = min(math.ceil((len(distances) + 1) * (1 - alpha)), len(distances))
        return cls(mean, scale, precision, float(distances[rank - 1]))

    def __call__(self, vectors: Floats) -> Floats:
        """Distances (n,) of vectors (n, d)."""
        standard = np.clip((vectors - self.mean) / self.scale, -_CLIP, _CLIP)
        squares = np.einsum("ij,jk,ik->i", standard, self.precision, standard)
        return np.asarray(np.sqrt(squares) / self.limit)


@dataclass(frozen=True)
class InputCheck:
    """The two distances of one task model."""

    picture: Distance  # of the appearance
    joint: Distance  # of appearance and pooled tokens

    @classmethod
    def fit(
        cls,
        training: tuple[Floats, Floats],
        validation: tuple[Floats, Floats],
        alpha: float = ALPHA,
    ) -> "InputCheck":
        """Fit to appearances and pooled tokens of training and validation images.

        Raises:
            ValueError: fewer than two training images, or no validation image.
        """
        if len(training[0]) < 2 or not len(validation[0]):
            raise ValueError(
                f"{len(training[0])} training and {len(validation[0])} validation images cannot "
                "show what usual inputs look like"
            )
        picture = Distance.fit(training[0], validation[0], alpha / 2)
        both = np.hstack(training), np.hstack(validation)
        return cls(picture, Distance.fit(*both, alpha / 2))

    def distances(self, looks: Floats, tokens: Floats) -> Floats:
        """Distances (n,): the larger of the two, in units of its limit."""
        both = np.hstack([looks, tokens])
        return np.asarray(np.maximum(self.picture(looks), self.joint(both)))

    def write(self, folder: Path) -> None:
        """Write the check into a model folder."""
        tensors = {
            f"{name}.{field}": np.atleast_1d(np.asarray(value, np.float64))
            for name, distance in (("picture", self.picture), ("joint", self.joint))
            for field, value in vars(distance).items()
        }
        partial = folder / f".{FILE}.partial"
        save_file(tensors, partial)
        partial.replace(folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> "InputCheck | None":
        """Read the check of a model folder; None if the model has none.

        Raises:
            ValueError: the file is damaged.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
            parts = [_distance_of(tensors, name) for name in ("picture", "joint")]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{file} is damaged: {error}; train the model again") from error
        return cls(*parts)


def _distance_of(tensors: dict[str, npt.NDArray[np.float64]], name: str) -> Distance:
    mean, scale, precision, limit = (
        tensors[f"{name}.{field}"] for field in ("mean", "scale", "precision", "limit")
    )
    return Distance(mean, scale, precision, float(limit[0]))


def verdict_of(distance: float) -> Verdict:
    """Judge the median distance of an input's pictures."""
    if distance <= 1:
        return Verdict.USUAL
    return Verdict.UNUSUAL if distance <= REFUSED else Verdict.FOREIGN

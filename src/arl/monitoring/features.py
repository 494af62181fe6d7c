"""What is watched: numbers and names of each image, and the encoder's view of it."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from arl.corpus.record import Pixels
from arl.corpus.splits import groups
from arl.models.encoder import Encoder

NUMERIC = (
    "mean",
    "std",
    "height",
    "width",
    "depth_cm",
    "speckle_snr",
    "speckle_axial",
    "speckle_lateral",
)
CATEGORICAL = ("anatomy", "probe", "device")
UNKNOWN = "unknown"
_WINDOW = 9  # side of the window of local statistics, pixels: a few speckles
_MAX_LAG = 16  # pixels
_DARK = 8.0  # local mean grey level below which a window shows no echo


def speckle_statistics(image: Pixels) -> tuple[float, float, float]:
    """Texture of a grey image (H, W): local SNR and the axial and lateral speckle size in pixels.

    SNR is the median of mean / standard deviation over windows that show echoes (1.91 for the
    envelope of fully developed speckle, Wagner et al. 1983; larger after log compression). Speckle
    size is the full width at half maximum of the autocorrelation after removal of the local mean.
    NaN where the image shows no echo.
    """
    grey = image.astype(np.float32)
    mean, std = _local(grey)
    echo = (mean > _DARK) & (std > 0)
    if not echo.any():
        return float("nan"), float("nan"), float("nan")
    rest = np.where(echo, (grey - mean) / np.where(echo, std, 1), 0)
    snr = float(np.median(mean[echo] / std[echo]))
    return snr, _width(rest), _width(rest.T)


def _local(
    grey: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation in the window around each pixel."""
    mean = cv2.blur(grey, (_WINDOW, _WINDOW))
    square = cv2.blur(grey * grey, (_WINDOW, _WINDOW))
    return np.asarray(mean), np.sqrt(np.maximum(square - mean * mean, 0))


def _width(rest: npt.NDArray[np.float32]) -> float:
    """Full width at half maximum of the autocorrelation along axis 0, pixels."""
    lags = range(1, min(_MAX_LAG, len(rest) - 1) + 1)
    power = float((rest * rest).mean())
    # Lags up to 16 pixels: speckle is a few pixels wide, and longer lags measure anatomy.
    curve = [1.0, *(float((rest[lag:] * rest[:-lag]).mean()) / power for lag in lags)]
    below = next((lag for lag, value in enumerate(curve) if value < 0.5), None)
    if below is None:
        return 2.0 * _MAX_LAG
    # Linear interpolation between two lags, as speckle widths lie between whole pixels.
    step = (curve[below - 1] - 0.5) / (curve[below - 1] - curve[below])
    return 2 * (below - 1 + step)


def image_features(rows: pd.DataFrame, images: Sequence[Pixels]) -> pd.DataFrame:
    """One row an image (index of `rows`): the columns NUMERIC as floats and CATEGORICAL as names,
    and its group.

    `images` are the stored images of `rows`, in their order. The group is the patient, else the
    clip, else the image.
    """
    measured = rows[["mean", "std", "height", "width", "depth_cm"]].astype(np.float64)
    texture = pd.DataFrame(
        [speckle_statistics(image) for image in images],
        columns=["speckle_snr", "speckle_axial", "speckle_lateral"],
        index=rows.index,
        dtype=np.float64,
    )
    names = rows[list(CATEGORICAL)].fillna(UNKNOWN).astype(str)
    return pd.concat([measured, texture, names], axis=1).assign(group=groups(rows))


def adjust_for_anatomy(
    values: pd.DataFrame, anatomy: "pd.Series[str]", current: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    """Values (N, columns) as they would be if every anatomy had the same median.

    Anatomies differ more than scanners, and would drown a shift or, by another mix of them, feign
    one. The medians are of both sides together, so that the labels `current` (N,) stay
    exchangeable. An anatomy that one side lacks stays where it is.
    """
    shared = set(anatomy[current]) & set(anatomy[~current])
    overall = values.median()
    centre = values.groupby(anatomy).transform("median")
    centre[~anatomy.isin(shared)] = overall
    return values - centre + overall


def patient_features(features: pd.DataFrame) -> pd.DataFrame:
    """One row a group (sorted): the median of each number, the commonest of each name.

    Images of one patient are alike, so a test that takes them for independent alarms on nearly
    every batch.
    """
    by_group = features.groupby("group", sort=True)
    numbers = by_group[list(NUMERIC)].median()
    names = by_group[list(CATEGORICAL)].agg(_commonest)
    return pd.concat([numbers, names], axis=1)


def _commonest(names: "pd.Series[str]") -> str:
    return str(names.mode().iloc[0])  # sorted: a tie goes to the first in the alphabet


def thin(rows: pd.DataFrame, *, patients: int, images: int, seed: int) -> pd.DataFrame:
    """At most so many groups, drawn at random, and evenly spaced images of each; `rows` have a
    `group`.
    """
    # Sorted before the draw: the order of the manifest must not change the result.
    names = np.sort(rows["group"].unique())
    if len(names) > patients:
        names = np.random.default_rng(seed).choice(names, patients, replace=False)
    kept = rows[rows["group"].isin(names)]
    by_group = kept.groupby("group", sort=False)
    position, size = by_group.cumcount(), by_group["group"].transform("size")
    # the images whose share of the group crosses the next multiple of 1 / images
    taken = (position * images) // size != ((position - 1) * images) // size
    return kept[(size <= images) | taken]


@torch.no_grad()
def embed(
    encoder: Encoder,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> npt.NDArray[np.float32]:
    """Mean of the patch tokens of each image, (N, C), computed on `device`.

    `batches` are normalised images (B, in_chans, H, W) with their anatomy indices (B,). The encoder
    moves to the device.
    """
    encoder.to(device).eval()
    skip = encoder.num_prefix_tokens
    means = [
        encoder.forward_features(image.to(device), anatomy.to(device))[:, skip:].mean(dim=1).cpu()
        for image, anatomy in batches
    ]
    return np.asarray(torch.cat(means).float().numpy(), np.float32)

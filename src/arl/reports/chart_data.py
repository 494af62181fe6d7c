"""What the charts of results show: bands over patients, bins of calibration, curves."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_curve

from arl.evaluation.metrics import Floats, Ints, auroc, check_scores, reliability
from arl.evaluation.results import Interval
from arl.evaluation.statistics import clustered_proportion
from arl.reports.charts import CalibrationBin, Curve

_GRID = np.linspace(0, 1, 101)  # false positive rates of the ROC band
_MAX_BINS, _IMAGES_PER_BIN = 10, 25


def roc_band(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> tuple[Floats, Floats, Floats]:
    """False positive rates (101,) and pointwise limits of the true positive rate over patients.

    Raises:
        ValueError: see `metrics.auroc`.
    """
    # Raises here for one class, before hundreds of resamples would.
    auroc(labels, scores)
    y, s = check_scores(labels, scores)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    rng = np.random.default_rng(seed)
    curves = [_resampled_curve(y, s, index, rng) for _ in range(resamples)]
    limits = [(1 - confidence) / 2, (1 + confidence) / 2]
    # A resample without one of the classes has no curve.
    low, high = np.nanquantile(curves, limits, axis=0)
    return _GRID, low, high


def _resampled_curve(y: Ints, s: Floats, index: Ints, rng: np.random.Generator) -> Floats:
    """True positive rates on the grid for one resample of patients; nan if a class is missing."""
    patients = int(index.max()) + 1
    # Whole patients are drawn: images of one patient are not independent.
    weights = np.bincount(rng.integers(patients, size=patients), minlength=patients)[index]
    kept = weights > 0
    if len(np.unique(y[kept])) < 2:
        return np.full(len(_GRID), np.nan)
    false_positive, true_positive, _ = roc_curve(y[kept], s[kept], sample_weight=weights[kept])
    return np.asarray(np.interp(_GRID, false_positive, true_positive))


def roc_curve_of(
    name: str, labels: npt.ArrayLike, scores: npt.ArrayLike, value: float | None = None
) -> Curve:
    """The ROC curve of one model, with its AUROC.

    Raises:
        ValueError: see `metrics.auroc`.
    """
    area = auroc(labels, scores) if value is None else value
    false_positive, true_positive, _ = roc_curve(*check_scores(labels, scores))
    return Curve(name, np.asarray(false_positive), np.asarray(true_positive), area)


def calibration_bins(
    outcomes: Ints, probabilities: Floats, patients: "pd.Series[str]"
) -> list[CalibrationBin]:
    """Bins of equally many images, at least 25 each, with intervals over patients.

    With fewer images the curve would show their chance order: 15 bins of 3 images zigzag for a
    perfectly calibrated model.
    """
    bins = max(1, min(_MAX_BINS, len(outcomes) // _IMAGES_PER_BIN))
    table = reliability(outcomes, probabilities, bins)
    # Stable, so that ties give the same bins on every machine.
    order = np.argsort(probabilities, kind="stable")
    names = patients.to_numpy(str)
    cells, start = [], 0
    for probability, count in zip(table.probability.tolist(), table.images.tolist(), strict=True):
        chosen = order[start : start + count]
        observed = clustered_proportion(outcomes[chosen], names[chosen])
        cells.append(
            CalibrationBin(
                probability, Interval(observed.value, observed.low, observed.high), count
            )
        )
        start += count
    return cells

"""Temperature scaling (Guo et al., ICML 2017): one number divides all logits.

Validation images choose it.

It changes no ranking and no call, only how sure the model says it is.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from arl.evaluation.metrics import Floats, calibration_bins, check_classes, check_scores

_LEAST = 1e-6  # scores are stored to six decimals
_RANGE = (-3.0, 3.0)  # of log10 of the temperature
_RAIL = 1e-3  # distance from an end of the range that counts as the end


def fit_temperature(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The temperature that makes labels (n,) most likely under class probabilities (n, k).

    Labels are softened as Platt's (1999): of m images of a class, one in m + k may be another's. A
    model that makes no error on a few validation images would else be made certain.

    Raises:
        ValueError: see `metrics.check_scores`, or a class has no image.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, s.shape[1])
    # Logarithms of probabilities are logits up to a constant, which the softmax removes.
    logits = np.log(np.maximum(s, _LEAST))
    # Platt's target of m images is (m + 1) / (m + 2) for two classes; k classes share the doubt.
    doubt = 1 / (np.bincount(y, minlength=s.shape[1])[y] + s.shape[1])
    targets = np.repeat(doubt[:, None], s.shape[1], axis=1)
    targets[np.arange(len(y)), y] = 1 - (s.shape[1] - 1) * doubt

    def loss(exponent: float) -> float:
        return -float((targets * log_softmax(logits / 10**exponent, axis=1)).sum(axis=1).mean())

    # The loss is convex in the inverse temperature, so a bounded search on its logarithm finds the
    # only minimum.
    solution = minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-6})
    return float(10**solution.x)


def at_limit(temperature: float) -> bool:
    """Whether a fitted temperature is an end of its range, so that no finite one fits.

    The scores then say nothing of the classes, or are certain and right.
    """
    exponent = float(np.log10(temperature))
    return min(abs(exponent - end) for end in _RANGE) < _RAIL


def chance_calibration_error(
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    level: float,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """The calibration error that a perfectly calibrated model exceeds with probability `level`.

    Outcomes are drawn from the probabilities (n,) themselves (consistency resampling, Broecker &
    Smith, Weather and Forecasting 22 (2007) 651). All images of a patient share one random number,
    which is the strongest dependence that there can be.
    """
    p = np.asarray(probabilities, np.float64)
    order, starts = calibration_bins(p)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    # One number a patient. Independent numbers for each image would understate the chance error of
    # patients with many images.
    uniform = np.random.default_rng(seed).random((draws, patient.max() + 1))[:, patient]
    gaps = (p - (uniform < p))[:, order]
    errors = np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(axis=1) / len(p)
    return float(np.quantile(errors, 1 - level))


def with_temperature(scores: npt.ArrayLike, temperature: float) -> Floats:
    """Class probabilities (n, k) after dividing their logits by the temperature.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature of {temperature:g} is not positive")
    logits = np.log(np.maximum(np.asarray(scores, np.float64), _LEAST))
    return np.asarray(softmax(logits / temperature, axis=-1))

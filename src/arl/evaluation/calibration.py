"""Temperature scaling (Guo et al., ICML 2017): one number divides all logits.

Validation images choose it.

It changes no ranking and no call, only how sure the model says it is.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from arl.evaluation.metrics import Floats, Ints, check_classes, check_scores

_LEAST = 1e-6  # scores are stored to six decimals
_RANGE = (-3.0, 3.0)  # of log10 of the temperature


def fit_temperature(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The temperature that makes labels (n,) most likely under class probabilities (n, k).

    Labels are softened as Platt's (1999): of m images of a class, one in m + k may be another's. A
    model that makes no error on a few validation images would else be made certain.

    Raises:
        ValueError: see `metrics.check_scores`, or a class has no image.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, s.shape[1])
    logits, targets = np.log(np.maximum(s, _LEAST)), _softened(y, s.shape[1])

    def loss(exponent: float) -> float:
        return -float((targets * log_softmax(logits / 10**exponent, axis=1)).sum(axis=1).mean())

    solution = minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-6})
    return float(10**solution.x)


def _softened(y: Ints, classes: int) -> Floats:
    """Target probabilities (n, classes)."""
    doubt = 1 / (np.bincount(y, minlength=classes)[y] + classes)
    targets = np.repeat(doubt[:, None], classes, axis=1)
    targets[np.arange(len(y)), y] = 1 - (classes - 1) * doubt
    return np.asarray(targets)


def with_temperature(scores: npt.ArrayLike, temperature: float) -> Floats:
    """Class probabilities (n, k) after dividing their logits by the temperature.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature of {temperature:g} is not positive")
    logits = np.log(np.maximum(np.asarray(scores, np.float64), _LEAST))
    return np.asarray(softmax(logits / temperature, axis=-1))

"""Alpha spending: the error of the gate over all decisions on one series of test sets.

Every decision on the same test patients is a try, and a model that is not good enough may pass by
chance. The first try spends half of alpha. The tries 2 to K spend the other half by the power
family of Kim and DeMets (Biometrika 74 (1987) 149) with exponent 1/2, so the level falls with each
try. By the union bound, the probability that any of K such models passes is at most alpha, however
much the tries depend on each other. After K tries nothing is left, and the test set is exhausted.
"""

import math


def spent(alpha: float, trial: int, max_trials: int) -> float:
    """The one-sided level of a try, 1 to `max_trials`; 0 after the last one.

    Raises:
        ValueError: the number of the try or of all tries is below 1.
    """
    if min(trial, max_trials) < 1:
        raise ValueError(f"try {trial} of {max_trials} is not counted from 1")
    if trial > max_trials:
        return 0.0
    if max_trials == 1:
        return alpha
    if trial == 1:
        return alpha / 2
    rest = max_trials - 1
    return alpha / 2 * (math.sqrt(trial - 1) - math.sqrt(trial - 2)) / math.sqrt(rest)

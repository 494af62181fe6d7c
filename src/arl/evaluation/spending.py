"""Alpha spending: the error of the gate over all decisions on one series of test sets.

Every decision on the same test patients is a try, and a model that is not good enough may pass by
chance. All tries together spend 0.6 of alpha. The first one spends half of that. The tries 2 to K
spend the other half by the power family of Kim and DeMets (Biometrika 74 (1987) 149) with exponent
1/2, so the level falls with each try. By the union bound, the levels add up whatever the tries have
in common. After K tries nothing is left, and the test set is exhausted.
"""

import math

# Of alpha, over all tries. The gate's limits promote up to 1.4 times as often as their level says.
# With all of alpha, 6.0 % (4.6 to 7.7) of 1,000 simulated series promoted a model that is worse by
# the margin. With 0.6 of it, 3.5 % (2.5 to 4.8) did. See benchmarks/gate_simulation.py.
SPENT_FRACTION = 0.6


def spent(
    alpha: float, trial: int, max_trials: int, spent_fraction: float = SPENT_FRACTION
) -> float:
    """The one-sided level of a try, 1 to `max_trials`; 0 after the last one.

    Raises:
        ValueError: the number of the try or of all tries is below 1.
    """
    if min(trial, max_trials) < 1:
        raise ValueError(f"try {trial} of {max_trials} is not counted from 1")
    # An exhausted test set has no level, and its confidence of 100 % promotes nothing.
    if trial > max_trials:
        return 0.0
    total = alpha * spent_fraction
    if max_trials == 1:
        return total
    if trial == 1:
        return total / 2
    # The increments of the square root sum to its last value, so all tries together spend alpha.
    rest = math.sqrt(trial - 1) - math.sqrt(trial - 2)
    return total / 2 * rest / math.sqrt(max_trials - 1)

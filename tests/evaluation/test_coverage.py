"""The intervals hold the truth as often as they say, on test sets of several images a patient."""

import runpy
from pathlib import Path

import pytest
from scipy.stats import binom

_SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "coverage.py"))
Case, coverage = _SCRIPT["Case"], _SCRIPT["coverage"]


@pytest.mark.slow
def test_intervals_over_patients_hold_and_those_over_images_do_not() -> None:
    """Every share is within what chance allows of 95 % (or 5 %); the intervals of independent
    images are not.
    """
    draws = 300
    found = {
        name: sum(hits) for name, hits in coverage(Case(60, 4, 0.85, 0.5), draws, seed=1).items()
    }
    low, high = binom.ppf([0.001, 0.999], draws, 0.95)
    for name in ("clustered_delong", "bca", "clustered_proportion"):
        assert low - 0.02 * draws <= found[name] <= high + 0.02 * draws, name
    for name in ("clustered_delong_errs", "student_errs"):
        assert found[name] <= binom.ppf(0.999, draws, 0.05) + 0.01 * draws, name
    assert found["delong"] < low - 0.02 * draws
    assert found["clopper_pearson"] < low - 0.02 * draws
    assert found["delong_errs"] > binom.ppf(0.999, draws, 0.05)

"""Coverage of the intervals of `arl.evaluation.statistics`, and errors of its paired tests.

    python benchmarks/coverage.py [--draws 400] [--seed 0]

Test sets are drawn whose truth is known: labels by patient, normal scores with a part that all
images of a patient share. One JSON line a case with the share of intervals of 95 % that hold the
truth (and of tests of equal models with p < 0.05), each with its exact 95 % interval over the
draws. `delong` and `clopper_pearson` treat images as independent and are there to show what that
costs, `bca_difference` too; in use are `clustered_delong`, `bca`, `student_errs` and
`clustered_proportion`. Synthetic.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import norm

from arl.evaluation import statistics

_SHARED = 0.6  # share of the noise's variance that all images of a patient have in common
_COMMON = 0.5  # share that both models of a pair have in common
_RESAMPLES = 500  # of a bootstrap; the stages take 2,000
_SENSITIVITY = 0.8


@dataclass(frozen=True)
class Case:
    """A kind of test set."""

    patients: int
    images: int  # of each patient
    auroc: float
    prevalence: float


CASES = [
    Case(40, 1, 0.85, 0.5),
    Case(150, 1, 0.85, 0.3),
    Case(150, 1, 0.97, 0.3),
    Case(40, 5, 0.85, 0.5),
    Case(150, 3, 0.85, 0.3),
    Case(150, 3, 0.97, 0.3),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for case in CASES:
        start = time.perf_counter()
        coverages = coverage(case, args.draws, args.seed)
        seconds = round(time.perf_counter() - start, 1)
        line = {"benchmark": "coverage", **asdict(case), "draws": args.draws, "seconds": seconds}
        line |= {name: _proportion(hits) for name, hits in coverages.items()}
        print(json.dumps(line), flush=True)


def coverage(case: Case, draws: int, seed: int) -> dict[str, list[bool]]:
    """Whether each interval covers the truth, by draw; `_errs`: a test of equals has p < 0.05."""
    rng = np.random.default_rng(seed)
    hits_by_name: dict[str, list[bool]] = {}
    for draw in range(draws):
        labels, scores, patients = _drawn(case, rng)
        for name, hit in {
            **_aurocs(case, labels, scores, patients, draw),
            **_proportions(case, rng),
        }.items():
            hits_by_name.setdefault(name, []).append(bool(hit))
    return hits_by_name


def _drawn(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,), scores (2, n) of two equal models, patients (n,)."""
    patients = np.repeat(np.arange(case.patients), case.images)
    positive = np.arange(case.patients) < round(case.prevalence * case.patients)
    common = _noise(case, rng)
    noise = np.stack(
        [np.sqrt(_COMMON) * common + np.sqrt(1 - _COMMON) * _noise(case, rng) for _ in range(2)]
    )
    return (
        positive[patients].astype(int),
        noise + np.sqrt(2) * norm.ppf(case.auroc) * positive[patients],
        patients,
    )


def _noise(case: Case, rng: np.random.Generator) -> np.ndarray:
    shared = np.repeat(rng.normal(size=case.patients), case.images)
    return np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * rng.normal(size=len(shared))


def _aurocs(
    case: Case, labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, seed: int
) -> dict[str, bool]:
    drawn = statistics.cluster_bootstrap(
        [statistics.auroc_statistic(labels, one) for one in scores],
        patients,
        resamples=_RESAMPLES,
        seed=seed,
    )
    units = statistics.disjoint_pairs(labels, patients)
    difference = drawn[0].minus(drawn[1])
    bca = statistics.bca_limits(difference)
    return {
        "delong": _holds(statistics.delong_interval(labels, scores[0]), case.auroc),
        "clustered_delong": _holds(
            statistics.clustered_interval(labels, scores[0], patients), case.auroc
        ),
        "bca": _holds(statistics.bootstrap_interval(drawn[0], units), case.auroc),
        "bca_difference": bca[0] <= 0 <= bca[1],
        "student_errs": statistics.student_test(difference, units) < 0.05,
        "delong_errs": statistics.delong_test(labels, *scores)[1] < 0.05,
        "clustered_delong_errs": statistics.clustered_test(labels, *scores, patients)[1] < 0.05,
    }


def _proportions(case: Case, rng: np.random.Generator) -> dict[str, bool]:
    """Of images of positive patients, whose noise is the probit of being right."""
    positives = Case(round(case.prevalence * case.patients), case.images, case.auroc, 1.0)
    right = _noise(positives, rng) < norm.ppf(_SENSITIVITY)
    patients = np.repeat(np.arange(positives.patients), case.images)
    exact = statistics.clopper_pearson(int(right.sum()), len(right))
    return {
        "clopper_pearson": exact[0] <= _SENSITIVITY <= exact[1],
        "clustered_proportion": _holds(
            statistics.clustered_proportion(right, patients), _SENSITIVITY
        ),
    }


def _holds(interval: statistics.Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def _proportion(hits: list[bool]) -> dict[str, float]:
    low, high = statistics.clopper_pearson(sum(hits), len(hits))
    return {"share": round(sum(hits) / len(hits), 4), "low": round(low, 4), "high": round(high, 4)}


if __name__ == "__main__":
    main()

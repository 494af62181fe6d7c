"""How often the gate promotes a model that is worse by exactly the margin, and one that is equal.

    python benchmarks/gate_simulation.py --gates 1000 > gate.jsonl

Each simulated gate compares two models on new patients by the gate's own functions
(`arl.evaluation.statistics`); all gates of a case share the bootstrap's resamples, which is what
makes a thousand of them take seconds. The first ones are also put through the whole gate
(`arl.evaluation.gate.decide`), which has to say the same. What is drawn:

normal   scores of two normal classes of one width, half of the noise common to both models
wide     positives spread twice as widely
hidden   the challenger equals the champion, but fails some of the positive patients wholly

One JSON line a case: the shares with their exact 95 % intervals, and the seconds on one core.
Synthetic scores.
"""

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from arl.evaluation.decision import Settings, TrialCount
from arl.evaluation.gate import ModelPredictions, PairedTask, decide
from arl.evaluation.spending import spent
from arl.evaluation.statistics import (
    auroc_statistic,
    clopper_pearson,
    cluster_bootstrap,
    disjoint_pairs,
    paired_difference,
)

CHAMPIONS = (0.85, 0.947, 0.99)  # AUROC
SIZES = ((40, 1), (150, 1), (150, 5), (500, 1), (2000, 1))  # patients, images of each
SCORES = ("normal", "wide", "hidden")
SPENT_FRACTIONS = (1.0, 0.8, 0.7, 0.6, 0.5)  # of alpha, over all tries of a series
_COMMON = 0.5  # share of the noise's variance that both models see
_PATIENT = 0.6  # share that all images of a patient see
_TOGETHER = 100  # gates that share resamples
_CHECKED = 5  # gates of a case that go through the whole gate too


@dataclass(frozen=True)
class Case:
    """What is drawn."""

    patients: int
    images: int
    prevalence: float
    margin: float
    champion: float
    scores: str


def _noise(case: Case, rng: np.random.Generator) -> np.ndarray:
    each = rng.normal(size=case.patients * case.images)
    if case.images == 1:
        return each
    of_patient = np.repeat(rng.normal(size=case.patients), case.images)
    return np.sqrt(_PATIENT) * of_patient + np.sqrt(1 - _PATIENT) * each


def _scores(
    case: Case, area: float, positive: np.ndarray, common: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scores of that true AUROC."""
    width = np.where(positive & (case.scores == "wide"), 2.0, 1.0)
    noise = np.sqrt(_COMMON) * common + np.sqrt(1 - _COMMON) * _noise(case, rng)
    return width * noise + positive * norm.ppf(area) * np.sqrt(1 + width.max() ** 2)


def draw(case: Case, loss: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Labels, and the scores of challenger and champion, whose true AUROCs differ by `loss`."""
    sick = np.arange(case.patients) < round(case.patients * case.prevalence)
    positive = np.repeat(sick, case.images)
    common = _noise(case, rng)
    champion = _scores(case, case.champion, positive, common, rng)
    if case.scores != "hidden":
        return [positive, _scores(case, case.champion - loss, positive, common, rng), champion]
    failed = positive & np.repeat(rng.random(case.patients) < loss / case.champion, case.images)
    challenger = champion + 0.1 * rng.normal(size=len(champion))
    return [positive, np.where(failed, -20 + 0.1 * challenger, challenger), champion]


def _table(case: Case, labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    patient = np.repeat(np.arange(case.patients), case.images)
    columns = {
        "id": np.arange(len(labels)),
        "patient": patient,
        "site": "one",
        "probe": "one",
        "device": "one",
    }
    score = norm.cdf(scores / 10)
    return pd.DataFrame(
        columns | {"synthetic": True, "label": labels.astype(int), "score_0": 1 - score}
    ).assign(score_1=score)


def whole_gate(case: Case, drawn: list[np.ndarray], settings: Settings) -> bool:
    """Whether the gate itself promotes the challenger."""
    challenger, champion = (
        ModelPredictions(_table(case, drawn[0], of_model)) for of_model in drawn[1:]
    )
    ids = challenger.table["id"].tolist()
    trial = TrialCount(1, settings.max_trials, settings.level(1), "simulated", "", frozen=True)
    task = PairedTask(
        "task", "auroc", case.margin, 0.0, ids, challenger, champion, best=None, trial=trial
    )
    return decide([task], settings).verdict == "promote"


def tries(
    case: Case, loss: float, sequences: int, settings: Settings, seed: int
) -> dict[str, dict[str, object]]:
    """Series of tries on the same patients: how often any of them promotes, and each alone.

    Every series is judged under several fractions of alpha that all tries together spend, and at
    one level throughout.
    """
    rng = np.random.default_rng(seed)
    trials = range(1, settings.max_trials + 1)
    plans = {
        f"spent={fraction:g}": [
            1 - 2 * spent(settings.alpha, trial, settings.max_trials, fraction) for trial in trials
        ]
        for fraction in SPENT_FRACTIONS
    }
    plans["one level"] = [settings.confidence(1)] * len(trials)
    promotions: dict[str, list[list[bool]]] = {name: [] for name in plans}
    patient = np.repeat(np.arange(case.patients), case.images)
    for _ in range(sequences):
        sick = np.arange(case.patients) < round(case.patients * case.prevalence)
        positive, common = np.repeat(sick, case.images), _noise(case, rng)
        champion = _scores(case, case.champion, positive, common, rng)
        challengers = [_scores(case, case.champion - loss, positive, common, rng) for _ in trials]
        resampled = cluster_bootstrap(
            [auroc_statistic(positive, one) for one in (champion, *challengers)],
            patient,
            resamples=settings.bootstrap,
            seed=settings.seed,
        )
        units = disjoint_pairs(positive, patient)
        for name, levels in plans.items():
            limits = [
                paired_difference(one, resampled[0], units=units, confidence=level).low
                for one, level in zip(resampled[1:], levels, strict=True)
            ]
            promotions[name].append([low > -case.margin for low in limits])
    return {name: summarize(np.array(promoted)) for name, promoted in promotions.items()}


def summarize(promoted: np.ndarray) -> dict[str, object]:
    """Promotions (series, tries) as shares with exact intervals: any try, the first, the last."""
    counts = {
        "any": int(promoted.any(axis=1).sum()),
        "1": int(promoted[:, 0].sum()),
        str(promoted.shape[1]): int(promoted[:, -1].sum()),
    }
    return {
        name: {
            "promoted": count,
            "of": len(promoted),
            "share": round(count / len(promoted), 4),
            "interval": [round(limit, 4) for limit in clopper_pearson(count, len(promoted))],
        }
        for name, count in counts.items()
    }


def promoted(case: Case, gates: list[list[np.ndarray]], settings: Settings) -> list[bool]:
    """Whether each challenger is promoted, with the same resamples of the patients for all."""
    patient = np.repeat(np.arange(case.patients), case.images)
    statistics = [auroc_statistic(labels, s) for labels, *scores in gates for s in scores]
    resampled = cluster_bootstrap(
        statistics, patient, resamples=settings.bootstrap, seed=settings.seed
    )
    units = disjoint_pairs(gates[0][0], patient)
    pairs = zip(resampled[::2], resampled[1::2], strict=True)
    differences = [
        paired_difference(*pair, units=units, confidence=settings.confidence(1)) for pair in pairs
    ]
    return [difference.low > -case.margin for difference in differences]


def simulate(
    case: Case, loss: float, gates: int, settings: Settings, seed: int
) -> dict[str, object]:
    """The share of gates that promote, with its exact interval."""
    rng = np.random.default_rng(seed)
    start = time.process_time()
    count = 0
    for first in range(0, gates, _TOGETHER):
        drawn = [draw(case, loss, rng) for _ in range(min(_TOGETHER, gates - first))]
        verdicts = promoted(case, drawn, settings)
        count += sum(verdicts)
        if first == 0:
            whole = [whole_gate(case, one, settings) for one in drawn[:_CHECKED]]
            assert whole == verdicts[:_CHECKED], f"the gate itself decides otherwise: {case}"
    low, high = clopper_pearson(count, gates)
    seconds = round(time.process_time() - start, 1)
    return {
        "share": count / gates,
        "low": round(low, 4),
        "high": round(high, 4),
        "seconds": seconds,
    }


def main() -> None:
    """Simulate every case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gates", type=int, default=1000, help="of each case")
    parser.add_argument("--bootstrap", type=int, default=2000, help="resamples of each gate")
    parser.add_argument("--margins", type=float, nargs="+", default=[0.05, 0.02])
    parser.add_argument(
        "--patients", type=int, nargs="+", default=sorted({size[0] for size in SIZES})
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1, 5], help="of each patient")
    parser.add_argument("--champions", type=float, nargs="+", default=CHAMPIONS)
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=SCORES)
    parser.add_argument("--prevalence", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=0, help="simulate so many series of 20 tries")
    chosen = parser.parse_args()
    settings = Settings(
        bootstrap=chosen.bootstrap,
        alpha=0.05,
        min_patients=30,
        min_slice_patients=20,
        max_trials=20,
        max_calibration_error=1.0,
        seed=chosen.seed,
    )
    if chosen.tries:
        for patients in chosen.patients:
            case = Case(patients, 1, chosen.prevalence, chosen.margins[0], 0.947, "normal")
            line = {**vars(case), "sequences": chosen.tries}
            line["worse_by_margin"] = tries(case, case.margin, chosen.tries, settings, chosen.seed)
            line["equal"] = tries(case, 0.0, chosen.tries, settings, chosen.seed + 1)
            print(json.dumps(line), flush=True)
        return
    sizes = [size for size in SIZES if size[0] in chosen.patients and size[1] in chosen.images]
    for patients, images in sizes:
        for margin in chosen.margins:
            for champion in chosen.champions:
                for scores in chosen.scores:
                    case = Case(patients, images, chosen.prevalence, margin, champion, scores)
                    worse = simulate(case, margin, chosen.gates, settings, chosen.seed)
                    line = {**vars(case), "gates": chosen.gates, "worse_by_margin": worse}
                    if scores != "hidden":
                        line["equal"] = simulate(case, 0.0, chosen.gates, settings, chosen.seed + 1)
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""How often drift is seen between parts of one scanner, and between two scanners, on real
ultrasound.

    python benchmarks/drift.py CORPUS > drift.jsonl            # an encoder with random weights
    python benchmarks/drift.py CORPUS --checkpoint out/pretrain

CORPUS holds BUS-BRA, whose scanners are the devices of its rows. A batch is so many patients of one
scanner, drawn
anew each time. False alarms: the batch against the other patients of the same scanner. Power: the
batch against a reference scanner. The test is that of `arl drift` on one site (patient-level
permutation MMD on the encoder's embeddings). One JSON line a pair of scanners and batch size, with
exact 95 % intervals; then one line with the distances between the scanners, taken as sites, and one
with the seconds of a decision on 10,000 embeddings.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from arl.composition import compose
from arl.corpus.selection import select
from arl.corpus.splits import groups
from arl.evaluation.statistics import clopper_pearson, holm
from arl.loading.loader import Examples, evaluation_batches
from arl.loading.transforms import eval_view
from arl.models.avit import AViT
from arl.monitoring.drift import (
    cell_kernel,
    distance,
    group_kernel,
    permutation_mmd,
    usual_distance,
)
from arl.monitoring.features import embed
from arl.training.checkpoint import load_encoder

_SOURCE = "bus-bra"
_PERMUTATIONS = 499
_FRAMES, _WIDTH, _SITES = 10_000, 768, 20  # of the timed decision; the width of a ViT-B


def encoder_of(checkpoint: Path | None) -> tuple[AViT, int, str]:
    """The encoder, its input size and what it is."""
    if checkpoint is not None:
        encoder, config = load_encoder(checkpoint)
        return encoder, config.size, f"pretrained: {checkpoint}"
    params = compose(["experiment=busbra"])
    torch.manual_seed(0)
    encoder = AViT(img_size=params.data.size, **vars(params.model))
    return encoder, params.data.size, "random weights, avit_micro"


def embeddings_of(
    corpus: Path, rows: pd.DataFrame, checkpoint: Path | None
) -> tuple[np.ndarray, str]:
    """Embeddings (N, C) of the rows, and what made them."""
    encoder, size, what = encoder_of(checkpoint)
    batches = evaluation_batches(Examples(corpus, rows, size, stretched=True), 64)
    return embed(
        encoder, ((eval_view(batch, size).image, batch.anatomy) for batch in batches)
    ), what


def alarms(
    kernel: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    size: int,
    most: int,
    draws: int,
    alpha: float,
    rng: np.random.Generator,
) -> int:
    """How many batches of `size` of the patients `own` alarm against `most` of `other`, or of the
    rest of their own.
    """
    count = 0
    for _ in range(draws):
        batch = rng.choice(own, size, replace=False)
        against = np.setdiff1d(own, batch) if len(other) == 0 else other
        against = rng.choice(against, min(most, len(against)), replace=False)
        chosen = np.concatenate([batch, against])
        part, current = kernel[np.ix_(chosen, chosen)], np.arange(len(chosen)) < size
        count += (
            permutation_mmd(part, current, _PERMUTATIONS, int(rng.integers(1 << 31))).p_value
            < alpha
        )
    return count


def seconds_of_a_decision() -> dict[str, object]:
    """CPU seconds of the kernel, the tests and the distances between sites, for 10,000 embeddings
    of 1,250 patients.
    """
    rng = np.random.default_rng(0)
    points = rng.normal(size=(_FRAMES, _WIDTH))
    patient = np.arange(_FRAMES) // 8
    site = np.arange(patient.max() + 1) % _SITES
    start, wall = time.process_time(), time.perf_counter()
    kernel = cell_kernel(points, patient)
    whole = kernel.of_groups(np.arange(len(site)), np.ones(len(site), bool))
    usual = usual_distance([distance(whole, site == number) for number in range(_SITES)])
    adjusted = holm(
        [permutation_mmd(whole, site == number, 1999, 0).p_value for number in range(3)]
    )
    assert usual is not None
    assert min(adjusted) > 0
    cpu, passed = time.process_time() - start, time.perf_counter() - wall
    return {
        "frames": _FRAMES,
        "width": _WIDTH,
        "sites": _SITES,
        "cpu_s": round(cpu, 2),
        "wall_s": round(passed, 2),
    }


def main() -> None:
    """Measure every pair of scanners."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[10, 20, 40], help="patients of a new batch"
    )
    parser.add_argument(
        "--reference", type=int, default=200, help="patients of the reference, at most"
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--alpha", type=float, default=0.05)
    chosen = parser.parse_args()
    rows = select(chosen.corpus, sources=[_SOURCE], protocols={})
    rows = rows.assign(group=groups(rows))
    embeddings, what = embeddings_of(chosen.corpus, rows, chosen.checkpoint)
    # a patient under two scanners counts under the one of the first image
    scanner = rows.groupby("group", sort=True)["device"].first()
    kernel, names = group_kernel(embeddings, rows["group"].tolist())
    assert names == scanner.index.tolist()
    of = {str(name): np.flatnonzero(scanner == name) for name in sorted(scanner.unique())}
    rng = np.random.default_rng(
        0
    )  # one stream: no pair shares its draws or permutations with another
    for new, own in of.items():
        for reference, other in of.items():
            for size in chosen.batches:
                same = new == reference
                if len(own) < size + (8 if same else 0):
                    continue
                against = np.array([], int) if same else other
                count = alarms(
                    kernel, own, against, size, chosen.reference, chosen.draws, chosen.alpha, rng
                )
                low, high = clopper_pearson(count, chosen.draws)
                line = {"new": new, "reference": reference, "patients": size, "of": len(own)}
                line |= {
                    "reference_patients": min(
                        chosen.reference, len(own) - size if same else len(other)
                    )
                }
                kind = "false_alarms" if same else "power"
                line |= {
                    kind: round(count / chosen.draws, 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                }
                print(
                    json.dumps(
                        {**line, "alpha": chosen.alpha, "draws": chosen.draws, "encoder": what}
                    ),
                    flush=True,
                )
    apart = {
        name: round(distance(kernel, np.isin(np.arange(len(names)), own)), 5)
        for name, own in of.items()
    }
    print(
        json.dumps(
            {"mmd2_from_the_other_scanners": apart, "usual": usual_distance(list(apart.values()))}
        )
    )
    print(json.dumps(seconds_of_a_decision()))


if __name__ == "__main__":
    main()

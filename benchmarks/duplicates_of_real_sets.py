"""Near-duplicates in real sets: recall on neighbouring frames, and pairs of different patients.

    python benchmarks/duplicates_of_real_sets.py CORPUS

For every source of the corpus, two frames of one clip that are `gap` frames apart count as copies
under two ids; the recall is the fraction that the search would report. All pairs of different
patients that the search reports are listed, too: in a set without known duplicates they are false.
Prints one JSON line for each source.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from arl.corpus.manifest import read_manifest
from arl.corpus.near_duplicates import near_duplicates

_COLUMNS = ["id", "source", "patient", "clip", "frame"]
_HASHES = ["perceptual_hash", "difference_hash", "detail_hash"]
_GAPS = (1, 2, 3)


def recall(rows: pd.DataFrame, gap: int) -> tuple[int, float]:
    """Pairs of frames `gap` apart in one clip, and the fraction that is reported."""
    ordered = rows.dropna(subset=["clip"]).sort_values(["clip", "frame"]).reset_index(drop=True)
    clip = ordered["clip"].to_numpy()
    first = np.flatnonzero(clip[:-gap] == clip[gap:]) if len(ordered) > gap else np.empty(0, int)
    if not len(first):
        return 0, float("nan")
    # Each pair is a search of its own: two rows under different ids and no common group.
    reported = 0
    for begin in range(0, len(first), 4000):
        part = first[begin : begin + 4000]
        reported += _reported(ordered, part, part + gap)
    return len(first), reported / len(first)


def _reported(rows: pd.DataFrame, first: np.ndarray, second: np.ndarray) -> int:
    pairs = pd.concat([rows.iloc[first], rows.iloc[second]], ignore_index=True)
    names = [f"{side}{i}" for side in "ab" for i in range(len(first))]
    pairs = pairs.assign(id=names, patient=names, clip=None)
    found = near_duplicates(pairs)
    return int((found[:, 1] - found[:, 0] == len(first)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    corpus = parser.parse_args().corpus
    manifest = read_manifest(corpus, [*_COLUMNS, *_HASHES])
    for source, rows in manifest.groupby("source", sort=True):
        rows = rows.reset_index(drop=True)
        result = {
            "benchmark": "duplicates_of_real_sets",
            "source": source,
            "images": len(rows),
            "pairs_of_different_patients": len(near_duplicates(rows)),
        }
        for gap in _GAPS:
            pairs, fraction = recall(rows, gap)
            if pairs:
                result |= {f"pairs_gap_{gap}": pairs, f"recall_gap_{gap}": round(fraction, 4)}
        print(json.dumps(result))


if __name__ == "__main__":
    main()

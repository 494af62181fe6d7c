"""Near-duplicate search over the hashes of a large corpus, its recall against brute force.

    python benchmarks/near_duplicates.py [--images 5200000] [--subset 40000]

The hashes are synthetic: half stills, half frames of clips that differ from their neighbours by two
bits, and one in a hundred a copy, in another group, with up to 6 bits changed. Recall and precision
are against all pairs of a subset that holds every planted copy and its original. Prints one JSON
line; `cpu_seconds` is the sum over the cores.
"""

import argparse
import json
import time

import numpy as np
import numpy.typing as npt

from arl.corpus.near_duplicates import RADIUS, near_pairs

FRAMES = 50  # of a clip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5_200_000)
    parser.add_argument("--subset", type=int, default=40_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    hashes, group, planted = corpus(args.images, rng)
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = near_pairs(hashes, group)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    subset = np.unique(
        np.concatenate(
            [planted.ravel()[: args.subset // 2], rng.integers(0, len(hashes), args.subset)]
        )
    )
    truth = brute_force(hashes, group, subset)
    found = set(map(tuple, pairs[np.isin(pairs, subset).all(axis=1)].tolist()))
    result = {
        "benchmark": "near_duplicates",
        "images": len(hashes),
        "radius": RADIUS,
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "pairs": len(pairs),
        "planted": len(planted),
        "subset": len(subset),
        "pairs_in_subset": len(truth),
        "recall": len(found & truth) / len(truth),
        "precision": len(found & truth) / len(found),
    }
    print(json.dumps(result))


def changed(
    hashes: npt.NDArray[np.uint64], bits: int, rng: np.random.Generator
) -> npt.NDArray[np.uint64]:
    """Each hash with at most `bits` random bits turned."""
    turned = hashes.copy()
    for _ in range(bits):
        turned ^= np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64)
    return turned


def corpus(
    images: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hashes, groups and the planted pairs."""
    copies = images // 100
    clips = images // 2 // FRAMES
    frame = rng.integers(0, 1 << 64, clips, dtype=np.uint64)
    frames = [frame]
    for _ in range(FRAMES - 1):
        frames.append(frame := changed(frame, 2, rng))
    stills = rng.integers(0, 1 << 64, images - clips * FRAMES - copies, dtype=np.uint64)
    first = np.concatenate([*frames, stills])
    originals = rng.permutation(len(first))[:copies]
    hashes = np.concatenate([first, changed(first[originals], RADIUS, rng)])
    group = np.concatenate(
        [np.tile(np.arange(clips), FRAMES), clips + np.arange(len(stills) + copies)]
    )
    return hashes, group, np.stack([originals, len(first) + np.arange(copies)], axis=1)


def brute_force(
    hashes: npt.NDArray[np.uint64], group: npt.NDArray[np.int64], subset: npt.NDArray[np.int64]
) -> set[tuple[int, int]]:
    """All near pairs of different groups within a subset, in its sorted order."""
    found: set[tuple[int, int]] = set()
    for first in range(0, len(subset), 256):
        rows = subset[first : first + 256]
        near = np.bitwise_count(hashes[rows, None] ^ hashes[subset]) <= RADIUS
        near &= (group[rows, None] != group[subset]) & (rows[:, None] < subset)
        row, column = near.nonzero()
        found |= set(zip(rows[row].tolist(), subset[column].tolist(), strict=True))
    return found


if __name__ == "__main__":
    main()

"""Validation of a manifest of millions of rows: seconds and peak memory.

    python benchmarks/validate_manifest.py [--rows 5200000] [--batches 26]

Writes synthetic manifests and splits (no shards) into a temporary folder and runs the rules of the
validate stage on them, in a process of its own whose peak memory is reported: every expectation on
rows, and every rule across rows and files. With --duplicates also the search for near-duplicates.
Prints one JSON line.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.manifest import QUARANTINE, SCHEMA
from arl.corpus.splits import SPLIT_SCHEMA, assign
from arl.files import write_json

FRAMES = 40  # of a clip
CLIPS = 2  # of a patient


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_200_000)
    parser.add_argument("--batches", type=int, default=26)
    parser.add_argument("--duplicates", action="store_true")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run, args.duplicates)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.batches):
            write_batch(Path(folder), number, args.rows // args.batches)
        words = [
            sys.executable,
            __file__,
            "--run",
            folder,
            *(["--duplicates"] if args.duplicates else []),
        ]
        subprocess.run(words, check=True)


def run(corpus: Path, with_leaks: bool) -> None:
    """The rules, in this process."""
    from arl.corpus.checks.invariants import check_corpus
    from arl.corpus.near_duplicates import duplicate_clusters
    from arl.corpus.splits import with_splits

    withheld = pd.DataFrame({"id": pd.Series(dtype=str)})
    marks = [mark()]
    findings = check_corpus(corpus, {}, withheld)
    marks.append(mark())
    if with_leaks:
        columns = [
            "id",
            "source",
            "patient",
            "clip",
            "label",
            "pixel_sha256",
            "perceptual_hash",
            "difference_hash",
            "detail_hash",
        ]
        duplicate_clusters(with_splits(corpus, columns, {}))
        marks.append(mark())
    parts = list(zip(["rules", "duplicates"], marks, marks[1:], strict=False))
    result = {
        "benchmark": "validate_manifest",
        "rows": max(finding.checked for finding in findings),
        "rules": len(findings),
        "failed": sorted(f.rule for f in findings if not f.passed and f.severity == "critical"),
        "seconds_of": {name: round(end[0] - start[0], 1) for name, start, end in parts},
        "cpu_seconds_of": {name: round(end[1] - start[1], 1) for name, start, end in parts},
        "peak_mib_after": {name: end[2] for name, _, end in parts},
    }
    print(json.dumps(result))


def mark() -> tuple[float, float, int]:
    """Clock, processor time and peak memory in MiB so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return time.perf_counter(), time.process_time(), peak


def write_batch(corpus: Path, number: int, rows: int) -> None:
    """A manifest of clips, its splits by patient, and no shards but their names."""
    source, batch = f"hospital-{number % 5}", f"{number:04d}"
    folder = corpus / source / batch
    (folder / "splits").mkdir(parents=True)
    rng = np.random.default_rng(number)
    index = np.arange(rows)
    clip = index // FRAMES
    ids = [f"{source}:{batch}-{value:032x}" for value in index.tolist()]
    patients = [f"{source}:{batch}-{value:032x}" for value in (clip // CLIPS).tolist()]
    digests = rng.bytes(32 * rows).hex()
    columns = {
        "id": ids,
        "source": source,
        "batch": batch,
        "site": f"site-{number % 15}",
        "patient": patients,
        "clip": [f"{source}:{batch}-{value:032x}" for value in clip.tolist()],
        "frame": index % FRAMES,
        "anatomy": rng.choice(["breast", "cardiac", "liver", "thyroid", "other"], rows),
        "anatomy_rule": "BodyPartExamined",
        "region_rule": "sequence",
        "probe": rng.choice(["linear", "convex", "sector"], rows),
        "device": rng.choice(["ACME Ray", "Beta Sound 5"], rows),
        "label": None,
        "mask": None,
        "height": rng.integers(200, 512, rows),
        "width": rng.integers(200, 512, rows),
        "original_height": 600,
        "original_width": 800,
        "pixel_spacing_mm": rng.uniform(0.05, 0.4, rows),
        "depth_cm": rng.uniform(3, 20, rows),
        "color_doppler": False,
        "synthetic": False,
        "mean": rng.uniform(20, 90, rows),
        "std": rng.uniform(10, 60, rows),
        "pixel_sha256": [digests[64 * k : 64 * k + 64] for k in range(rows)],
        "perceptual_hash": rng.integers(0, 1 << 64, rows, dtype=np.uint64),
        "difference_hash": rng.integers(0, 1 << 64, rows, dtype=np.uint64),
        "shard": [f"shard-{value:05d}.parquet" for value in (index // 5000).tolist()],
        "row": index % 5000,
    }
    table = pa.Table.from_pandas(pd.DataFrame(columns), SCHEMA, preserve_index=False)
    pq.write_table(table, folder / "manifest.parquet")
    pq.write_table(QUARANTINE.empty_table(), folder / "quarantine.parquet")
    split_of = {patient: assign(patient) for patient in set(patients)}
    splits = pa.table([ids, [split_of[patient] for patient in patients]], schema=SPLIT_SCHEMA)
    pq.write_table(splits, folder / "splits" / "default.parquet")
    counts = {"images": rows, "num_inputs": rows, "accepted": rows, "refused": 0, "splits": {}}
    write_json(folder / "batch.json", counts)


if __name__ == "__main__":
    main()

"""Write a split protocol for a source of the corpus."""

from pathlib import Path
from typing import Literal

import pandas as pd

from arl.corpus.manifest import SPLITS, read_manifest
from arl.corpus.near_duplicates import merge_duplicate_groups
from arl.corpus.protocols import (
    Protocol,
    fold_protocols,
    fractions_protocol,
    table_protocol,
    write_protocols,
)
from arl.corpus.splits import SEED
from arl.ingest.tables import read_csv

_COLUMNS = ["id", "source", "batch", "patient", "clip", "label"]
_HASHES = ["perceptual_hash", "difference_hash", "detail_hash"]


def split(
    source: str,
    *,
    corpus: Path = Path("data"),
    protocol: str,
    method: Literal["fractions", "folds", "all-train", "table"] = "fractions",
    by: Literal["patient", "cluster"] = "cluster",
    train: float = 0.7,
    val: float = 0.15,
    folds: int = 5,
    table: Path | None = None,
    seed: int = SEED,
) -> None:
    """Write a split protocol for a source of the corpus.

    Adds <corpus>/<source>/<batch>/splits/<protocol>.parquet to every batch of the source and
    changes no other file. No split divides a patient (else a clip, else an image). Each class has
    the same proportion in all splits. Set `data.splits` to use the protocol.

    Args:
        source: Source in the corpus.
        corpus: Folder of the corpus.
        protocol: Name of the new protocol. For folds, names end in -1, -2, ...
        method: fractions draws train, val and test. folds writes one protocol for each fold of a
            cross-validation: fold k is test, the next fold is val. all-train puts every image into
            train. table reads the splits from a CSV file.
        by: What no split may divide: the patient, or the cluster of patients with near-identical
            images.
        train: Fraction of train, for the method fractions.
        val: Fraction of val, for the method fractions; the rest is test.
        folds: Number of folds, at least 3.
        table: CSV file with the columns `split` and either `id` or `patient`.
        seed: Seed of the draw.

    Raises:
        ValueError: Unknown source, wrong fractions, or a table that misses or divides a group.
        FileExistsError: The protocol exists.

    Examples:
        arl split bus-bra --protocol cv --method folds --folds 5
        arl split our-breast --protocol external --method table --table splits.csv
    """
    rows = read_manifest(corpus, [*_COLUMNS, *_HASHES])
    rows = rows[rows["source"] == source].reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"corpus {corpus} holds no source {source!r}")
    # Near-identical images of two patients would leak a test patient into training.
    units = merge_duplicate_groups(rows, across_patients=by == "cluster")
    protocols: dict[str, Protocol]
    if method == "folds":
        parts = fold_protocols(rows, units, folds, seed)
        protocols = {f"{protocol}-{k}": part for k, part in enumerate(parts, start=1)}
    elif method == "fractions":
        # Rounded, since 1 - 0.7 - 0.15 is 0.15000000000000002.
        fractions = (train, val, max(0.0, round(1 - train - val, 9)))
        protocols = {protocol: fractions_protocol(rows, units, fractions, seed)}
    elif method == "all-train":
        protocols = {protocol: pd.Series("train", rows.index)}
    else:
        if table is None:
            raise ValueError("--method table needs --table FILE")
        columns = pd.read_csv(table, nrows=0).columns.str.strip().tolist()
        splits = read_csv(table, [name for name in ("id", "patient", "split") if name in columns])
        protocols = {protocol: table_protocol(rows, units, splits)}
    files = write_protocols(corpus, rows, protocols)
    for name, splits_of_rows in protocols.items():
        counts = splits_of_rows.value_counts()
        print(f"{name}: " + ", ".join(f"{counts.get(part, 0):,} {part}" for part in SPLITS))
    print(f"{len(files)} files; use them with data.splits.{source}={next(iter(protocols))}")

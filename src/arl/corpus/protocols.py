"""Make split protocols for the rows of a source, and write them into its batches.

A protocol adds one file to each batch and changes none, so the stored images stay as they are.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.manifest import SPLITS
from arl.corpus.splits import SPLIT_SCHEMA, split_named, stratified_positions
from arl.files import atomic_file

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Split of each row, with the index of the rows.
Protocol = pd.Series


def fractions_protocol(
    rows: pd.DataFrame, units: "pd.Series[str]", fractions: tuple[float, float, float], seed: int
) -> Protocol:
    """Train, val and test by `fractions` of the units, each class in equal proportion.

    Raises:
        ValueError: The fractions are negative or do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions {fractions} must not be negative and must sum to 1")
    position = units.map(_positions(rows, units, seed))
    return pd.Series(
        [
            "train" if p < fractions[0] else "val" if p < fractions[0] + fractions[1] else "test"
            for p in position
        ],
        rows.index,
    )


def fold_protocols(
    rows: pd.DataFrame, units: "pd.Series[str]", folds: int, seed: int
) -> list[Protocol]:
    """Cross-validation: in protocol k, fold k is test, the next fold is val, the rest train.

    Each class is in equal proportion in all folds.

    Raises:
        ValueError: Fewer than three folds, or fewer units than folds.
    """
    if folds < 3:
        raise ValueError(f"{folds} folds: train, val and test need at least 3")
    if units.nunique() < folds:
        raise ValueError(f"{folds} folds of {units.nunique()} patients or clusters would be empty")
    fold = _balanced_folds(rows, units, folds, seed)
    return [
        fold.map(
            lambda number, k=k: (
                "test" if number == k else "val" if number == (k + 1) % folds else "train"
            )
        )
        for k in range(folds)
    ]


def _positions(rows: pd.DataFrame, units: "pd.Series[str]", seed: int) -> dict[str, float]:
    """Unit -> its position in (0, 1) among the units with the same classes."""
    labels = dict(zip(rows["id"], rows["label"].fillna(""), strict=True))
    return stratified_positions(labels, dict(zip(rows["id"], units, strict=True)), seed)


def _balanced_folds(
    rows: pd.DataFrame, units: "pd.Series[str]", folds: int, seed: int
) -> "pd.Series[int]":
    """The fold of each row: units of one class set are dealt out in turn.

    The turn goes on from one class set to the next, so small class sets do not all begin in fold 0.
    """
    position = _positions(rows, units, seed)
    classes = rows["label"].fillna("").groupby(units).agg(lambda part: "|".join(sorted(set(part))))
    ordered = sorted(position, key=lambda unit: (classes[unit], position[unit], unit))
    fold = {unit: number % folds for number, unit in enumerate(ordered)}
    return units.map(fold)


def table_protocol(rows: pd.DataFrame, units: "pd.Series[str]", table: pd.DataFrame) -> Protocol:
    """The splits of a table with the columns `split` and either `id` or `patient`.

    Ids and patients may be written with or without "<source>:".

    Raises:
        ValueError: A row has no split, a split has another name, or a unit is divided.
    """
    keys = [name for name in ("id", "patient") if name in table.columns]
    if len(keys) != 1 or "split" not in table.columns:
        raise ValueError(
            f"the table has the columns {table.columns.tolist()}: "
            "it needs `split`, and either `id` or `patient`"
        )
    split_of: dict[str, str] = {}
    for key, name in zip(table[keys[0]].str.strip(), table["split"], strict=True):
        split = split_named(name)
        if split is None:
            raise ValueError(f"split {name!r} of {key} is not train, val or test")
        if split_of.setdefault(key, split) != split:
            raise ValueError(f"the table puts {key} into two splits")
    column = rows[keys[0]]
    splits = column.map(split_of).fillna(column.str.partition(":")[2].map(split_of))
    missing = rows.loc[splits.isna(), "id"]
    if len(missing):
        raise ValueError(
            f"the table gives no split for {len(missing)} rows, e.g. {missing.iloc[0]}"
        )
    divided = splits.groupby(units).nunique()
    if (divided > 1).any():
        raise ValueError(f"the table divides {divided.index[divided > 1][0]} between splits")
    return splits


def write_protocols(
    corpus: Path, rows: pd.DataFrame, protocols: Mapping[str, Protocol]
) -> list[Path]:
    """Write each protocol into all batches of the rows; return the files.

    Raises:
        ValueError: The name is no plain lower-case name.
        FileExistsError: A batch has a protocol of this name.
    """
    files = {}
    for name, splits in protocols.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"protocol {name!r}: use lower-case letters, digits, '.', '_' and '-'")
        assert splits.isin(SPLITS).all()
        for (source, batch), part in rows.groupby(["source", "batch"], sort=True):
            file = corpus / str(source) / str(batch) / "splits" / f"{name}.parquet"
            if file.exists():
                raise FileExistsError(f"{file} exists: a protocol is written once")
            files[file] = pa.table([part["id"], splits[part.index]], schema=SPLIT_SCHEMA)
    for file, table in files.items():
        with atomic_file(file) as partial:
            pq.write_table(table, partial)
    return list(files)

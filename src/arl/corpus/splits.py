"""Splits of the corpus into train, val and test.

A batch holds one file per protocol, `splits/<protocol>.parquet`, and always one named "default".
Groups are never divided: the patient, else the clip, else the image.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa

from arl.corpus.manifest import SCHEMA, SPLITS, batch_folders, read_table

Grouping = Literal["patient", "clip", "image"]
DEFAULT = "default"
FRACTIONS = (0.7, 0.15, 0.15)  # train, val, test of the default protocol
SEED = 0  # of the default protocol; fixed, so that a patient who comes back in a later batch stays where they were
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
SPLIT_SCHEMA = pa.schema(
    [pa.field("id", pa.string(), nullable=False), pa.field("split", pa.string(), nullable=False)]
)


def split_named(name: str) -> str | None:
    """The split that people call by a name, e.g. "Validation"; None: it is the name of none."""
    return _NAMES.get(name.strip().lower())


def grouping(rows: pd.DataFrame) -> Grouping:
    """The strongest claim that holds for all rows: their patients are known, else their clips, else nothing."""
    if rows["patient"].notna().all():
        return "patient"
    return "clip" if (rows["patient"].notna() | rows["clip"].notna()).all() else "image"


def groups(rows: pd.DataFrame) -> pd.Series:
    """The unit of each row that no split may divide: its patient, else its clip, else itself."""
    return rows["patient"].fillna(rows["clip"]).fillna(rows["id"])


def _uniform(group: str, seed: int) -> float:
    digest = hashlib.blake2b(group.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) / 2.0**64


def assign(group: str, seed: int = SEED, fractions: tuple[float, float, float] = FRACTIONS) -> str:
    """The split of one group: depends on nothing but its name, the seed and the fractions."""
    position = _uniform(group, seed)
    if position < fractions[0]:
        return SPLITS[0]
    return SPLITS[1] if position < fractions[0] + fractions[1] else SPLITS[2]


def keep_test(official: str, group: str) -> str:
    """The default split where only a test part is official: that stays, and 15 % of the other groups are for val."""
    return "test" if official == "test" else assign(group, fractions=(0.85, 0.15, 0.0))


def named_splits(said: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Key -> protocol -> split, of a set that says its splits: "official", and a default that has a val part.

    Args:
        said: key -> (split, group that no split may divide).

    Raises:
        ValueError: a group is in two splits.
    """
    first: dict[str, str] = {}
    for split, group in said.values():
        if first.setdefault(group, split) != split:
            raise ValueError(f"{group} is in two splits, {first[group]} and {split}")
    whole = "val" in first.values()
    return {
        key: {"official": split, DEFAULT: split if whole else keep_test(split, group)}
        for key, (split, group) in said.items()
    }


def stratified(labels: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, str]:
    """The default split of a public set that has none: each class in its share, groups whole. Key -> split.

    Small sets need it: by the hash of each group alone, 17 malignant nodules might leave none for
        val. Groups that hold the same classes are ordered by their hash and cut at `FRACTIONS`.

    Args:
        labels: class of every key; may be empty.
        groups: what no split may divide, for every key.
    """
    classes: dict[str, set[str]] = {}
    for key, label in labels.items():
        classes.setdefault(groups[key], set()).add(label)
    strata: dict[tuple[str, ...], list[str]] = {}
    for group, held in classes.items():
        strata.setdefault(tuple(sorted(held)), []).append(group)
    split = {group: chosen for members in strata.values() for group, chosen in _cut(members)}
    return {key: split[groups[key]] for key in labels}


def _cut(groups: list[str]) -> Iterator[tuple[str, str]]:
    for rank, group in enumerate(sorted(groups, key=lambda group: (_uniform(group, SEED), group))):
        position = (rank + 0.5) / len(groups)
        if position < FRACTIONS[0]:
            yield group, SPLITS[0]
        else:
            yield group, SPLITS[1] if position < FRACTIONS[0] + FRACTIONS[1] else SPLITS[2]


def split_by_patient(
    rows: pd.DataFrame,
    seed: int = SEED,
    fractions: tuple[float, float, float] = FRACTIONS,
    units: "pd.Series[str] | None" = None,
) -> tuple[dict[str, list[str]], Grouping]:
    """Ids of each split, and what was kept together: the patient, else the clip, else the image.

    A keyed hash decides for each group alone, so adding rows never moves another group; shares are
    met on average.

    Args:
        units: of each row, what no split may divide; `groups` where it is not given.

    Raises:
        ValueError: the fractions are negative or do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions {fractions} must not be negative and must sum to 1")
    chosen = (groups(rows) if units is None else units).map(
        lambda group: assign(group, seed, fractions)
    )
    return {split: rows.loc[chosen == split, "id"].tolist() for split in SPLITS}, grouping(rows)


def with_splits(corpus: Path, columns: Sequence[str], protocols: Mapping[str, str]) -> pd.DataFrame:
    """Manifest columns of all rows with the `split` under the protocol in use; null where there is none."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pd.concat(
        [_batch_with_split(folder, schema, protocols) for folder in batch_folders(corpus)],
        ignore_index=True,
    )


def _batch_with_split(
    folder: Path, schema: pa.Schema, protocols: Mapping[str, str]
) -> pd.DataFrame:
    file = folder / "splits" / f"{protocols.get(folder.parent.name, DEFAULT)}.parquet"
    split = (
        read_table(file, SPLIT_SCHEMA) if file.is_file() else SPLIT_SCHEMA.empty_table().to_pandas()
    )
    return read_table(folder / "manifest.parquet", schema).merge(
        split.drop_duplicates("id"), on="id", how="left"
    )


def read_split(corpus: Path, rows: pd.DataFrame, protocols: Mapping[str, str]) -> "pd.Series[str]":
    """The split of every row (index of `rows`); `protocols` names one per source, "default" where it does not.

    Raises:
        ValueError: a batch lacks the protocol, or the protocol's file lacks a row.
    """
    parts = [
        _read_batch_split(
            corpus / str(source) / str(batch) / "splits",
            protocols.get(str(source), DEFAULT),
            part["id"],
        )
        for (source, batch), part in rows.groupby(["source", "batch"])
    ]
    return pd.concat(parts).reindex(rows.index) if parts else pd.Series(dtype=str, name="split")


def _read_batch_split(folder: Path, protocol: str, ids: "pd.Series[str]") -> "pd.Series[str]":
    file = folder / f"{protocol}.parquet"
    if not file.is_file():
        known = sorted(path.stem for path in folder.glob("*.parquet"))
        raise ValueError(
            f"{file} does not exist: split protocol {protocol!r} is not one of {', '.join(known)}"
        )
    table = read_table(file, SPLIT_SCHEMA).set_index("id")["split"]
    missing = ids[~ids.isin(table.index)]
    if len(missing):
        raise ValueError(f"{file} gives no split for {len(missing)} rows, e.g. {missing.iloc[0]}")
    return pd.Series(table.loc[ids].tolist(), index=ids.index, name="split")

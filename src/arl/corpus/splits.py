"""Splits of the corpus into train, val and test.

A batch holds one file for each protocol, `splits/<protocol>.parquet`, and always one named
"default". No split divides a group: the patient, else the clip, else the image.
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
# Prefix of a group without a patient, a study or a clip. It is for training only: nobody can say
# whether the same person is in another split.
UNIDENTIFIED = "file-"
# Train, val and test of the default protocol.
FRACTIONS = (0.7, 0.15, 0.15)
# Fixed, so that a patient who returns in a later batch stays in the same split.
SEED = 0
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
    """The split of a common name, such as "Validation"; None for any other word."""
    return _NAMES.get(name.strip().lower())


def grouping(rows: pd.DataFrame) -> Grouping:
    """The strongest grouping that all rows support: patient, else clip, else image."""
    if rows["patient"].notna().all():
        return "patient"
    return "clip" if (rows["patient"].notna() | rows["clip"].notna()).all() else "image"


def groups(rows: pd.DataFrame) -> pd.Series:
    """The group of each row, which no split may divide: its patient, else its clip, else itself."""
    return rows["patient"].fillna(rows["clip"]).fillna(rows["id"])


def uniform(group: str, seed: int) -> float:
    """A number in [0, 1) that depends only on the name of the group and the seed."""
    digest = hashlib.blake2b(group.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) / 2.0**64


def assign(group: str, seed: int = SEED, fractions: tuple[float, float, float] = FRACTIONS) -> str:
    """The split of one group; depends only on its name, the seed and the fractions."""
    if group.startswith(UNIDENTIFIED):
        return "train"
    return _split_at(uniform(group, seed), fractions)


def _split_at(position: float, fractions: tuple[float, float, float]) -> str:
    if position < fractions[0]:
        return "train"
    return "val" if position < fractions[0] + fractions[1] else "test"


def keep_test(official: str, group: str) -> str:
    """The default split of a set with an official test part only.

    The test part stays, and 15 % of the other groups become val.
    """
    return "test" if official == "test" else assign(group, fractions=(0.85, 0.15, 0.0))


def named_splits(stated: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Key -> protocol -> split of a set that states its splits.

    The protocols are "official" and "default", which always has a val part.

    Args:
        stated: Key -> (split, group that no split may divide).

    Raises:
        ValueError: A group is in two splits.
    """
    split_of_group: dict[str, str] = {}
    for split, group in stated.values():
        if split_of_group.setdefault(group, split) != split:
            raise ValueError(f"{group} is in two splits, {split_of_group[group]} and {split}")
    has_val = "val" in split_of_group.values()
    return {
        key: {"official": split, DEFAULT: split if has_val else keep_test(split, group)}
        for key, (split, group) in stated.items()
    }


def stratified(
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    seed: int = SEED,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> dict[str, str]:
    """Key -> split, each class in equal proportion, groups undivided.

    Small sets need this: a hash of each group alone might leave no malignant nodule for val.
    Groups with the same set of classes are ordered by their hash and cut at `fractions`.

    Args:
        labels: Class of every key; may be empty.
        groups: Group of every key, which no split may divide.
    """
    position = stratified_positions(labels, groups, seed)
    return {key: _split_at(position[groups[key]], fractions) for key in labels}


def stratified_positions(
    labels: Mapping[str, str], groups: Mapping[str, str], seed: int = SEED
) -> dict[str, float]:
    """Group -> its position in (0, 1) among the groups with the same set of classes."""
    classes: dict[str, set[str]] = {}
    for key, label in labels.items():
        classes.setdefault(groups[key], set()).add(label)
    strata: dict[tuple[str, ...], list[str]] = {}
    for group, names in classes.items():
        strata.setdefault(tuple(sorted(names)), []).append(group)
    return {
        group: position
        for members in strata.values()
        for group, position in _positions(members, seed)
    }


def _positions(members: list[str], seed: int) -> Iterator[tuple[str, float]]:
    ordered = sorted(members, key=lambda group: (uniform(group, seed), group))
    for rank, group in enumerate(ordered):
        yield group, (rank + 0.5) / len(members)


def split_by_patient(
    rows: pd.DataFrame,
    seed: int = SEED,
    fractions: tuple[float, float, float] = FRACTIONS,
    units: "pd.Series[str] | None" = None,
) -> tuple[dict[str, list[str]], Grouping]:
    """Ids of each split, and the grouping that they keep.

    A keyed hash decides for each group alone, so new rows never move another group. The fractions
    hold on average.

    Args:
        units: Group of each row, which no split may divide; by default `groups`.

    Raises:
        ValueError: The fractions are negative or do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions {fractions} must not be negative and must sum to 1")
    selected = (groups(rows) if units is None else units).map(
        lambda group: assign(group, seed, fractions)
    )
    return {split: rows.loc[selected == split, "id"].tolist() for split in SPLITS}, grouping(rows)


def with_splits(corpus: Path, columns: Sequence[str], protocols: Mapping[str, str]) -> pd.DataFrame:
    """Manifest columns of all rows, with their `split` under the protocol in use, else null."""
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
    """The split of every row, with the index of `rows`.

    Args:
        protocols: Source -> protocol; "default" for a source that is not named.

    Raises:
        ValueError: A batch lacks the protocol, or the protocol lacks a row.
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
        protocols = sorted(path.stem for path in folder.glob("*.parquet"))
        raise ValueError(
            f"{file} does not exist: split protocol {protocol!r} is not one of "
            f"{', '.join(protocols)}"
        )
    table = read_table(file, SPLIT_SCHEMA).set_index("id")["split"]
    missing = ids[~ids.isin(table.index)]
    if len(missing):
        raise ValueError(f"{file} gives no split for {len(missing)} rows, e.g. {missing.iloc[0]}")
    return pd.Series(table.loc[ids].tolist(), index=ids.index, name="split")

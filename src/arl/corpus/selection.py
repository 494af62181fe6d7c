"""The rows of the corpus that a stage uses."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from arl.corpus.manifest import SCHEMA, read_manifest
from arl.corpus.near_duplicates import contradictory_clusters, duplicate_clusters
from arl.corpus.splits import groups, read_split
from arl.corpus.testsets import TestSet, check_frozen, guard, read_test_sets

WITHHELD = "withheld"
Contradictory = Literal["keep", "withhold"]
# Only the search for duplicates needs these.
_HASHES = ["perceptual_hash", "difference_hash", "detail_hash"]
# No stage that selects rows needs these.
_UNREAD = {
    "key_id",
    "anatomy_rule",
    "region_rule",
    "color_doppler",
    "original_height",
    "original_width",
    "pixel_spacing_mm",
    "frame",
}


def select(
    corpus: Path,
    *,
    sources: list[str],
    protocols: dict[str, str],
    held_out: Sequence[str] = (),
    contradictory: Contradictory = "keep",
) -> pd.DataFrame:
    """Rows of the named sources (empty: all) that are not held out, with their `split`.

    A training or validation image that is near-identical to an image of a more protected split, in
    any source of the corpus, is in the split "withheld"; see `near_duplicates`. The columns are
    those of the manifest without the hashes and the columns that describe the ingest.

    Args:
        contradictory: "keep" clusters of near-identical images with different labels, or
            "withhold" their labelled members in training and validation.

    Raises:
        ValueError: A named source is not in the corpus, or no row is left.
    """
    rows = read_manifest(corpus, [name for name in SCHEMA.names if name not in _UNREAD])
    missing = sorted(set(sources) - set(rows["source"]))
    if missing:
        raise ValueError(
            f"corpus {corpus} has no source {missing}; it has {sorted(set(rows['source']))}"
        )
    rows = rows.assign(split=read_split(corpus, rows, protocols))
    rows["split"] = guard(rows, read_test_sets(corpus), WITHHELD)
    members = duplicate_clusters(rows)
    withheld = members["withheld"]
    if contradictory == "withhold":
        clusters = contradictory_clusters(members)["cluster"]
        # A frozen test set never changes by a parameter, so its images stay.
        trained = members["split"].isin(["train", "val"]) & members["label"].notna()
        withheld |= members["cluster"].isin(clusters) & trained
    rows = rows.drop(columns=_HASHES)
    rows.loc[rows["id"].isin(members.loc[withheld, "id"]), "split"] = WITHHELD
    rows = rows[rows["source"].isin(sources)] if sources else rows
    rows = rows[~rows["source"].isin(held_out)].reset_index(drop=True)
    if rows.empty:
        raise ValueError(
            f"corpus {corpus} has no row beside the sources that are held out: {sorted(held_out)}"
        )
    return rows


def task_rows(
    corpus: Path,
    *,
    sources: list[str],
    anatomy: str,
    choose: Callable[[pd.DataFrame], pd.DataFrame],
    description: str,
    protocols: dict[str, str],
    test_set: TestSet | None = None,
    contradictory: Contradictory = "keep",
) -> pd.DataFrame:
    """Rows of a task with their `split` and `target`.

    Args:
        choose: Returns the rows with a valid label of the task, with their `target`.
        description: What a row of the task needs, for errors.
        test_set: The frozen test set. Its images are the split "test"; rows whose protocol says
            "test" beside it are in the split "withheld".
        contradictory: See `select`.

    Raises:
        ValueError: A split is empty, or an image of the test set is missing or has changed.
    """
    rows = select(corpus, sources=sources, protocols=protocols, contradictory=contradictory)
    if test_set is not None:
        check_frozen(test_set, rows)
        outside = (rows["split"] == "test") & ~rows["id"].isin(test_set.images)
        rows["split"] = rows["split"].mask(outside, WITHHELD)
    rows = choose(rows[rows["anatomy"] == anatomy])
    for split in ("train", "val", "test"):
        if not (rows["split"] == split).any():
            raise ValueError(
                f"the {split} split of {anatomy} in {corpus} has no image with {description}"
            )
    return rows.reset_index(drop=True)


def subset(rows: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """The rows of a fraction of the groups: of each label the same fraction, at least one group.

    Subsets are nested: with the same seed, the subset of a smaller fraction is part of that of a
    larger one. A group counts for the label that most of its images have.

    Raises:
        ValueError: The fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction of {fraction:g} of the training patients is not in (0, 1]")
    if fraction == 1:
        return rows
    unit = groups(rows)
    labels = pd.DataFrame({"unit": unit, "label": rows["label"].fillna("")})
    units = labels.groupby("unit")["label"].agg(lambda label: label.mode().iloc[0]).reset_index()
    units["order"] = [
        hashlib.blake2b(f"{seed}/{name}".encode()).hexdigest() for name in units["unit"]
    ]
    units = units.sort_values(["order", "unit"])
    rank = units.groupby("label").cumcount()
    size = (units.groupby("label")["unit"].transform("size") * fraction).round().clip(lower=1)
    return rows[unit.isin(units["unit"][rank < size])].reset_index(drop=True)

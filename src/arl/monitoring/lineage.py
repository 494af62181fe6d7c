"""Which data a release was trained on, and which releases saw a patient, an image or a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from arl.corpus.testsets import TestSet
from arl.monitoring.journal import LogEntry, trained_on


@dataclass(frozen=True)
class ReleaseLineage:
    """The rows that one release saw.

    Attributes:
        batches: "source/batch" of the corpus at its training; None where the log does not say.
        rows: rows of these batches in training or validation, or withheld today.
    """

    version: str
    batches: list[str] | None
    rows: pd.DataFrame


@dataclass(frozen=True)
class Lineage:
    """Everything that is linked with a name.

    Attributes:
        kind: what the name is.
        rows: its rows of the corpus; those that a release saw.
        releases: releases that saw at least one of the rows.
        unknown: releases of which the log does not say what they were trained on.
        test_sets: frozen test sets that hold one of its images.
        entries: entries of the log about its batches.
    """

    kind: str  # patient | image | batch | release
    name: str
    rows: pd.DataFrame
    releases: list[ReleaseLineage]
    unknown: list[str]
    test_sets: list[str]
    entries: list[LogEntry]


def releases_of(
    rows: pd.DataFrame, entries: Sequence[LogEntry], versions: Sequence[str]
) -> list[ReleaseLineage]:
    """What each release saw.

    Args:
        rows: of the corpus, with `split` and `in_batch` ("source/batch").
        entries: the log of the loop.
        versions: of the registry.
    """
    # Validation images choose thresholds and temperatures. Images that are withheld today may have
    # been trained on before their near copy arrived, so they count: better too many than too few.
    seen = rows["split"].isin(["train", "val", "withheld"])
    lineages = []
    for version in versions:
        batches = trained_on(entries, version)
        rows_of = rows[seen & rows["in_batch"].isin(batches or [])]
        lineages.append(ReleaseLineage(version, batches, rows_of))
    return lineages


def trace(
    name: str,
    rows: pd.DataFrame,
    entries: Sequence[LogEntry],
    versions: Sequence[str],
    test_sets: Sequence[TestSet],
) -> Lineage:
    """Follow a name to its data and its releases.

    Args:
        name: of a patient, an image (its id), a batch ("source/batch") or a release.
        rows: of the corpus, with `split` and `in_batch` ("source/batch").
        entries: the log of the loop.
        versions: of the registry.
        test_sets: all versions of all frozen test sets.

    Raises:
        ValueError: nothing has this name, or two things of different kinds have it.
    """
    releases = releases_of(rows, entries, versions)
    columns = {"patient": "patient", "image": "id", "batch": "in_batch"}
    hits = {kind: rows[rows[column] == name] for kind, column in columns.items()}
    hits = {kind: part for kind, part in hits.items() if len(part)}
    if name in versions:
        hits["release"] = next(one.rows for one in releases if one.version == name)
    if not hits:
        raise ValueError(
            f"{name!r} is no patient, image, batch or release of this corpus and registry"
        )
    if len(hits) > 1:
        raise ValueError(f"{name!r} is the name of a {' and of a '.join(hits)}")
    [(kind, part)] = hits.items()
    if kind == "release":
        linked = [one for one in releases if one.version == name]
    else:
        linked = [one for one in releases if one.rows["id"].isin(part["id"]).any()]
    batches = set(part["in_batch"])
    return Lineage(
        kind,
        name,
        part,
        linked,
        [one.version for one in releases if one.batches is None],
        [one.name for one in test_sets if set(part["id"]) & one.images.keys()],
        [entry for entry in entries if entry.decision and batches & set(entry.decision.batches)],
    )

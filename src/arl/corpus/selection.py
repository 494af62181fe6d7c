"""Which rows of the corpus a stage sees."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from arl.corpus.manifest import SCHEMA, read_manifest
from arl.corpus.near_duplicates import duplicate_clusters
from arl.corpus.splits import groups, read_split

WITHHELD = "withheld"
_HASHES = ["perceptual_hash", "difference_hash"]  # wanted by the leak gate alone
# of no use to any stage that selects
_UNREAD = {
    "anatomy_rule",
    "region_rule",
    "color_doppler",
    "original_height",
    "original_width",
    "pixel_spacing_mm",
    "frame",
}


def select(
    corpus: Path, *, sources: list[str], protocols: dict[str, str], held_out: Sequence[str] = ()
) -> pd.DataFrame:
    """Rows of the named sources (empty: all) without those that are held out, with their `split`.

    Columns of the manifest without hashes of looks and those that say how an input became an image.

    A training or validation image that is near-identical to one of a more guarded split, of any
    source of the corpus, is in the split "withheld"; see `leakage`.

    Raises:
        ValueError: a named source is not in the corpus, or nothing is left.
    """
    rows = read_manifest(corpus, [name for name in SCHEMA.names if name not in _UNREAD])
    missing = sorted(set(sources) - set(rows["source"]))
    if missing:
        raise ValueError(
            f"corpus {corpus} has no source {missing}; it has {sorted(set(rows['source']))}"
        )
    rows = rows.assign(split=read_split(corpus, rows, protocols))
    found = duplicate_clusters(rows)
    rows = rows.drop(columns=_HASHES)
    rows.loc[rows["id"].isin(found.loc[found["withheld"], "id"]), "split"] = WITHHELD
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
    kind: str,
    sources: list[str],
    anatomy: str,
    classes: list[str],
    mask: str,
    protocols: dict[str, str],
) -> pd.DataFrame:
    """Rows of a task with their `split` and, for classification, the integer `target`.

    Raises:
        ValueError: a split is empty, or lacks a class.
    """
    rows = select(corpus, sources=sources, protocols=protocols)
    rows = rows[rows["anatomy"] == anatomy]
    if kind == "segmentation":
        rows = rows[rows["mask"] == mask].assign(target=-1)
    elif kind == "classification":
        rows = rows[rows["label"].isin(classes)]
        rows = rows.assign(target=rows["label"].map(classes.index))
    else:
        raise ValueError(f"task kind {kind!r} is neither classification nor segmentation")
    _refuse_gaps(
        rows, classes if kind == "classification" else [], f"{kind} of {anatomy} in {corpus}"
    )
    return rows.reset_index(drop=True)


def _refuse_gaps(rows: pd.DataFrame, classes: list[str], what: str) -> None:
    for split in ("train", "val", "test"):
        part = rows[rows["split"] == split]
        if part.empty:
            raise ValueError(f"{what}: the {split} split is empty")
        missing = sorted(set(classes) - set(part["label"]))
        if missing:
            raise ValueError(f"{what}: the {split} split has no image of class {missing}")


def subset(rows: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The rows of a share of the patients (or clips, or images), of each label the same share and at least one.

    Subsets are nested: those of a smaller share, with the same seed, are part of those of a larger
        one. A patient counts as of the label that most of their images have.

    Raises:
        ValueError: the share is not within 0..1, or is 0.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"a share of {share:g} of the training patients is not within 0..1, or is none"
        )
    if share == 1:
        return rows
    unit = groups(rows)
    known = pd.DataFrame({"unit": unit, "label": rows["label"].fillna("")})
    units = known.groupby("unit")["label"].agg(lambda labels: labels.mode().iloc[0]).reset_index()
    units["order"] = [
        hashlib.blake2b(f"{seed}/{name}".encode()).hexdigest() for name in units["unit"]
    ]
    units = units.sort_values(["order", "unit"])
    rank = units.groupby("label").cumcount()
    wanted = (units.groupby("label")["unit"].transform("size") * share).round().clip(lower=1)
    return rows[unit.isin(units["unit"][rank < wanted])].reset_index(drop=True)

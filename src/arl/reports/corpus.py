"""The page of a corpus."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arl.corpus.batch_summary import BatchSummary
from arl.corpus.checks.result import ValidationResult
from arl.corpus.manifest import batch_folders, sources
from arl.corpus.near_duplicates import CONFIRM, RADIUS, contradictory_clusters
from arl.reports import html, pictures, tables
from arl.reports.elements import Bars, Table, Thumbnail
from arl.reports.formatting import percent, plural
from arl.reports.run import anatomy_bars
from arl.reports.stamp import RunStamp
from arl.reports.validation import cluster_facts

_PER_ANATOMY = 8  # pictures of a sheet
_PER_CLUSTER = 8
_MAX_CLUSTERS = 12
_DEPTHS = (0, 2, 4, 6, 8, 12, 16, 20, 30)  # cm
_SIDES = (0, 128, 192, 256, 320, 384, 448, 512, 768, 1024)  # pixels


def write_page(
    corpus: Path,
    rows: pd.DataFrame,
    refused: pd.DataFrame,
    near_duplicates: pd.DataFrame,
    validation: ValidationResult,
    stamp: RunStamp,
    file: Path,
) -> None:
    """Write one HTML file.

    Args:
        corpus: folder of the corpus.
        rows: its manifest.
        refused: its quarantine.
        near_duplicates: the table of `near_duplicates.duplicate_clusters`.
        validation: the result on this version of the corpus.
        stamp: for the foot of the page.
        file: the file that is written.
    """
    html.write(
        file,
        "corpus.html.j2",
        html.Head("Corpus", _subtitle(rows), stamp),
        overview=_overview(corpus, rows, refused, near_duplicates),
        without_patient=int(rows["patient"].isna().sum()),
        verdict=tables.validation_verdict(validation.rules),
        failed=tables.failed_rules(validation.rules),
        anatomies=anatomy_bars(rows),
        anatomy_table=_anatomy_table(rows),
        color_doppler=int(rows["color_doppler"].sum()),
        sources=tables.image_counts(rows, ["source", "batch", "site"]),
        licences=_licences(corpus),
        probes=_probes(rows),
        sizes=_sizes(rows),
        label_tables=_label_tables(rows, corpus),
        samples={
            str(anatomy): _sheet(corpus, _varied(part))
            for anatomy, part in rows.groupby("anatomy", sort=True)
        },
        cluster_facts=cluster_facts(near_duplicates),
        radius=RADIUS,
        confirm=CONFIRM,
        clusters=list(_clusters(corpus, rows, near_duplicates)),
        quarantine=tables.quarantine(refused),
    )


def _subtitle(rows: pd.DataFrame) -> str:
    fraction = float(rows["synthetic"].mean()) if len(rows) else 0.0
    words = {0.0: "none of them synthetic", 1.0: "all of them synthetic"}
    synthetic = words.get(fraction, f"{percent(fraction)} of them synthetic")
    return f"{len(rows):,} images of {plural(rows['source'].nunique(), 'source')}, {synthetic}."


def _overview(
    corpus: Path, rows: pd.DataFrame, refused: pd.DataFrame, near_duplicates: pd.DataFrame
) -> dict[str, object]:
    stored = sum(file.stat().st_size for file in corpus.glob("*/*/shard-*.parquet"))
    return {
        "images": len(rows),
        "known patients": int(rows["patient"].nunique()),
        "images without a patient": int(rows["patient"].isna().sum()),
        "clips": int(rows["clip"].nunique()),
        "sites": int(rows["site"].nunique()),
        "synthetic images": int(rows["synthetic"].sum()),
        "left out of training": int(near_duplicates["withheld"].sum()),
        "inputs in quarantine": len(refused),
        "stored": f"{stored / 1e6:,.0f} MB",
        "stored per image": f"{stored / max(1, len(rows)) / 1e3:,.0f} kB",
    }


def _anatomy_table(rows: pd.DataFrame) -> Table:
    counts = rows["anatomy"].value_counts()
    table = pd.crosstab(rows["anatomy"], rows["source"]).loc[counts.index]
    cells = [
        [str(name), *map(int, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return Table(["anatomy", *map(str, table.columns)], cells, "Images of each source.")


def _licences(corpus: Path) -> Table:
    cells = [[name, terms["licence"], terms["citation"]] for name, terms in sources(corpus).items()]
    return Table(["source", "licence", "to be cited"], cells, name="Licences")


def _probes(rows: pd.DataFrame) -> dict[str, Bars]:
    rules = rows["region_rule"].fillna("the source delivers scans without a screen")
    return {
        "Probe": _count_bars(rows["probe"]),
        "Device": _count_bars(rows["device"].fillna("unknown"), 20),
        "Rule that located the scan on the screen": _count_bars(rules),
    }


def _count_bars(values: "pd.Series[str]", limit: int = 40) -> Bars:
    """The most frequent values; the others in one bar."""
    counts = values.value_counts()
    bars = {str(name): [int(count)] for name, count in counts.head(limit).items()}
    rest = int(counts.iloc[limit:].sum())
    return Bars({**bars, f"{len(counts) - limit} others": [rest]} if rest else bars)


def _sizes(rows: pd.DataFrame) -> list[tuple[str, str, Bars | None]]:
    """Title, text and histogram of each quantity."""
    stored = rows[["height", "width"]].max(axis=1)
    original = rows[["original_height", "original_width"]].max(axis=1)
    depth, spacing = rows["depth_cm"].dropna(), rows["pixel_spacing_mm"].dropna()
    named = f"Known for {len(depth):,} of {len(rows):,} images."
    return [
        ("Long side as stored, pixels", "", Bars(_histogram(stored, _SIDES))),
        ("Long side as delivered, pixels", "", Bars(_histogram(original, _SIDES))),
        ("Depth, cm", named, Bars(_histogram(depth, _DEPTHS)) if len(depth) else None),
        ("Size of a stored pixel", _spacing(spacing, len(rows)), None),
    ]


def _spacing(spacing: "pd.Series[float]", images: int) -> str:
    if spacing.empty:
        return "Known for no image."
    low, middle, high = spacing.quantile([0.05, 0.5, 0.95])
    return (
        f"Known for {len(spacing):,} of {images:,} images. Median {middle:.3f} mm, 5 % to 95 %"
        f" quantile {low:.3f} to {high:.3f} mm."
    )


def _histogram(values: "pd.Series[Any]", edges: tuple[int, ...]) -> dict[str, list[int]]:
    """Counts of values above one edge and up to the next; the last bin is open."""
    bounds = [*edges, np.inf]
    bins = pd.cut(values, bounds, labels=False).value_counts()
    counts = bins.reindex(range(len(edges)), fill_value=0)
    names = [f"{low}–{high}" for low, high in pairwise(edges)] + [f"over {edges[-1]}"]
    filled = np.flatnonzero(counts.to_numpy())
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    return {names[i]: [int(counts[i])] for i in range(first, last)}


def _label_tables(rows: pd.DataFrame, corpus: Path) -> list[tuple[Table | None, str]]:
    """Tables of labels, masks and splits, each with what to say if it is empty."""
    labels = _group_table(rows.dropna(subset=["label"]), "label", "Labels.")
    masks = _group_table(rows.dropna(subset=["mask"]), "mask", "Masks.")
    splits = [
        [
            folder.parent.name,
            folder.name,
            protocol,
            *(counts[name] for name in ("train", "val", "test")),
        ]
        for folder in batch_folders(corpus)
        for protocol, counts in sorted(BatchSummary.read(folder).splits.items())
    ]
    columns = ["source", "batch", "protocol", "train", "val", "test"]
    return [
        (labels, "No image has a label."),
        (masks, "No image has a mask."),
        (Table(columns, splits, "Split protocols.") if splits else None, "No batch has splits."),
    ]


def _group_table(rows: pd.DataFrame, column: str, caption: str) -> Table | None:
    counts = (
        rows.groupby(["anatomy", "source", column], sort=True).size().reset_index(name="images")
    )
    cells = [[*map(str, row[:-1]), int(row[-1])] for row in counts.itertuples(index=False)]
    return Table(["anatomy", "source", column, "images"], cells, caption) if cells else None


def _varied(rows: pd.DataFrame) -> pd.DataFrame:
    """The first of each source and device, then the second ones; the same for the same rows."""
    unit = rows["patient"].fillna(rows["clip"]).fillna(rows["id"])
    firsts = rows[~unit.duplicated()]
    turn = firsts.groupby(["source", firsts["device"].fillna("")]).cumcount()
    return firsts.assign(turn=turn).sort_values(["turn", "source", "id"]).head(_PER_ANATOMY)


def _sheet(corpus: Path, rows: pd.DataFrame) -> list[Thumbnail]:
    return pictures.contact_sheet(corpus, rows, _lines, show_ids=True)


def _lines(row: "pd.Series[Any]") -> list[str]:
    named = row.where(row != "unknown")
    split = pictures.describe(named, "split") if "split" in row else ""
    if row.get("withheld"):
        split += ", left out"
    return [", ".join(filter(None, [split, pictures.describe(named, "label", "probe", "device")]))]


def _clusters(
    corpus: Path, rows: pd.DataFrame, near_duplicates: pd.DataFrame
) -> Iterator[tuple[str, list[Thumbnail]]]:
    """The clusters that matter most: of two labels, then across splits, then the largest."""
    if near_duplicates.empty:
        return
    mixed = near_duplicates["cluster"].isin(contradictory_clusters(near_duplicates)["cluster"])
    ranked = near_duplicates.assign(mixed=mixed).groupby("cluster", sort=True)
    order = ranked.agg(mixed=("mixed", "max"), leak=("withheld", "max"), size=("id", "size"))
    ordered = order.sort_values(["mixed", "leak", "size"], ascending=False, kind="stable")
    for cluster, facts in ordered.head(_MAX_CLUSTERS).iterrows():
        members = near_duplicates[near_duplicates["cluster"] == cluster].head(_PER_CLUSTER)
        joined = rows[rows["id"].isin(members["id"])].merge(
            members[["id", "split", "withheld"]], on="id"
        )
        words = [plural(int(facts["size"]), "image")]
        words += ["of two labels"] * bool(facts["mixed"]) + ["across splits"] * bool(facts["leak"])
        yield " ".join(words), _sheet(corpus, joined.sort_values("id"))

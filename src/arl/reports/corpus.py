"""The page of a corpus."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class CorpusPage:
    """What the page of a corpus shows; the template reads its properties."""

    corpus: Path  # folder
    rows: pd.DataFrame  # the manifest
    refused: pd.DataFrame  # the quarantine
    near_duplicates: pd.DataFrame  # of `near_duplicates.duplicate_clusters`
    validation: ValidationResult  # on this version of the corpus

    @property
    def subtitle(self) -> str:
        """Number of images and how many are synthetic."""
        fraction = float(self.rows["synthetic"].mean()) if len(self.rows) else 0.0
        words = {0.0: "none of them synthetic", 1.0: "all of them synthetic"}
        synthetic = words.get(fraction, f"{percent(fraction)} of them synthetic")
        num_sources = plural(self.rows["source"].nunique(), "source")
        return f"{len(self.rows):,} images of {num_sources}, {synthetic}."

    @property
    def overview(self) -> dict[str, object]:
        """The corpus in numbers."""
        rows = self.rows
        # Shards only: tables and splits are small, and their size is nobody's question.
        stored = sum(file.stat().st_size for file in self.corpus.glob("*/*/shard-*.parquet"))
        return {
            "images": len(rows),
            "known patients": int(rows["patient"].nunique()),
            "images without a patient": int(rows["patient"].isna().sum()),
            "clips": int(rows["clip"].nunique()),
            "sites": int(rows["site"].nunique()),
            "synthetic images": int(rows["synthetic"].sum()),
            "left out of training": int(self.near_duplicates["withheld"].sum()),
            "inputs in quarantine": len(self.refused),
            "stored": f"{stored / 1e6:,.0f} MB",
            "stored per image": f"{stored / max(1, len(rows)) / 1e3:,.0f} kB",
        }

    @property
    def anatomy_table(self) -> Table:
        """Images of each anatomy and source, the most frequent anatomy first."""
        counts = self.rows["anatomy"].value_counts()
        # Sorted by frequency, as the bars above the table are.
        table = pd.crosstab(self.rows["anatomy"], self.rows["source"]).loc[counts.index]
        cells = [
            [str(name), *map(int, row)]
            for name, row in zip(table.index, table.to_numpy(), strict=True)
        ]
        return Table(["anatomy", *map(str, table.columns)], cells, "Images of each source.")

    @property
    def licences(self) -> Table:
        """Licence and citation of each source."""
        terms_of = sources(self.corpus).items()
        cells = [[name, terms["licence"], terms["citation"]] for name, terms in terms_of]
        return Table(["source", "licence", "to be cited"], cells, name="Licences")

    @property
    def probes(self) -> dict[str, Bars]:
        """What acquired the images, and how the scan was located on the screen."""
        # A dataset of cropped scans has no screen, so no rule applied.
        rules = self.rows["region_rule"].fillna("the source delivers scans without a screen")
        return {
            "Probe": _count_bars(self.rows["probe"]),
            "Device": _count_bars(self.rows["device"].fillna("unknown"), 20),
            "Rule that located the scan on the screen": _count_bars(rules),
        }

    @property
    def sizes(self) -> list[tuple[str, str, Bars | None]]:
        """Title, text and histogram of each quantity."""
        rows = self.rows
        stored = rows[["height", "width"]].max(axis=1)
        original = rows[["original_height", "original_width"]].max(axis=1)
        depth, spacing = rows["depth_cm"].dropna(), rows["pixel_spacing_mm"].dropna()
        depths = f"Known for {len(depth):,} of {len(rows):,} images."
        # Quantiles, because a single wrong header would stretch the range beyond use.
        low, middle, high = spacing.quantile([0.05, 0.5, 0.95])
        spacings = (
            f"Known for {len(spacing):,} of {len(rows):,} images. Median {middle:.3f} mm, 5 % to"
            f" 95 % quantile {low:.3f} to {high:.3f} mm."
        )
        return [
            ("Long side as stored, pixels", "", Bars(histogram(stored, _SIDES))),
            ("Long side as delivered, pixels", "", Bars(histogram(original, _SIDES))),
            ("Depth, cm", depths, Bars(histogram(depth, _DEPTHS)) if len(depth) else None),
            ("Size of a stored pixel", spacings if len(spacing) else "Known for no image.", None),
        ]

    @property
    def label_tables(self) -> list[tuple[Table | None, str]]:
        """Tables of labels, masks and splits, each with what to say if it is empty."""
        labels = _group_table(self.rows.dropna(subset=["label"]), "label", "Labels.")
        masks = _group_table(self.rows.dropna(subset=["mask"]), "mask", "Masks.")
        splits = [
            [
                folder.parent.name,
                folder.name,
                protocol,
                *(counts[name] for name in ("train", "val", "test")),
            ]
            for folder in batch_folders(self.corpus)
            for protocol, counts in sorted(BatchSummary.read(folder).splits.items())
        ]
        columns = ["source", "batch", "protocol", "train", "val", "test"]
        protocols = Table(columns, splits, "Split protocols.") if splits else None
        return [
            (labels, "No image has a label."),
            (masks, "No image has a mask."),
            (protocols, "No batch has splits."),
        ]

    @property
    def samples(self) -> dict[str, list[Thumbnail]]:
        """Thumbnails of each anatomy, of as many sources and devices as possible."""
        sheets = {}
        for anatomy, rows in self.rows.groupby("anatomy", sort=True):
            # One image per patient: frames of one clip look alike.
            unit = rows["patient"].fillna(rows["clip"]).fillna(rows["id"])
            firsts = rows[~unit.duplicated()]
            # The first of each source and device, then the second ones.
            turn = firsts.groupby(["source", firsts["device"].fillna("")]).cumcount()
            ranked = firsts.assign(turn=turn).sort_values(["turn", "source", "id"])
            sheets[str(anatomy)] = _sheet(self.corpus, ranked.head(_PER_ANATOMY))
        return sheets

    @property
    def clusters(self) -> list[tuple[str, list[Thumbnail]]]:
        """The clusters that matter most: of two labels, then across splits, then the largest."""
        near = self.near_duplicates
        if near.empty:
            return []
        mixed = near["cluster"].isin(contradictory_clusters(near)["cluster"])
        ranked = near.assign(mixed=mixed).groupby("cluster", sort=True)
        order = ranked.agg(mixed=("mixed", "max"), leak=("withheld", "max"), size=("id", "size"))
        ordered = order.sort_values(["mixed", "leak", "size"], ascending=False, kind="stable")
        sheets = []
        for cluster, facts in ordered.head(_MAX_CLUSTERS).iterrows():
            members = near[near["cluster"] == cluster].head(_PER_CLUSTER)
            joined = self.rows[self.rows["id"].isin(members["id"])].merge(
                members[["id", "split", "withheld"]], on="id"
            )
            words = [plural(int(facts["size"]), "image")]
            words += ["of two labels"] * bool(facts["mixed"])
            words += ["across splits"] * bool(facts["leak"])
            sheets.append((" ".join(words), _sheet(self.corpus, joined.sort_values("id"))))
        return sheets


def write_page(page: CorpusPage, stamp: RunStamp, file: Path) -> None:
    """Write one HTML file."""
    html.write(
        file,
        "corpus.html.j2",
        html.Head("Corpus", page.subtitle, stamp),
        page=page,
        without_patient=int(page.rows["patient"].isna().sum()),
        verdict=tables.validation_verdict(page.validation.rules),
        failed=tables.failed_rules(page.validation.rules),
        anatomies=anatomy_bars(page.rows),
        color_doppler=int(page.rows["color_doppler"].sum()),
        sources=tables.image_counts(page.rows, ["source", "batch", "site"]),
        cluster_facts=cluster_facts(page.near_duplicates),
        radius=RADIUS,
        confirm=CONFIRM,
        quarantine=tables.quarantine(page.refused),
    )


def _count_bars(values: "pd.Series[str]", limit: int = 40) -> Bars:
    """The most frequent values; the others in one bar."""
    counts = values.value_counts()
    bars = {str(name): [int(count)] for name, count in counts.head(limit).items()}
    rest = int(counts.iloc[limit:].sum())
    return Bars({**bars, f"{len(counts) - limit} others": [rest]} if rest else bars)


def histogram(values: "pd.Series[Any]", edges: tuple[int, ...]) -> dict[str, list[int]]:
    """Counts of values above one edge and up to the next; the last bin is open."""
    # Fixed edges, so that two corpora can be compared by eye.
    bounds = [*edges, np.inf]
    bins = pd.cut(values, bounds, labels=False).value_counts()
    counts = bins.reindex(range(len(edges)), fill_value=0)
    names = [f"{low}–{high}" for low, high in pairwise(edges)] + [f"over {edges[-1]}"]
    filled = np.flatnonzero(counts.to_numpy())
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    return {names[i]: [int(counts[i])] for i in range(first, last)}


def _group_table(rows: pd.DataFrame, column: str, caption: str) -> Table | None:
    counts = (
        rows.groupby(["anatomy", "source", column], sort=True).size().reset_index(name="images")
    )
    cells = [[*map(str, row[:-1]), int(row[-1])] for row in counts.itertuples(index=False)]
    return Table(["anatomy", "source", column, "images"], cells, caption) if cells else None


def _sheet(corpus: Path, rows: pd.DataFrame) -> list[Thumbnail]:
    return pictures.contact_sheet(corpus, rows, _lines, show_ids=True)


def _lines(row: "pd.Series[Any]") -> list[str]:
    # "unknown" below each picture would hide the few values that are known.
    named = row.where(row != "unknown")
    split = pictures.describe(named, "split") if "split" in row else ""
    if row.get("withheld"):
        split += ", left out"
    return [", ".join(filter(None, [split, pictures.describe(named, "label", "probe", "device")]))]

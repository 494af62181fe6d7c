"""The page of a corpus."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from arl.corpus.manifest import sources
from arl.corpus.near_duplicates import CONFIRM, RADIUS, contradictory_clusters
from arl.corpus.pixels import encode_png, fit, letterbox
from arl.corpus.record import Pixels
from arl.corpus.shard_reader import read_images
from arl.files import atomic_file, read_json
from arl.reports import html

_THUMBNAIL = 176  # pixels


_KINDS = ("real", "synthetic")


_PER_ANATOMY = 8  # pictures of a sheet


_PER_SHEET = 8  # most pictures of a cluster


_CLUSTERS = 12


_REASONS = 30


_DEPTHS = (0, 2, 4, 6, 8, 12, 16, 20, 30)  # cm


_SIDES = (0, 128, 192, 256, 320, 384, 448, 512, 768, 1024)  # pixels


def write_page(
    corpus: Path,
    rows: pd.DataFrame,
    quarantine: pd.DataFrame,
    alike: pd.DataFrame,
    validated: dict[str, Any],
    page: Path,
) -> None:
    """Write one HTML file; `alike` are the near-identical images."""
    parts = {
        "Overview": _overview(corpus, rows, quarantine, alike),
        "Validation": _validation(validated),
        "Anatomy": _anatomy(rows),
        "Sources and sites": _sources(corpus, rows),
        "Probes and devices": _probes(rows),
        "Size and depth": _size(rows),
        "Labels, masks and splits": _labels(rows, corpus),
        "Samples": _samples(corpus, rows),
        "Near-identical images": _alike(corpus, rows, alike),
        "Quarantine": _quarantine(quarantine),
    }
    body = html.contents(parts) + Markup("").join(
        html.section(title, part) for title, part in parts.items()
    )
    text = html.page("Corpus", body, subtitle=_subtitle(rows))
    with atomic_file(page) as partial:
        partial.write_text(text, encoding="utf-8")


def _subtitle(rows: pd.DataFrame) -> str:
    share = float(rows["synthetic"].mean()) if len(rows) else 0.0
    told = {0.0: "none of them synthetic", 1.0: "all of them synthetic"}.get(
        share, f"{share:.0%} of them synthetic"
    )
    return f"{len(rows):,} images of {rows['source'].nunique()} sources, {told}."


def _overview(
    corpus: Path, rows: pd.DataFrame, quarantine: pd.DataFrame, alike: pd.DataFrame
) -> Markup:
    stored = sum(file.stat().st_size for file in corpus.glob("*/*/shard-*.parquet"))
    unknown = int(rows["patient"].isna().sum())
    facts: dict[str, object] = {
        "images": len(rows),
        "patients known": rows["patient"].nunique(),
        "images without a patient": unknown,
        "clips": rows["clip"].nunique(),
        "sites": rows["site"].nunique(),
        "synthetic images": int(rows["synthetic"].sum()),
        "left out of training": int(alike["withheld"].sum()),
        "inputs in quarantine": len(quarantine),
        "stored": f"{stored / 1e6:,.0f} MB",
        "stored per image": f"{stored / max(1, len(rows)) / 1e3:,.0f} kB",
    }
    note = "The images without a patient are split by clip, or image by image: no claim about patients holds for them."
    return html.facts(facts) + (html.note(note, "warn") if unknown else Markup(""))


def _validation(found: dict[str, Any]) -> Markup:
    failed = found["failed"]
    rules = len(found["rules"])
    if not found["passed"]:
        summary = html.verdict(
            "failed", f"{failed['critical']} of {rules} rules are broken critically."
        )
    elif failed["warning"]:
        summary = html.verdict(
            "passed", f"No critical rule of {rules} is broken; {failed['warning']} to look at."
        )
    else:
        summary = html.verdict("passed", f"All {rules} rules hold.")
    broken = [rule for rule in found["rules"] if not rule["passed"]]
    cells = [
        [
            html.badge({"critical": "failed"}.get(rule["severity"], rule["severity"])),
            rule["description"],
            rule["failed"],
            rule["checked"],
            Markup(", ").join(html.code(example) for example in rule["examples"][:3]),
        ]
        for rule in broken
    ]
    return summary + (
        html.table(["", "rule", "failing", "checked", "for example"], cells)
        if cells
        else Markup("")
    )


def _anatomy(rows: pd.DataFrame) -> Markup:
    counts = rows["anatomy"].value_counts()
    table = pd.crosstab(rows["anatomy"], rows["source"]).loc[counts.index]
    cells = [
        [str(name), *(int(value) for value in row)]
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return (
        (
            html.bars(_by_kind(rows), _KINDS)
            if rows["synthetic"].any()
            else html.bars(_counted(rows["anatomy"]))
        )
        + html.table(["anatomy", *map(str, table.columns)], cells, "Images of each source.")
        + html.paragraph(f"Color Doppler is marked in {int(rows['color_doppler'].sum()):,} images.")
    )


def _by_kind(rows: pd.DataFrame) -> dict[str, tuple[int, ...]]:
    """Anatomy -> real and synthetic images; most frequent first."""
    counts = pd.crosstab(rows["anatomy"], rows["synthetic"]).reindex(
        columns=[False, True], fill_value=0
    )
    ordered = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    return {
        str(name): (int(row[0]), int(row[1]))
        for name, row in zip(ordered.index, ordered.to_numpy(), strict=True)
    }


def _sources(corpus: Path, rows: pd.DataFrame) -> Markup:
    about = sources(corpus)
    columns = [
        "source",
        "batch",
        "site",
        "images",
        "patients",
        "clips",
        "labelled",
        "with mask",
        "data",
    ]
    cells = [
        [
            *map(str, key),
            len(part),
            int(part["patient"].nunique()),
            int(part["clip"].nunique()),
            int(part["label"].notna().sum()),
            int(part["mask"].notna().sum()),
            html.badge("synthetic") if part["synthetic"].all() else "real",
        ]
        for key, part in rows.groupby(["source", "batch", "site"], sort=True)
    ]
    licences = [[source, found["licence"], found["citation"]] for source, found in about.items()]
    return html.table(columns, cells) + html.table(["source", "licence", "to be cited"], licences)


def _probes(rows: pd.DataFrame) -> Markup:
    cut = rows["region_rule"].fillna("the source gives scans alone").value_counts()
    return (
        html.section("Probe", html.bars(_counted(rows["probe"])), 3)
        + html.section("Device", html.bars(_counted(rows["device"].fillna("unknown"), 20)), 3)
        + html.section("How the scan was found on the screen", html.bars(_counts(cut)), 3)
    )


def _counted(values: "pd.Series[str]", most: int = 40) -> dict[str, tuple[int, ...]]:
    counts = values.value_counts()
    shown = _counts(counts.head(most))
    rest = int(counts.iloc[most:].sum())
    return {**shown, f"{len(counts) - most} others": (rest,)} if rest else shown


def _counts(counts: "pd.Series[int]") -> dict[str, tuple[int, ...]]:
    return {str(name): (int(value),) for name, value in counts.items()}


def _size(rows: pd.DataFrame) -> Markup:
    long_side = rows[["height", "width"]].max(axis=1)
    original = rows[["original_height", "original_width"]].max(axis=1)
    depth, spacing = rows["depth_cm"].dropna(), rows["pixel_spacing_mm"].dropna()
    return (
        html.section("Long side as stored, pixels", html.bars(_histogram(long_side, _SIDES)), 3)
        + html.section("Long side as it came, pixels", html.bars(_histogram(original, _SIDES)), 3)
        + html.section("Depth, cm", _known(depth, len(rows), _DEPTHS), 3)
        + html.paragraph(_spacing(spacing, len(rows)))
    )


def _spacing(spacing: "pd.Series[float]", images: int) -> str:
    if spacing.empty:
        return "The size of a pixel is known of no image."
    low, middle, high = spacing.quantile([0.05, 0.5, 0.95])
    return (
        f"The size of a stored pixel is known of {len(spacing):,} of {images:,} images: "
        f"{middle:.3f} mm in the middle, {low:.3f} to {high:.3f} mm for nine in ten."
    )


def _known(values: "pd.Series[float]", images: int, edges: tuple[int, ...]) -> Markup:
    if values.empty:
        return html.paragraph("It is known of no image.")
    share = html.paragraph(f"It is known of {len(values):,} of {images:,} images.")
    return share + html.bars(_histogram(values, edges))


def _histogram(values: "pd.Series[Any]", edges: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Values above one edge and up to the next; the last bin is open."""
    bounds = [*edges, np.inf]
    counts = (
        pd.cut(values, bounds, labels=False).value_counts().reindex(range(len(edges)), fill_value=0)
    )
    names = [f"{low}–{high}" for low, high in pairwise(edges)] + [f"over {edges[-1]}"]
    held = np.flatnonzero(counts.to_numpy())
    first, last = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 0)
    return {
        name: (int(counts[place]),) for place, name in enumerate(names) if first <= place < last
    }


def _labels(rows: pd.DataFrame, corpus: Path) -> Markup:
    labelled = (
        rows.dropna(subset=["label"]).groupby(["anatomy", "source", "label"], sort=True).size()
    )
    masked = rows.dropna(subset=["mask"]).groupby(["anatomy", "source", "mask"], sort=True).size()
    splits = [
        [
            folder.parent.name,
            folder.name,
            protocol,
            *(held[name] for name in ("train", "val", "test")),
        ]
        for folder in sorted(file.parent for file in corpus.glob("[!.]*/[!.]*/batch.json"))
        for protocol, held in sorted(read_json(folder / "batch.json")["splits"].items())
    ]
    return (
        _counts_table(["anatomy", "source", "label", "images"], labelled, "No image has a label.")
        + _counts_table(["anatomy", "source", "mask of", "images"], masked, "No image has a mask.")
        + html.table(
            ["source", "batch", "protocol", "train", "val", "test"], splits, "Split protocols."
        )
    )


def _counts_table(columns: list[str], counts: "pd.Series[int]", nothing: str) -> Markup:
    if counts.empty:
        return html.paragraph(nothing)
    table = counts.reset_index(name="images")
    return html.table(
        columns, [[*map(str, row[:-1]), int(row[-1])] for row in table.itertuples(index=False)]
    )


def _samples(corpus: Path, rows: pd.DataFrame) -> Markup:
    """Of each anatomy a few images, of as many sources, patients and devices as there are."""
    parts = [
        html.section(str(anatomy).capitalize(), _sheet(corpus, _varied(part)), 3)
        for anatomy, part in rows.groupby("anatomy", sort=True)
    ]
    return Markup("").join(parts)


def _varied(rows: pd.DataFrame) -> pd.DataFrame:
    """The first of each source and device, then the second ones, ...; the same at every run."""
    unit = rows["patient"].fillna(rows["clip"]).fillna(rows["id"])
    firsts = rows[~unit.duplicated()]
    turn = firsts.groupby(["source", firsts["device"].fillna("")]).cumcount()
    return firsts.assign(turn=turn).sort_values(["turn", "source", "id"]).head(_PER_ANATOMY)


def _sheet(corpus: Path, rows: pd.DataFrame) -> Markup:
    images = read_images(corpus, rows)
    return html.sheet(
        _thumbnail(row, image) for (_, row), image in zip(rows.iterrows(), images, strict=True)
    )


def _thumbnail(row: "pd.Series[Any]", image: Pixels) -> Markup:
    height, width = fit(image.shape[0], image.shape[1], _THUMBNAIL)
    small = np.ascontiguousarray(letterbox(image, _THUMBNAIL)[0][:height, :width])
    side = f"{row['split']}, left out" if row.get("withheld") else row.get("split")
    told = [side, row["label"], row["probe"] if row["probe"] != "unknown" else None, row["device"]]
    words = ", ".join(str(word) for word in told if pd.notna(word))
    mark = Markup(" ") + html.badge("synthetic") if row["synthetic"] else Markup("")
    kind = "Synthetic image" if row["synthetic"] else "Ultrasound image"
    caption = Markup("{}<br>{}{}").format(html.code(row["id"]), words, mark)
    return html.figure(encode_png(small), caption, f"{kind}: {row['anatomy']}")


def _alike(corpus: Path, rows: pd.DataFrame, alike: pd.DataFrame) -> Markup:
    if alike.empty:
        return html.paragraph("No two images of different patients or clips are near-identical.")
    mixed = contradictory_clusters(alike)
    counts = html.facts(
        {
            "clusters": alike["cluster"].nunique(),
            "images in them": len(alike),
            "with the same pixels": int(alike["exact"].sum()),
            "left out of training": int(alike["withheld"].sum()),
            "clusters of two labels": len(mixed),
        }
    )
    text = (
        f"Images of a cluster differ in at most {RADIUS} of 64 bits of their perceptual hash and {CONFIRM} of their "
        "difference hash. Where a cluster spans splits, training leaves out its training and validation images; its "
        "test images stay."
    )
    return (
        counts
        + html.paragraph(text)
        + Markup("").join(_clusters(corpus, rows, alike, set(mixed["cluster"])))
    )


def _clusters(
    corpus: Path, rows: pd.DataFrame, alike: pd.DataFrame, mixed: set[str]
) -> Iterator[Markup]:
    """The clusters that matter most: of two labels, then across splits, then the largest."""
    ranked = alike.assign(mixed=alike["cluster"].isin(mixed)).groupby("cluster", sort=True)
    order = ranked.agg(mixed=("mixed", "max"), leak=("withheld", "max"), size=("id", "size"))
    chosen = order.sort_values(["mixed", "leak", "size"], ascending=False, kind="stable").head(
        _CLUSTERS
    )
    for cluster, about in chosen.iterrows():
        members = alike[alike["cluster"] == cluster].head(_PER_SHEET)
        shown = rows[rows["id"].isin(members["id"])].merge(
            members[["id", "split", "withheld"]], on="id"
        )
        yield html.section(_title(about), _sheet(corpus, shown.sort_values("id")), 3)


def _title(about: "pd.Series[Any]") -> str:
    """What is special about a cluster."""
    told = [
        f"{about['size']} images",
        "of two labels" * about["mixed"],
        "across splits" * about["leak"],
    ]
    return " ".join(filter(None, told))


def _quarantine(quarantine: pd.DataFrame) -> Markup:
    if quarantine.empty:
        return html.paragraph("Every input was accepted.")
    counts = (
        quarantine.groupby(["source", "reason"], sort=True)["input"]
        .agg(["size", "first"])
        .reset_index()
    )
    counts = counts.sort_values("size", ascending=False, kind="stable")
    cells = [
        [str(source), str(reason), int(size), html.code(str(first))]
        for source, reason, size, first in counts.head(_REASONS).itertuples(index=False)
    ]
    caption = f"{len(quarantine):,} inputs were refused, for {len(counts):,} reasons."
    return html.table(["source", "reason", "inputs", "for example"], cells, caption)

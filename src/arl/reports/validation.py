"""The page of corpus validation."""

from pathlib import Path

import pandas as pd

from arl.corpus.checks.findings import Finding
from arl.corpus.manifest import read_manifest, read_quarantine
from arl.corpus.near_duplicates import contradictory_clusters
from arl.reports import html, tables
from arl.reports.elements import Badge, Code, Table
from arl.reports.stamp import RunStamp

_MAX_CLUSTERS = 100  # on the page
_COLUMNS = ["source", "batch", "site", "patient", "label", "mask", "synthetic"]
_BATCH_COLUMNS = [
    "source",
    "batch",
    "images",
    "patients",
    "sites",
    "labelled",
    "with mask",
    "data",
    "quarantined",
]


def write_page(
    corpus: Path,
    findings: list[Finding],
    near_duplicates: pd.DataFrame,
    stamp: RunStamp,
    folder: Path,
) -> None:
    """Write <folder>/index.html; `near_duplicates` comes from `duplicate_clusters`."""
    rows, refused = read_manifest(corpus, _COLUMNS), read_quarantine(corpus)
    html.write(
        folder / "index.html",
        "validation.html.j2",
        html.Head("Corpus validation", "Rules on the manifest, the splits and the shards.", stamp),
        verdict=tables.validation_verdict(findings),
        facts={
            "images": len(rows),
            "sources": rows["source"].nunique(),
            "known patients": rows["patient"].nunique(),
            "synthetic images": int(rows["synthetic"].sum()),
            "in quarantine": len(refused),
        },
        failed=tables.failed_rules(findings),
        rules=_rules(findings),
        cluster_facts=cluster_facts(near_duplicates),
        clusters=_clusters(near_duplicates),
        batches=_batches(rows, refused),
        quarantine=tables.quarantine(refused),
    )


def cluster_facts(near_duplicates: pd.DataFrame) -> dict[str, int] | None:
    """Counts of clusters of near-identical images; None if there are none."""
    if near_duplicates.empty:
        return None
    return {
        "clusters": near_duplicates["cluster"].nunique(),
        "images in them": len(near_duplicates),
        "with the same pixels": int(near_duplicates["exact"].sum()),
        "left out of training": int(near_duplicates["withheld"].sum()),
        "clusters of two labels": len(contradictory_clusters(near_duplicates)),
    }


def _clusters(near_duplicates: pd.DataFrame) -> Table | None:
    """The clusters that have members on two sides of a split, or of two labels."""
    if near_duplicates.empty:
        return None
    mixed = set(contradictory_clusters(near_duplicates)["cluster"])
    leaking = set(near_duplicates.loc[near_duplicates["withheld"], "cluster"])
    # A cluster on one side of the split with one label does no harm.
    relevant = near_duplicates[near_duplicates["cluster"].isin(mixed | leaking)]
    names = list(dict.fromkeys(relevant["cluster"]))[:_MAX_CLUSTERS]
    if not names:
        return None
    columns = ["cluster", "id", "label", "split", "exact", "withheld"]
    chosen = relevant.loc[relevant["cluster"].isin(names), columns].fillna(
        {"label": "–", "split": "–"}
    )
    cells = [
        [Code(str(cluster)), Code(str(image)), str(label), str(split), bool(exact), bool(withheld)]
        for cluster, image, label, split, exact, withheld in chosen.itertuples(index=False)
    ]
    return Table(
        ["cluster", "image", "label", "split", "same pixels", "left out"],
        cells,
        f"Clusters across splits or labels: {len(names)} of {relevant['cluster'].nunique()}.",
    )


def _rules(findings: list[Finding]) -> Table:
    rows = [
        [
            tables.rule_badge(finding),
            finding.severity,
            Code(finding.rule),
            finding.description,
            finding.failed,
            finding.checked,
        ]
        for finding in findings
    ]
    columns = ["outcome", "severity", "name", "rule", "failing", "checked"]
    return Table(columns, rows, name="All rules")


def _batches(rows: pd.DataFrame, refused: pd.DataFrame) -> Table:
    quarantined = refused.groupby(["source", "batch"]).size()
    cells = [
        [
            *map(str, names),
            len(part),
            int(part["patient"].nunique()),
            int(part["site"].nunique()),
            int(part["label"].notna().sum()),
            int(part["mask"].notna().sum()),
            Badge("synthetic") if part["synthetic"].all() else "real",
            int(quarantined.get(names, 0)),
        ]
        for names, part in rows.groupby(["source", "batch"], sort=True)
    ]
    return Table(_BATCH_COLUMNS, cells, name="Batches")

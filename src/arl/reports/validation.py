"""The page of corpus validation."""

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from arl.corpus.checks.validation import Finding
from arl.corpus.manifest import read_manifest, read_quarantine
from arl.corpus.near_duplicates import contradictory_clusters
from arl.reports import html

_MOST_CLUSTERS = 100  # on the page


_SHOWN = ["source", "batch", "site", "patient", "label", "mask", "synthetic"]


def _failed(findings: list[Finding], severity: str) -> int:
    return sum(finding.severity == severity and not finding.passed for finding in findings)


def write_page(corpus: Path, findings: list[Finding], found: pd.DataFrame, folder: Path) -> None:
    """Write <folder>/index.html; `found` are the near-identical images, see `near_duplicates.duplicate_clusters`."""
    rows, quarantine = read_manifest(corpus, _SHOWN), read_quarantine(corpus)
    body = (
        _verdict(findings)
        + html.facts(
            {
                "images": len(rows),
                "sources": rows["source"].nunique(),
                "patients known": rows["patient"].nunique(),
                "synthetic images": int(rows["synthetic"].sum()),
                "in quarantine": len(quarantine),
            }
        )
        + html.section("Rules that failed", _failures(findings))
        + html.section("All rules", _rules(findings))
        + html.section("Near-identical images", _clusters(found))
        + html.section("Batches", _batches(rows, quarantine))
        + html.section("Quarantine", _quarantine(quarantine))
    )
    page = html.page(
        "Corpus validation", body, subtitle="Rules on the manifest, the splits and the shards."
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _clusters(found: pd.DataFrame) -> Markup:
    """The clusters that have members on two sides of a split, or of two labels; the others are counted."""
    if found.empty:
        return html.paragraph("No two images of different patients or clips are near-identical.")
    mixed = set(contradictory_clusters(found)["cluster"])
    worth = found[found["cluster"].isin(mixed | set(found.loc[found["withheld"], "cluster"]))]
    shown = list(dict.fromkeys(worth["cluster"]))[:_MOST_CLUSTERS]
    counts = html.facts(
        {
            "clusters": found["cluster"].nunique(),
            "images in them": len(found),
            "with the same pixels": int(found["exact"].sum()),
            "left out of training": int(found["withheld"].sum()),
            "clusters of two labels": len(mixed),
        }
    )
    names = ["cluster", "id", "label", "split", "exact", "withheld"]
    cells = [
        [
            html.code(str(cluster)),
            html.code(str(identifier)),
            label,
            split,
            bool(exact),
            bool(withheld),
        ]
        for cluster, identifier, label, split, exact, withheld in worth.loc[
            worth["cluster"].isin(shown), names
        ]
        .fillna({"label": "–", "split": "–"})
        .itertuples(index=False)
    ]
    columns = ["cluster", "image", "label", "split", "same pixels", "left out"]
    caption = f"Clusters across splits or labels, {len(shown)} of {worth['cluster'].nunique()}."
    return counts + (html.table(columns, cells, caption) if cells else Markup(""))


def _verdict(findings: list[Finding]) -> Markup:
    critical, warning = _failed(findings, "critical"), _failed(findings, "warning")
    if critical:
        return html.verdict(
            "failed",
            f"{critical} of {len(findings)} rules are broken critically; training must wait.",
        )
    if warning:
        return html.verdict(
            "passed", f"No critical rule is broken; {_count(warning, 'warning')} to look at."
        )
    return html.verdict("passed", f"No critical rule and no warning among {len(findings)} rules.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _outcome(finding: Finding) -> Markup:
    return html.badge(
        "passed"
        if finding.passed
        else {"critical": "failed"}.get(finding.severity, finding.severity)
    )


def _failures(findings: list[Finding]) -> Markup:
    failed = [finding for finding in findings if not finding.passed]
    if not failed:
        return html.paragraph("None.")
    rows = [
        [
            _outcome(f),
            f.description,
            f.failed,
            f.checked,
            Markup(", ").join(html.code(e) for e in f.examples),
        ]
        for f in failed
    ]
    return html.table(["outcome", "rule", "failing", "checked", "for example"], rows)


def _rules(findings: list[Finding]) -> Markup:
    rows = [
        [_outcome(f), f.severity, html.code(f.rule), f.description, f.failed, f.checked]
        for f in findings
    ]
    return html.table(["outcome", "severity", "name", "rule", "failing", "checked"], rows)


def _batches(rows: pd.DataFrame, quarantine: pd.DataFrame) -> Markup:
    refused = quarantine.groupby(["source", "batch"]).size()
    columns = [
        "source",
        "batch",
        "images",
        "patients",
        "sites",
        "labelled",
        "with mask",
        "synthetic",
        "quarantined",
    ]
    cells = [
        [
            *key,
            len(part),
            int(part["patient"].nunique()),
            int(part["site"].nunique()),
            int(part["label"].notna().sum()),
            int(part["mask"].notna().sum()),
            bool(part["synthetic"].all()),
            int(refused.get(key, 0)),
        ]
        for key, part in rows.groupby(["source", "batch"], sort=True)
    ]
    return html.table(columns, cells)


def _quarantine(quarantine: pd.DataFrame) -> Markup:
    if quarantine.empty:
        return html.paragraph("Every input was accepted.")
    counts = quarantine.groupby(["source", "reason"], sort=True).size().reset_index(name="inputs")
    return html.table(["source", "reason", "inputs"], counts.to_numpy().tolist())

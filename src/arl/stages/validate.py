"""Hold the corpus against its rules before anything is trained on it."""

import dataclasses
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from arl import pages
from arl.data.manifest import corpus_version, read_manifest, read_quarantine
from arl.data.validation import SEVERITIES, Finding, validate_corpus
from arl.files import atomic_directory, write_json
from arl.params import Params


def validate(params: Params, *, corpus: Path, validation: Path) -> None:
    """Check the corpus against its rules; stop the pipeline where a critical one fails.

    Reads every manifest, split file and shard index of the corpus. Writes a folder with result.json (a list
    of rules with severity, counts and examples, and the version of the corpus) and index.html, also where a rule fails.

    Raises:
        ValueError: a critical rule fails; the message names the first one and the page.
    """
    findings = validate_corpus(corpus, params.data.splits)
    with atomic_directory(validation) as folder:
        write_json(folder / "result.json", {**_result(findings), "corpus_version": corpus_version(corpus)})
        (folder / "index.html").write_text(_page(corpus, findings), encoding="utf-8")
    broken = [finding for finding in findings if finding.severity == "critical" and not finding.passed]
    if broken:
        raise ValueError(_sentence(corpus, broken, validation))


def _sentence(corpus: Path, broken: list[Finding], validation: Path) -> str:
    first = broken[0]
    others = f" and {len(broken) - 1} more critical rules" if len(broken) > 1 else ""
    example = f", e.g. {first.examples[0]}" if first.examples else ""
    return (
        f"corpus {corpus} breaks rule {first.rule}{others}: {first.description}; "
        f"{first.failed} of {first.checked} do not{example}; see {validation / 'index.html'}"
    )


def _failed(findings: list[Finding], severity: str) -> int:
    return sum(finding.severity == severity and not finding.passed for finding in findings)


def _result(findings: list[Finding]) -> dict[str, object]:
    return {
        "passed": _failed(findings, "critical") == 0,
        "failed": {severity: _failed(findings, severity) for severity in SEVERITIES},
        "rules": [{**dataclasses.asdict(finding), "passed": finding.passed} for finding in findings],
    }


def _page(corpus: Path, findings: list[Finding]) -> str:
    rows, quarantine = read_manifest(corpus), read_quarantine(corpus)
    body = (
        _verdict(findings)
        + pages.facts(
            {
                "images": len(rows),
                "sources": rows["source"].nunique(),
                "patients known": rows["patient"].nunique(),
                "synthetic images": int(rows["synthetic"].sum()),
                "in quarantine": len(quarantine),
            }
        )
        + pages.section("Rules that failed", _failures(findings))
        + pages.section("All rules", _rules(findings))
        + pages.section("Batches", _batches(rows, quarantine))
        + pages.section("Quarantine", _quarantine(quarantine))
    )
    return pages.page("Corpus validation", body, subtitle="Rules on the manifest, the splits and the shards.")


def _verdict(findings: list[Finding]) -> Markup:
    critical, warning = _failed(findings, "critical"), _failed(findings, "warning")
    if critical:
        return pages.verdict(
            "failed", f"{critical} of {len(findings)} rules are broken critically; training must wait."
        )
    if warning:
        return pages.verdict("passed", f"No critical rule is broken; {_count(warning, 'warning')} to look at.")
    return pages.verdict("passed", f"No critical rule and no warning among {len(findings)} rules.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _outcome(finding: Finding) -> Markup:
    return pages.badge("passed" if finding.passed else {"critical": "failed"}.get(finding.severity, finding.severity))


def _failures(findings: list[Finding]) -> Markup:
    failed = [finding for finding in findings if not finding.passed]
    if not failed:
        return pages.paragraph("None.")
    rows = [
        [_outcome(f), f.description, f.failed, f.checked, Markup(", ").join(pages.code(e) for e in f.examples)]
        for f in failed
    ]
    return pages.table(["outcome", "rule", "failing", "checked", "for example"], rows)


def _rules(findings: list[Finding]) -> Markup:
    rows = [[_outcome(f), f.severity, pages.code(f.rule), f.description, f.failed, f.checked] for f in findings]
    return pages.table(["outcome", "severity", "name", "rule", "failing", "checked"], rows)


def _batches(rows: pd.DataFrame, quarantine: pd.DataFrame) -> Markup:
    refused = quarantine.groupby(["source", "batch"]).size()
    columns = ["source", "batch", "images", "patients", "sites", "labelled", "with mask", "synthetic", "quarantined"]
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
    return pages.table(columns, cells)


def _quarantine(quarantine: pd.DataFrame) -> Markup:
    if quarantine.empty:
        return pages.paragraph("Every input was accepted.")
    counts = quarantine.groupby(["source", "reason"], sort=True).size().reset_index(name="inputs")
    return pages.table(["source", "reason", "inputs"], counts.to_numpy().tolist())

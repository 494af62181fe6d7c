"""Tables that several pages show."""

import pandas as pd

from arl.corpus.checks.findings import Finding
from arl.reports.elements import Badge, Code, Codes, Table
from arl.reports.formatting import plural

_MAX_REASONS = 30


def image_counts(rows: pd.DataFrame, keys: list[str]) -> Table:
    """Images, patients and labels of each combination of the columns `keys`."""
    columns = [*keys, "images", "patients", "clips", "labelled", "with mask", "data"]
    # groupby drops rows whose key is missing.
    named = rows.assign(**{key: rows[key].fillna("unknown") for key in keys})
    cells = [
        [
            *map(str, names),
            len(part),
            int(part["patient"].nunique()),
            int(part["clip"].nunique()),
            int(part["label"].notna().sum()),
            int(part["mask"].notna().sum()),
            Badge("synthetic") if part["synthetic"].all() else "real",
        ]
        for names, part in named.groupby(keys, sort=True)
    ]
    return Table(columns, cells, name=f"Images by {', '.join(keys)}")


def quarantine(refused: pd.DataFrame) -> Table | None:
    """Reasons for which inputs were refused, the most frequent first; None if there are none."""
    if refused.empty:
        return None
    # One example for each reason: a thousand equal rows help nobody.
    by_reason = refused.groupby(["source", "reason"], sort=True)["input"].agg(["size", "first"])
    ranked = by_reason.reset_index().sort_values("size", ascending=False, kind="stable")
    cells = [
        [str(source), str(reason), int(size), Code(str(first))]
        for source, reason, size, first in ranked.head(_MAX_REASONS).itertuples(index=False)
    ]
    caption = f"Refused: {plural(len(refused), 'input')}, {plural(len(ranked), 'reason')}."
    if len(ranked) > _MAX_REASONS:
        caption += f" The table has the {_MAX_REASONS} most frequent ones."
    return Table(["source", "reason", "inputs", "for example"], cells, caption)


def failed_rules(findings: list[Finding]) -> Table | None:
    """The rules that the corpus breaks; None if it breaks none."""
    cells = [
        [
            rule_badge(finding),
            finding.description,
            finding.failed,
            finding.checked,
            Codes(finding.examples),
        ]
        for finding in findings
        if not finding.passed
    ]
    columns = ["outcome", "rule", "failing", "checked", "for example"]
    return Table(columns, cells, name="Rules that failed") if cells else None


def rule_badge(finding: Finding) -> Badge:
    if finding.passed:
        return Badge("passed")
    return Badge("failed" if finding.severity == "critical" else finding.severity)


def validation_verdict(findings: list[Finding]) -> tuple[str, str, str]:
    """A word, a sentence and what to do next, for a list of findings."""
    failed = [finding for finding in findings if not finding.passed]
    critical = sum(finding.severity == "critical" for finding in failed)
    warnings = sum(finding.severity == "warning" for finding in failed)
    if critical:
        return (
            "failed",
            f"The corpus breaks {critical} of {len(findings)} rules critically. Training is"
            " blocked.",
            "Correct or remove the rows that the table names, ingest the batch again, and run"
            " `arl validate`.",
        )
    if warnings:
        return (
            "passed",
            f"The corpus breaks no critical rule. {warnings} of {len(findings)} rules give a"
            " warning.",
            "Read the warnings below. They do not block training.",
        )
    return "passed", f"The corpus keeps all {len(findings)} rules.", ""

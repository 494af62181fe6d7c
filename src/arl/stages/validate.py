"""Hold the corpus against its rules before anything is trained on it."""

from pathlib import Path

import pandas as pd

from arl import console
from arl.corpus.checks.findings import SEVERITIES, Finding, examples
from arl.corpus.checks.invariants import check_corpus
from arl.corpus.checks.result import ValidationResult
from arl.corpus.location import FullCorpus
from arl.corpus.manifest import corpus_version
from arl.corpus.near_duplicates import contradictory_clusters, duplicate_clusters
from arl.corpus.splits import with_splits
from arl.files import atomic_directory
from arl.params import Params
from arl.reports import validation as validation_page
from arl.reports.stamp import Stopwatch

_FACTS = [
    "id",
    "source",
    "patient",
    "clip",
    "label",
    "pixel_sha256",
    "perceptual_hash",
    "difference_hash",
    "detail_hash",
]


def validate(params: Params, *, corpus: FullCorpus, validation: Path) -> None:
    """Check the corpus against its rules. A broken critical rule is an error.

    Reads every manifest, split file and shard index. Writes result.json (the rules with severity,
    counts and examples, and the version of the corpus), withheld.parquet (near-identical images,
    and
    which of them training leaves out) and index.html, also if a rule is broken.

    Args:
        corpus: Folder of the corpus, or s3://bucket/prefix.
        validation: Folder of the results.

    Raises:
        ValueError: a critical rule fails; the message names the first one and the page.

    Writes:
        validation

    Next:
        arl pretrain --corpus {corpus} --checkpoint out/pretrain --metrics out/pretrain.json

    Examples:
        arl validate --corpus data --validation out/validation
    """
    watch = Stopwatch("arl validate")
    duplicates = duplicate_clusters(with_splits(corpus, _FACTS, params.data.splits))
    findings = check_corpus(
        corpus, params.data.splits, duplicates[duplicates["withheld"]]
    ) + _leak_findings(duplicates)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    result = ValidationResult(corpus_version(corpus), findings)
    with atomic_directory(validation) as folder:
        # The result and the page are written although a rule is broken: they say which images to
        # look at.
        result.write(folder / ValidationResult.FILE)
        duplicates.to_parquet(folder / "withheld.parquet", index=False)
        validation_page.write_page(corpus, findings, duplicates, watch.stamp(corpus), folder)
    broken = result.failed("critical")
    warnings = sum(not finding.passed for finding in findings) - len(broken)
    console.info(
        f"{len(findings)} rules checked: {len(broken)} critical and {warnings} others broken."
    )
    if broken:
        raise ValueError(_sentence(corpus, broken, validation))


def _leak_findings(duplicates: pd.DataFrame) -> list[Finding]:
    """Near-identical images: what training leaves out, and labels that contradict each other."""
    withheld, mixed = (
        duplicates.loc[duplicates["withheld"], "id"],
        contradictory_clusters(duplicates)["cluster"],
    )
    apart = "near-identical images are in one split only (else training leaves the others out)"
    text = "near-identical images have one label"
    return [
        Finding("near-split", "warning", apart, len(duplicates), len(withheld), examples(withheld)),
        Finding(
            "near-label",
            "warning",
            text,
            duplicates["cluster"].nunique(),
            len(mixed),
            examples(mixed),
        ),
    ]


def _sentence(corpus: Path, broken: list[Finding], validation: Path) -> str:
    first = broken[0]
    others = f" and {len(broken) - 1} more critical rules" if len(broken) > 1 else ""
    example = f", e.g. {first.examples[0]}" if first.examples else ""
    return (
        f"corpus {corpus} breaks rule {first.rule}{others}: {first.description}; "
        f"{first.failed} of {first.checked} do not{example}; see {validation / 'index.html'}"
    )

"""What Kubeflow's pages show of a validated corpus; only the data image can check one."""

from pathlib import Path

from arl.corpus.checks.result import ValidationResult
from arl.launch.artifacts import Artifact, write_facts


def describe_dataset(dataset: Artifact, validation: str, corpus: str, data_hash: str) -> str:
    """Write the Dataset artifact of a validated corpus; returns the version of the data.

    Args:
        dataset: gets version, location and counts as metadata, and a JSON file of the same.
        validation: the folder of `arl validate`.
        corpus: its address.
        data_hash: of data.dvc; empty for a corpus that DVC does not track.
    """
    result = ValidationResult.read(Path(validation) / ValidationResult.FILE)
    version = "-".join(filter(None, [data_hash, result.corpus_version]))
    facts = {
        "version": version,
        "corpus_version": result.corpus_version,
        "dvc_hash": data_hash,
        "location": corpus,
        "accepted": result.passed,
        "critical_rules_failed": len(result.failed("critical")),
        "warnings": len(result.failed("warning")),
        **_counts(corpus),
    }
    dataset.metadata.update(facts)
    write_facts(dataset.path, facts)
    return version


def _counts(corpus: str) -> dict[str, int]:
    """Batches, images, patients and sources of a corpus in a folder; nothing for one in S3."""
    if "://" in corpus:
        return {}
    from arl.corpus.manifest import batch_folders, read_manifest

    rows = read_manifest(Path(corpus), ["source", "patient", "synthetic"])
    return {
        "batches": len(list(batch_folders(Path(corpus)))),
        "images": len(rows),
        "patients": int(rows["patient"].nunique()),
        "sources": int(rows["source"].nunique()),
        "synthetic_images": int(rows["synthetic"].sum()),
    }


def require_accepted(validation: str) -> None:
    """Raise where a corpus breaks a critical rule.

    Raises:
        ValueError: the message names the broken rules.
    """
    result = ValidationResult.read(Path(validation) / ValidationResult.FILE)
    if result.passed:
        return
    broken = result.failed("critical")
    lines = [f"{r.rule}: {r.failed} of {r.checked}, {r.description}" for r in broken]
    raise ValueError(
        "the corpus breaks critical rules, so nothing is trained; the page of the step validate "
        "shows examples: " + "; ".join(lines)
    )

"""Show which releases saw a patient, an image or a batch, and what a release was trained on."""

from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import select
from arl.corpus.testsets import read_versions
from arl.monitoring.journal import Journal
from arl.monitoring.lineage import Lineage, trace
from arl.params import Params
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment

_MAX_LISTED = 20


def lineage(
    params: Params,
    name: str,
    *,
    corpus: ReadableCorpus = Path("data"),
    registry: str = "registry",
    monitor: Path = Path("monitor"),
) -> None:
    """Show which releases saw a patient, an image or a batch, and what a release was trained on.

    A release saw the training and validation images of the batches that the corpus had at its
    training. The log of the loop keeps these batches. Releases of which the log says nothing are
    listed as unknown.

    Args:
        name: A patient as source:patient, an image id, a batch as source/batch, or a release.
        corpus: Folder of the corpus, or s3://bucket/prefix.
        registry: The registry, a folder or s3://bucket/prefix.
        monitor: Folder of the loop's state and log.

    Raises:
        ValueError: nothing has this name.

    Examples:
        arl lineage dicom-folder/0001
    """
    rows = select(corpus, sources=[], protocols=params.data.splits)
    rows = rows.assign(in_batch=rows["source"] + "/" + rows["batch"])
    store = Registry(registry, keys_from_environment(params.release.signed))
    test_sets = [one for task in sorted(params.task) for one in read_versions(corpus, task)]
    entries = Journal(monitor).entries()
    result = trace(name, rows, entries, store.versions(), test_sets)
    print("\n".join(_lines(result, store.champion())))


def _lines(result: Lineage, champion: str | None) -> list[str]:
    """One fact a line."""
    rows = result.rows
    lines = [
        f"{result.kind} {result.name}: {len(rows):,} images of"
        f" {rows['patient'].nunique(dropna=True):,} patients"
    ]
    for batch, part in rows.groupby("in_batch", sort=True):
        splits = part["split"].fillna("no split").value_counts().sort_index()
        counts = ", ".join(f"{count:,} in {split}" for split, count in splits.items())
        lines.append(f"batch {batch}: {counts}")
    if result.kind in ("patient", "image"):
        lines += [f"image {image}" for image in sorted(rows["id"])[:_MAX_LISTED]]
    lines += [f"test set {test_set}" for test_set in result.test_sets]
    for entry in result.entries:
        lines.append(f"log {entry.sequence}, {entry.at}: {entry.label}, run {entry.run}")
    for release in result.releases:
        state = " (champion)" if release.version == champion else ""
        seen = release.rows["id"].isin(rows["id"])
        count = "unknown" if release.batches is None else len(release.batches)
        lines.append(
            f"release {release.version}{state}: saw {int(seen.sum()):,} of these images,"
            f" trained on {count} batches"
        )
    if not result.releases:
        lines.append("no release saw these images")
    # Silence would read as "not trained on".
    lines += [f"release {version}: the log does not say" for version in result.unknown]
    return lines

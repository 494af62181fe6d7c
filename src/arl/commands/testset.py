"""Freeze, extend, renew and list the test sets of the release gate."""

# ruff: noqa: PT028  the name begins like a test's

from pathlib import Path
from typing import Literal

import pandas as pd

from arl.corpus.location import TestSetCorpus
from arl.corpus.manifest import read_manifest
from arl.corpus.selection import select
from arl.corpus.splits import groups
from arl.corpus.testsets import (
    CONTENT_COLUMNS,
    FrozenImage,
    TestSet,
    content_of,
    freeze,
    read_versions,
    renew,
    write_version,
)
from arl.params import Params
from arl.settings import Task
from arl.tasks.make import make_kind


def testset(
    params: Params,
    action: Literal["add", "renew", "list"],
    *,
    corpus: TestSetCorpus = Path("data"),
    task: str = "",
    by: str = "",
    reason: str = "",
    batches: list[str] = [],  # noqa: B006  the command line reads the default
) -> None:
    """Freeze, extend, renew or list the test sets of the release gate.

    A test set is a list of images that never changes; each change is a new version with a name and
    a reason. `add` freezes the images whose split is "test", keeps those of the version before, and
    leaves out images that are gone. `renew` starts again with patients who were in no version
    before, which resets the counter of decisions. Both leave out patients in training or
    validation. The files lie in CORPUS/testsets: `dvc add` the corpus
    afterwards.

    Args:
        action: add, renew or list.
        corpus: Folder of the corpus, or s3://bucket/prefix.
        task: Task of the test set. `list` without it shows all.
        by: Person who answers for the version.
        reason: Why the version is made.
        batches: Take images of these batches only, as source/batch.

    Raises:
        ValueError: no task, name or reason, or no image.

    Next:
        arl testset list --corpus {corpus}

    Examples:
        arl testset add --task breast --by "A. Reader" --reason "First test set, 2026"
        arl testset list
    """
    if action == "list":
        for name in [task] if task else sorted(params.task):
            _print_versions(name, read_versions(corpus, name))
        return
    if not task:
        raise ValueError(f"arl testset {action} needs --task: one of {', '.join(params.task)}")
    versions = read_versions(corpus, task)
    images = content_of(_candidates(corpus, params.task[task], params.data.splits, batches))
    if action == "add":
        version = _add(corpus, task, images, by, reason, versions)
    else:
        version = _renew(task, images, by, reason, versions)
    write_version(corpus, version)
    _print_versions(task, [version])


def _candidates(
    corpus: Path, task: Task, protocols: dict[str, str], batches: list[str]
) -> pd.DataFrame:
    """The task's rows in the split "test", without those of patients in training or validation."""
    rows = select(corpus, sources=task.sources, protocols=protocols)
    # A patient who was trained on makes the test set too easy, whatever the split file says.
    seen = set(groups(rows[rows["split"].isin(["train", "val"])]))
    rows = rows[(rows["anatomy"] == task.anatomy) & (rows["split"] == "test")]
    rows = make_kind(task).select(rows)
    if batches:
        rows = rows[(rows["source"] + "/" + rows["batch"]).isin(batches)]
    return rows[~groups(rows).isin(seen)]


def _add(
    corpus: Path,
    task: str,
    images: dict[str, FrozenImage],
    by: str,
    reason: str,
    versions: list[TestSet],
) -> TestSet:
    before = versions[-1] if versions else None
    if before is not None:
        # A re-ingested image with other pixels is another image and leaves the set.
        present = content_of(read_manifest(corpus, CONTENT_COLUMNS))
        kept = {name: image for name, image in before.images.items() if present.get(name) == image}
        images = images | kept
        if images == before.images:
            raise ValueError(f"test set {before.name} has all of these images already")
    return freeze(task, images, by, reason, before)


def _renew(
    task: str, images: dict[str, FrozenImage], by: str, reason: str, versions: list[TestSet]
) -> TestSet:
    before = set[str]().union(*(version.patients for version in versions))
    fresh = {name: image for name, image in images.items() if image.patient not in before}
    if not fresh:
        raise ValueError(
            f"the corpus has no image for a new test set of {task}: no patient of the split"
            ' "test" is outside of the earlier versions. Ingest new patients first'
        )
    return renew(task, fresh, by, reason, versions)


def _print_versions(task: str, versions: list[TestSet]) -> None:
    if not versions:
        print(f"{task}: not frozen")
    for version in versions:
        print(
            f"{version.name}: {len(version.images):,} images of {len(version.patients):,} patients,"
            f" {version.created}, {version.by}: {version.reason}"
        )

"""Frozen test sets of the release gate.

    <corpus>/testsets/<task>/0001.json, 0002.json, ...    the newest version is in use

A version lists images by id and content and never changes. Images enter it only by `arl testset`,
with a name and a reason, so that no sender of data decides what a model is judged on. The files lie
in the corpus folder, and DVC versions both together.

Versions of one series share their counter of gate decisions. Only `renew` starts a new series, with
patients who were in no version before.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pandas as pd

from arl.corpus.splits import groups
from arl.documents import Document, DocumentError

FOLDER = "testsets"
CONTENT_COLUMNS = ["id", "patient", "clip", "pixel_sha256", "label", "mask"]
_FILE_NAME = re.compile(r"\d{4,}\.json")
_DIGITS = 4
_SERIES_DIGITS = 16


@dataclass(frozen=True)
class FrozenImage:
    """One image of a test set."""

    # The patient, else the clip, else the image.
    patient: str
    # Hash of its pixels, label and mask.
    content: str


@dataclass(frozen=True)
class TestSet(Document):
    """One version of the test set of a task."""

    # Not a test case of pytest.
    __test__: ClassVar[bool] = False
    FORMAT: ClassVar[str] = "arl.testset"
    VERSION: ClassVar[int] = 1

    task: str
    # of the version, from 1.
    number: int
    # Versions of one series share the counter of decisions.
    series: str
    # The person who answers for this version.
    by: str
    reason: str
    # UTC, ISO 8601.
    created: str
    # id -> image.
    images: Mapping[str, FrozenImage]

    @property
    def patients(self) -> set[str]:
        """The patients, or clips or images where a source knows none."""
        return {image.patient for image in self.images.values()}

    @property
    def name(self) -> str:
        """For people, e.g. "breast, version 2"."""
        return f"{self.task}, version {self.number}"


def content_of(rows: pd.DataFrame) -> dict[str, FrozenImage]:
    """The frozen images of manifest rows with `CONTENT_COLUMNS`."""
    contents = rows["pixel_sha256"] + "/" + rows["label"].fillna("") + "/" + rows["mask"].fillna("")
    return {
        str(name): FrozenImage(str(patient), hashlib.sha256(content.encode()).hexdigest())
        for name, patient, content in zip(rows["id"], groups(rows), contents, strict=True)
    }


def series_of(images: Mapping[str, FrozenImage]) -> str:
    """The name of a series that begins with these images."""
    lines = "".join(f"{name}\0{image.content}\n" for name, image in sorted(images.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:_SERIES_DIGITS]


def read_versions(corpus: Path, task: str) -> list[TestSet]:
    """All versions of a task's test set, oldest first; empty where it was never frozen.

    Raises:
        DocumentError: A file is damaged, or a version is missing.
    """
    folder = corpus / FOLDER / task
    files = sorted(file for file in folder.glob("*.json") if _FILE_NAME.fullmatch(file.name))
    versions = [TestSet.read(file) for file in files]
    for number, (file, version) in enumerate(zip(files, versions, strict=True), start=1):
        if (version.task, version.number, int(file.stem)) != (task, number, number):
            raise DocumentError(
                f"{file} is not version {number} of the test set of {task}: restore the folder"
                " with `dvc checkout`"
            )
    return versions


def read_test_set(corpus: Path, task: str) -> TestSet | None:
    """The version in use; None where the test set was never frozen.

    Raises:
        DocumentError: See `read_versions`.
    """
    versions = read_versions(corpus, task)
    return versions[-1] if versions else None


def read_test_sets(corpus: Path) -> list[TestSet]:
    """The versions in use of all tasks.

    Raises:
        DocumentError: See `read_versions`.
    """
    tasks = sorted(folder.name for folder in (corpus / FOLDER).glob("[!.]*") if folder.is_dir())
    test_sets = (read_test_set(corpus, task) for task in tasks)
    return [test_set for test_set in test_sets if test_set is not None]


def write_version(corpus: Path, test_set: TestSet) -> Path:
    """Write a version.

    Raises:
        FileExistsError: The version is there, by another process.
    """
    file = corpus / FOLDER / test_set.task / f"{test_set.number:0{_DIGITS}}.json"
    if file.exists():
        raise FileExistsError(f"{file} exists: another process has added version {test_set.number}")
    test_set.write(file)
    return file


def freeze(
    task: str, images: Mapping[str, FrozenImage], by: str, reason: str, after: TestSet | None = None
) -> TestSet:
    """The version of a test set after another, in its series; without one the first version.

    Raises:
        ValueError: There is no image, no name or no reason.
    """
    if not images:
        raise ValueError(f"the test set of {task} would have no image")
    for value, what in ((by, "a name"), (reason, "a reason")):
        if not value.strip():
            raise ValueError(f"a version of a test set needs {what}")
    return TestSet(
        task=task,
        number=after.number + 1 if after else 1,
        series=after.series if after else series_of(images),
        by=by.strip(),
        reason=reason.strip(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        images=dict(sorted(images.items())),
    )


def renew(
    task: str, images: Mapping[str, FrozenImage], by: str, reason: str, versions: list[TestSet]
) -> TestSet:
    """The first version of a new series, of patients who were in no version before.

    Raises:
        ValueError: A patient was in a version before, or see `freeze`.
    """
    before = set[str]().union(*(version.patients for version in versions))
    again = {image.patient for image in images.values()} & before
    if again:
        raise ValueError(
            f"{len(again)} patients of the new test set of {task} were in an earlier version"
        )
    version = freeze(task, images, by, reason, versions[-1] if versions else None)
    return replace(version, series=series_of(images))


def guard(rows: pd.DataFrame, test_sets: list[TestSet], withheld: str) -> "pd.Series[str]":
    """The split of every row of `rows` (with `split`), so that no test patient is trained on.

    An image of a test set is in the split "test". Other images of its patients leave the splits
    "train" and "val" and are `withheld`.
    """
    images = {name for test_set in test_sets for name in test_set.images}
    patients = set[str]().union(*(test_set.patients for test_set in test_sets))
    frozen = rows["id"].isin(images)
    related = groups(rows).isin(patients) & rows["split"].isin(["train", "val"])
    return rows["split"].mask(related, withheld).mask(frozen, "test")


def check_frozen(test_set: TestSet, rows: pd.DataFrame) -> None:
    """Compare a test set with the manifest rows of its images.

    Raises:
        ValueError: An image is missing or has another content.
    """
    present = content_of(rows[rows["id"].isin(test_set.images)])
    differing = [name for name, image in test_set.images.items() if present.get(name) != image]
    if differing:
        raise ValueError(
            f"test set {test_set.name}: {len(differing)} of {len(test_set.images)} images are"
            f" missing or changed, e.g. {differing[0]}: `arl testset add {test_set.task}` makes"
            " a version without them"
        )

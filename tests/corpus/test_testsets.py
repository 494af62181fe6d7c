"""Frozen test sets: what is in them, who says so, and what leaves training for them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from arl.corpus.manifest import read_manifest
from arl.corpus.selection import select, task_rows
from arl.corpus.splits import groups
from arl.corpus.testsets import (
    TestSet,
    content_of,
    freeze,
    read_test_set,
    read_test_sets,
    read_versions,
    renew,
    series_of,
    write_version,
)
from arl.documents import DocumentError
from arl.tasks.classification import Classification

BREAST = {
    "sources": [],
    "anatomy": "breast",
    "choose": Classification(("benign", "malignant")).select,
    "description": "a class",
    "protocols": {},
}


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_corpus, tmp_path / "data"))


def frozen(corpus: Path, count: int | None = None) -> TestSet:
    rows = task_rows(corpus, **BREAST)
    return freeze("breast", content_of(rows[rows["split"] == "test"][:count]), "A", "first")


def test_a_version_is_read_back_and_the_newest_is_in_use(corpus: Path) -> None:
    first = frozen(corpus, 4)
    write_version(corpus, first)
    second = freeze("breast", frozen(corpus).images, "B", "all", first)
    write_version(corpus, second)
    assert read_versions(corpus, "breast") == [first, second]
    assert read_test_set(corpus, "breast") == second
    assert read_test_sets(corpus) == [second]
    assert (first.number, second.number) == (1, 2)
    assert first.series == second.series == series_of(first.images)
    with pytest.raises(FileExistsError, match="another process has added version 2"):
        write_version(corpus, second)


def test_the_images_are_the_test_split_and_all_others_of_it_are_withheld(corpus: Path) -> None:
    version = frozen(corpus, 4)
    write_version(corpus, version)
    rows = task_rows(corpus, **BREAST, test_set=version)
    assert set(rows.loc[rows["split"] == "test", "id"]) == set(version.images)
    assert (rows["split"] == "withheld").sum() == len(frozen(corpus).images) - 4


def test_test_patients_leave_training(corpus: Path) -> None:
    rows = select(corpus, sources=[], protocols={})
    train = rows[(rows["split"] == "train") & (rows["anatomy"] == "breast")][:1]
    write_version(corpus, freeze("breast", content_of(train), "A", "a training image"))
    after = select(corpus, sources=[], protocols={}).set_index("id")["split"]
    patient = groups(train).iloc[0]
    of_patient = rows[groups(rows) == patient]
    assert after[train["id"].iloc[0]] == "test"
    assert not set(after[of_patient["id"]]) & {"train", "val"}
    others = rows[groups(rows) != patient].set_index("id")["split"]
    assert (after[others.index] == others).all()


def test_a_changed_or_missing_image_is_noticed(corpus: Path) -> None:
    version = frozen(corpus)
    name, image = next(iter(version.images.items()))
    for images in (
        {**version.images, name: replace(image, content="other")},
        {**version.images, "clinic:gone": image},
    ):
        with pytest.raises(ValueError, match=r"1 of .* images are missing or changed"):
            task_rows(corpus, **BREAST, test_set=replace(version, images=images))


def test_the_content_has_pixels_label_and_mask(corpus: Path) -> None:
    rows = read_manifest(corpus)
    same = content_of(rows)
    assert content_of(rows) == same
    for column in ("pixel_sha256", "label", "mask"):
        other = content_of(rows.assign(**{column: "x"}))
        assert other != same
        assert other.keys() == same.keys()


def test_a_renewed_test_set_has_new_patients_and_a_new_series(corpus: Path) -> None:
    images = frozen(corpus).images
    first = freeze("breast", dict(list(images.items())[:3]), "A", "first")
    new = renew("breast", dict(list(images.items())[3:]), "A", "used up", [first])
    assert new.number == 2
    assert new.series != first.series
    assert not new.patients & first.patients
    with pytest.raises(ValueError, match=r"3 patients .* were in an earlier version"):
        renew("breast", images, "A", "again", [first])


def test_a_version_needs_images_a_name_and_a_reason(corpus: Path) -> None:
    images = frozen(corpus).images
    for arguments, words in (
        (({}, "A", "why"), "no image"),
        ((images, " ", "why"), "a name"),
        ((images, "A", ""), "a reason"),
    ):
        with pytest.raises(ValueError, match=words):
            freeze("breast", *arguments)


def test_damaged_files_are_refused(corpus: Path) -> None:
    file = write_version(corpus, frozen(corpus))
    content = json.loads(file.read_text())
    for text in (
        "",
        file.read_text()[:-40],
        json.dumps({**content, "number": 2}),
        json.dumps({**content, "task": "lung"}),
        json.dumps({**content, "format": "arl.testset/9"}),
    ):
        file.write_text(text)
        with pytest.raises(DocumentError):
            read_test_set(corpus, "breast")
    file.write_text(json.dumps(content))
    file.rename(file.with_name("0002.json"))
    with pytest.raises(DocumentError, match="is not version 1"):
        read_test_set(corpus, "breast")

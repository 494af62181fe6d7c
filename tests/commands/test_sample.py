"""The sample corpus: the same bytes for any number of workers, complete and balanced."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from arl.commands.sample import sample
from arl.corpus.anatomy import ANATOMIES
from arl.corpus.manifest import read_manifest, read_quarantine
from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.splits import read_split
from arl.files import tree_hash
from arl.params import Params, load
from arl.phantoms.examination import LABELS

ROOT = Path(__file__).parent.parent.parent
SOURCES = ["phantom-a", "phantom-b", "pydicom-data"]


def tiny(workers: int = 2) -> Params:
    words = [
        "sample.images_per_anatomy=2",
        "sample.images_per_task=14",
        "sample.size=48",
        "data.store_size=96",
    ]
    return load([*words, f"data.workers={workers}"], ROOT / "params.yaml")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("sample") / "data"
    sample(tiny(), corpus=corpus)
    return corpus


@pytest.fixture(scope="module")
def rows(corpus: Path) -> pd.DataFrame:
    return read_manifest(corpus)


def test_a_second_run_gives_the_same_bytes_and_keeps_other_sources(corpus: Path, tmp_path: Path):
    copy = tmp_path / "data"
    shutil.copytree(corpus, copy)
    other = copy / "hospital" / "0000" / "note.txt"
    other.parent.mkdir(parents=True)
    other.write_text("not ours")
    (copy / "phantom-a" / "left-over").mkdir()
    sample(tiny(workers=0), corpus=copy)
    assert other.read_text() == "not ours"
    assert sorted(folder.name for folder in copy.iterdir()) == ["hospital", *SOURCES]
    for source in SOURCES:
        assert tree_hash(copy / source) == tree_hash(corpus / source)


def test_batches_and_marks(rows: pd.DataFrame):
    assert set(zip(rows["source"], rows["batch"], strict=True)) == {
        ("phantom-a", "0000"),
        ("phantom-b", "0000"),
        ("phantom-b", "0001"),
        ("pydicom-data", "0000"),
    }
    phantom = rows["source"].str.startswith("phantom")
    assert rows["synthetic"].eq(phantom).all()
    assert rows.loc[phantom, "device"].str.startswith("Phantom").all()
    assert rows["site"].eq(rows["source"]).all()
    for _, part in rows[phantom].groupby(["source", "batch"]):
        assert set(part["anatomy"]) == set(ANATOMIES)
    assert set(rows.loc[phantom, "probe"]) == {"linear", "convex", "sector"}


def test_real_files_came_through_the_dicom_path(corpus: Path, rows: pd.DataFrame):
    real = rows[rows["source"] == "pydicom-data"]
    assert len(real) == 126
    assert real["label"].isna().all()
    assert read_quarantine(corpus).empty


def test_labels_are_those_of_the_tasks(rows: pd.DataFrame):
    for anatomy, labels in LABELS.items():
        found = rows.loc[(rows["anatomy"] == anatomy) & rows["synthetic"], "label"].dropna()
        assert found.value_counts().reindex(labels).min() >= 2
        assert set(found) == set(labels)
    assert set(rows.loc[rows["label"].notna(), "anatomy"]) == set(LABELS)
    for file in sorted((ROOT / "conf" / "task").glob("*.yaml")):
        task = OmegaConf.load(file)
        if task.kind == "classification":
            assert tuple(task.classes) == LABELS[task.anatomy]
        else:
            assert set(rows.loc[(rows["anatomy"] == task.anatomy) & rows["synthetic"], "mask"]) == {
                task.mask
            }


def test_patients_have_a_few_images_one_finding_and_one_split(corpus: Path, rows: pd.DataFrame):
    phantoms = rows[rows["synthetic"]].assign(split=read_split(corpus, rows, {}))
    patients = phantoms.groupby("patient")
    assert set(patients.size()) <= {1, 2, 3}
    assert patients.size().max() > 1
    assert patients["split"].nunique().max() == 1
    assert patients["depth_cm"].nunique().max() == 1
    findings = phantoms[phantoms["anatomy"] != "cardiac"].groupby("patient")["label"].nunique()
    assert findings.max() == 1
    assert (
        phantoms[phantoms["anatomy"] == "cardiac"].groupby("patient")["label"].nunique().max() > 1
    )
    for _, part in phantoms[phantoms["anatomy"] == "breast"].groupby("label"):
        assert set(part["split"]) == {"train", "val", "test"}


def test_pixels_and_masks_agree_with_the_manifest(corpus: Path, rows: pd.DataFrame):
    part = rows[rows["synthetic"]].groupby("anatomy").head(2)
    for (_, row), image, mask in zip(
        part.iterrows(), read_images(corpus, part), read_masks(corpus, part), strict=True
    ):
        assert image.shape == (row["height"], row["width"])
        assert max(image.shape) <= 96
        assert row["original_height"] == 48
        assert (mask is None) == (row["mask"] is None or pd.isna(row["mask"]))
        if mask is not None:
            assert mask.shape == image.shape
            assert mask.any()


@pytest.mark.parametrize(
    "change", [{"images_per_anatomy": -1}, {"images_per_task": -3}, {"size": 8}]
)
def test_impossible_parameters_are_refused_before_anything_is_removed(
    change: dict[str, int], tmp_path: Path
):
    params = tiny()
    kept = tmp_path / "phantom-a" / "kept.txt"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(ValueError, match="must not be negative, and size must be 32"):
        sample(replace(params, sample=replace(params.sample, **change)), corpus=tmp_path)
    assert kept.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["phantom-a"]

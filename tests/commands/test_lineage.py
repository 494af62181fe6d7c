"""`arl lineage`: from a patient, an image or a batch to releases, and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from arl.cli import main
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.manifest import read_manifest
from arl.corpus.shard_writer import BatchWriter
from arl.monitoring.journal import BatchDecision, Journal
from arl.storage.metadata import Provenance
from arl.storage.registry import Registry

ROOT = Path(__file__).parents[2]


def write_batch(corpus: Path, batch: str, patients: dict[str, str]) -> None:
    """Two images of each patient, in the split that the patient names."""
    rng = np.random.default_rng(int(batch))
    origin = BatchOrigin(licence="none", citation="tests")
    with BatchWriter(corpus, "clinic", batch, 64, origin=origin) as writer:
        for patient, split in patients.items():
            for image in range(2):
                writer.accept(
                    rng.integers(0, 255, (40, 48), dtype=np.uint8),
                    key=f"{patient}-{image}",
                    anatomy="breast",
                    patient=patient,
                    splits={"default": split},
                )


def release(folder: Path, value: float) -> str:
    """A release whose weights are this value."""
    registry = Registry(folder / "registry", None)
    for name in ("encoder", "breast"):
        model = folder / f"{name}-{value}"
        model.mkdir()
        save_file({"w": np.full(7, value, np.float32)}, model / "model.safetensors")
        (model / "config.json").write_text(json.dumps({"name": name}))
    version = registry.add_version(
        folder / f"encoder-{value}",
        {"breast": folder / f"breast-{value}"},
        documents={},
        provenance=Provenance(),
    )
    registry.promote(version, expected=registry.champion())
    return version


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two batches; the first release saw one of them, the second both, the third is unknown."""
    monkeypatch.chdir(ROOT)
    corpus = tmp_path / "data"
    write_batch(corpus, "0001", {"ann": "train", "bob": "test"})
    write_batch(corpus, "0002", {"cleo": "train", "dan": "val", "eve": "test"})
    names = {name: release(tmp_path, value) for value, name in enumerate(("a", "b", "c"), 1)}
    journal = Journal(tmp_path / "monitor")
    journal.append("baseline", ["first"], champion=names["a"], trained_on=["clinic/0001"])
    decision = BatchDecision(word="retrain", batches=["clinic/0002"])
    journal.append("decision", ["shifted"], run="run-2", decision=decision)
    both = ["clinic/0001", "clinic/0002"]
    journal.append("outcome", ["passed"], run="run-2", champion=names["b"], trained_on=both)
    return names


def ask(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    words = ["lineage", name, "--corpus", str(folder / "data")]
    words += ["--registry", str(folder / "registry"), "--monitor", str(folder / "monitor")]
    code = main(words)
    output = capsys.readouterr()
    return code, output.out + output.err


@pytest.mark.parametrize(
    ("patient", "releases"),
    [("ann", "ab"), ("bob", ""), ("cleo", "b"), ("dan", "b"), ("eve", "")],
)
def test_the_releases_that_saw_a_patient(
    project: dict[str, str],
    patient: str,
    releases: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, output = ask(f"clinic:{patient}", tmp_path, capsys)
    assert code == 0
    for name in "ab":
        assert (f"release {project[name]}: saw 2 of these images" in output) == (name in releases)
    assert ("no release saw these images" in output) == (not releases)
    assert f"release {project['c']}: the log does not say" in output


def test_a_release_names_its_batches_and_an_image_its_releases(
    project: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, output = ask(project["b"], tmp_path, capsys)
    assert f"release {project['b']}: 6 images of 3 patients" in output
    assert "batch clinic/0001: 2 in train" in output
    assert "batch clinic/0002: 2 in train, 2 in val" in output
    rows = read_manifest(tmp_path / "data", ["id", "patient"])
    image = rows.loc[rows["patient"] == "clinic:ann", "id"].iloc[0]
    _, output = ask(image, tmp_path, capsys)
    assert f"release {project['a']}: saw 1 of these images" in output


def test_a_batch_names_its_run(
    project: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, output = ask("clinic/0002", tmp_path, capsys)
    assert "batch clinic/0002: 2 in test, 2 in train, 2 in val" in output
    assert ": retrain, run run-2" in output
    assert f"release {project['a']}" not in output


def test_an_image_that_is_withheld_today_may_have_been_trained_on(
    project: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The same pixels as a test image: from now on training leaves them out.
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (40, 48), dtype=np.uint8) for _ in range(2)]
    origin = BatchOrigin(licence="none", citation="tests")
    with BatchWriter(tmp_path / "data", "clinic", "0003", 64, origin=origin) as writer:
        for number, image in enumerate(images):
            splits = {"default": "test"}
            writer.accept(image, key=f"f-{number}", anatomy="breast", patient="fay", splits=splits)
    _, output = ask("clinic:ann", tmp_path, capsys)
    assert "2 in withheld" in output
    assert f"release {project['a']}: saw 2 of these images" in output


def test_an_unknown_name_is_an_error(
    project: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = ask("nobody", tmp_path, capsys)
    assert code == 1
    assert "is no patient, image, batch or release" in output

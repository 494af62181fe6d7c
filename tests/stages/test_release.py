import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arl.evaluation.results import ReleaseMetrics, read_metrics
from arl.files import read_json, sha256, tree_hash
from arl.params import Params
from arl.storage.metadata import GitState, Receipt, VersionManifest
from arl.storage.registry import Registry, tasks_of
from arl.storage.signing import Keys
from arl.training.checkpoint import load_encoder
from arl.training.task_models import load_task_model

Runs = Callable[..., Any]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory outside any repository."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def judged(make_run: Runs, params: Params, seed: int = 0) -> Any:
    run = make_run(params, seed=seed)
    run.judge()
    return run


def manifest(run: Any, version: str) -> VersionManifest:
    return VersionManifest.read(run.registry / "versions" / version / "manifest.json")


def test_a_promoted_run_becomes_the_champion(lenient: Params, make_run: Runs) -> None:
    run = judged(make_run, lenient)
    receipt = run.publish()
    version = receipt.version
    assert receipt == Receipt("promote", version)
    registry = Registry(run.registry, None)
    assert registry.champion() == version
    folder = registry.fetch(version)
    load_encoder(folder / "encoder")
    assert set(tasks_of(folder)) == {"breast", "lv"}
    for model in tasks_of(folder).values():
        load_task_model(model)
    assert read_json(folder / "decision.json") == read_json(run.folder / "decision/decision.json")
    assert set(ReleaseMetrics.read(folder / "metrics.json").tasks) == {"breast", "lv"}


def test_the_manifest_says_where_a_version_comes_from(
    lenient: Params, make_run: Runs, workplace: Path
) -> None:
    (workplace / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef.dir\n  path: data\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    run = judged(make_run, lenient)
    stated = manifest(run, run.publish().version)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert stated.provenance.git == GitState(commit, dirty=False)
    assert stated.provenance.data == "0123456789abcdef.dir"
    folder = run.registry / "versions" / stated.version
    settings = read_json(folder / "params.json")
    assert settings["seed"] == lenient.seed
    assert set(settings["task"]) == {"breast", "lv"}
    assert all(sha256(folder / name) == digest for name, digest in stated.files.items())
    assert "tasks/lv/model.safetensors" in stated.files


def test_a_changed_working_directory_is_dirty(
    lenient: Params, make_run: Runs, workplace: Path
) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-qm", "one", "--allow-empty"], check=True)
    (workplace / "new.py").touch()
    run = judged(make_run, lenient)
    assert manifest(run, run.publish().version).provenance.git.dirty is True


def test_outside_a_repository_nothing_is_invented(lenient: Params, make_run: Runs) -> None:
    run = judged(make_run, lenient)
    stated = manifest(run, run.publish().version)
    assert (stated.provenance.git, stated.provenance.data) == (None, None)


def test_a_version_names_its_licences_packages_and_image(
    lenient: Params, make_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARL_IMAGE", "registry.example/arl-train@sha256:0123")
    run = judged(make_run, lenient)
    stated = manifest(run, run.publish().version)
    folder = run.registry / "versions" / stated.version
    assert (stated.provenance.image, stated.provenance.signed) == (
        "registry.example/arl-train@sha256:0123",
        False,
    )
    assert read_json(folder / "licences.json") == {
        "code": "Apache-2.0",
        "data": {"clinic": {"licence": "none", "citation": "tests"}},
    }
    bill = read_json(folder / "sbom.json")
    assert {"numpy", "torch"} <= {component["name"] for component in bill["components"]}
    assert {"licences.json", "sbom.json"} <= stated.files.keys()


def test_a_signed_release_is_verified_by_the_gate(
    lenient: Params,
    make_run: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new_keys: Callable[[Path], Keys],
) -> None:
    params = replace(lenient, release=replace(lenient.release, signed=True))
    run = make_run(params)
    monkeypatch.chdir(tmp_path)
    policy = {"alpha": 1.0, "bootstrap": 1, "min_slice_patients": 10**6}
    policy |= {"min_patients": 0, "max_trials": 10**6, "max_calibration_error": 1.0}
    rules = {"margin": 9.0, "floor": 0.0, "anatomy": "given", "drop_tasks": True}
    (tmp_path / "policy.yaml").write_text(json.dumps({"gate": policy, **rules}))
    with pytest.raises(
        ValueError, match=r"the registry is signed .* \$ARL_VERIFY_KEY names no public key"
    ):
        run.judge()
    keys = new_keys(tmp_path / "keys")
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ARL_VERIFY_KEY", str(keys.public[0]))
    run.judge()
    with pytest.raises(ValueError, match="has no attestation"):
        run.publish()
    assert Registry(run.registry, None).versions() == []
    monkeypatch.setenv("ARL_SIGNING_KEY", str(keys.private))
    run.judge()
    version = run.publish().version
    assert manifest(run, version).provenance.signed is True
    run.judge()
    victim = run.registry / "versions" / version / "model.sig"
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"signature of .* does not hold"):
        run.judge()


def test_the_same_models_twice_are_one_release(lenient: Params, make_run: Runs) -> None:
    run = judged(make_run, lenient)
    first = run.publish()
    before, receipt = tree_hash(run.registry / "versions"), sha256(run.folder / "receipt.json")
    assert run.publish() == first
    run.judge()  # now against itself
    assert run.publish() == first
    assert tree_hash(run.registry / "versions") == before
    assert sha256(run.folder / "receipt.json") == receipt


@pytest.mark.parametrize("verdict", ["reject", "inconclusive"])
def test_other_verdicts_leave_a_receipt_only(lenient: Params, make_run: Runs, verdict: str) -> None:
    tasks = {name: replace(task, floor=1.01) for name, task in lenient.task.items()}
    run = judged(make_run, replace(lenient, task=tasks))
    file = run.folder / "decision/decision.json"
    assert read_json(file)["verdict"] == "reject"
    file.write_text(file.read_text().replace('"verdict": "reject"', f'"verdict": "{verdict}"'))
    assert run.publish() == Receipt(verdict)
    assert not (run.registry / "versions").exists()


def test_the_second_of_two_runs_judged_at_once_is_told(lenient: Params, make_run: Runs) -> None:
    first, second = judged(make_run, lenient, 0), judged(make_run, lenient, 1)
    version = first.publish().version
    with pytest.raises(
        ValueError, match=f"against champion none, but {version} is champion .* run the gate again"
    ):
        second.publish()
    assert not (second.folder / "receipt.json").exists()
    assert Registry(first.registry, None).champion() == version
    second.judge()
    assert second.publish().version == Registry(first.registry, None).champion() != version


def test_models_that_were_not_judged_are_not_released(lenient: Params, make_run: Runs) -> None:
    run = judged(make_run, lenient)
    run.make_model("lv")
    with pytest.raises(
        ValueError,
        match=r"the gate judged another model for lv than those in .* run the gate again",
    ):
        run.publish()
    assert not (run.registry / "versions").exists()


def test_the_model_card_has_measured_values_and_no_claims(lenient: Params, make_run: Runs) -> None:
    run = judged(make_run, lenient)
    version = run.publish().version
    card = (run.registry / "versions" / version / "model_card.md").read_text()
    auroc = read_metrics(run.folder / "evaluations/breast").metrics["auroc"]
    assert card.startswith(f"# ARL {version}\n")
    assert f"| AUROC | {auroc.value:.3f} | {auroc.low:.3f} to {auroc.high:.3f} |" in card
    assert "not a medical device" in card
    assert "6 test images of 6 patients" in card
    assert "Synthetic" not in card
    assert "| device | scanner 0 | 3 | 3 |" in card
    assert "Called malignant from a score of" in card


def test_the_model_card_labels_synthetic_images(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    file = run.folder / "evaluations/breast/metrics.json"
    file.write_text(file.read_text().replace('"synthetic": false', '"synthetic": true'))
    run.judge()
    card = (run.registry / "versions" / run.publish().version / "model_card.md").read_text()
    assert "The test images of breast are phantoms: no figure is clinical." in card
    assert "6 synthetic test images" in card

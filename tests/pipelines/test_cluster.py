"""What the cluster has to offer, and what the pipelines ask of it."""

import importlib.metadata
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
IMPORTS = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "imports.py")))
SETTINGS = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))


def resources() -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((ROOT / "k8s/kustomization.yaml").read_text(encoding="utf-8"))
    return [yaml.safe_load((ROOT / "k8s" / name).read_text(encoding="utf-8")) for name in kustomization["resources"]]


def test_every_manifest_is_used() -> None:
    kustomization = yaml.safe_load((ROOT / "k8s/kustomization.yaml").read_text(encoding="utf-8"))
    files = {path.name for path in (ROOT / "k8s").glob("*.yaml")}
    assert files == {"kustomization.yaml", *kustomization["resources"]}


def test_the_claim_of_the_pipelines_is_there_for_many() -> None:
    claims = [manifest for manifest in resources() if manifest["kind"] == "PersistentVolumeClaim"]
    assert [claim["metadata"]["name"] for claim in claims] == [SETTINGS["claim"]]
    assert claims[0]["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_builds() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(ROOT / "k8s")], check=True, capture_output=True, text=True)
    documents = list(yaml.safe_load_all(built.stdout))
    assert {document["kind"] for document in documents} == {manifest["kind"] for manifest in resources()}


def _targets() -> dict[str, set[str]]:
    """Dockerfile target -> extras of arl installed in it."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"FROM [\w-]+ AS (\w+)-environment\n(?:.*\n)*?.*lock-for ([\w ]+) >", text)
    return {target: set(extras.split()) for target, extras in found}


def _installed(extras: set[str]) -> set[str]:
    """Normalised names of the distributions that arl with these extras brings, by the installed metadata."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    waiting = [("arl", frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in (*wanted, "")):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("target", ["data", "train", "monitor"])
def test_an_image_gets_what_its_extras_need_and_only_from_the_lock(target: str) -> None:
    extras = _targets()[target]
    told = subprocess.run(
        [sys.executable, ROOT / "bin/lock-for", *sorted(extras)], capture_output=True, text=True, check=True
    )
    names = {name.lower() for name in re.findall(r"(?m)^([\w.-]+)==", told.stdout)}
    installed = _installed(extras) - {"arl"}
    assert names >= installed
    # the lock does not tell which extra of a package asks for another, so a few come along for nothing
    assert len(names - installed) < 10
    assert told.stdout.count("--hash=sha256:") >= len(names)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert set(told.stdout.splitlines()) <= set(lock.splitlines())
    if target == "data":
        assert not {name for name in names if name.startswith(("torch", "nvidia"))}, "slim means without CUDA"


STEPS = sorted(SETTINGS["steps"])


def _target_of(step: str) -> str:
    for file in (ROOT / "components").glob("*.py"):
        found = re.search(rf'@step\("(\w+)"\)\ndef {step}\(', file.read_text(encoding="utf-8"))
        if found:
            return found[1]
    raise AssertionError(f"no component {step}")


@pytest.mark.parametrize("step", STEPS)
def test_the_image_of_a_step_has_what_its_stage_imports(step: str) -> None:
    target = _target_of(step)
    installed = _installed(_targets()[target])
    assert "kfp" in installed, "no component runs without kfp"
    distributions = importlib.metadata.packages_distributions()
    files = IMPORTS.closure(ROOT / "src" / "arl" / "stages" / f"{step}.py")
    imported = {name.split(".")[0] for file in files for name in IMPORTS.names(file)}
    for package in imported - sys.stdlib_module_names - {"arl"}:
        owners = {re.sub(r"[-_.]+", "-", owner).lower() for owner in distributions[package]}
        assert owners & installed, f"{step} imports {package}, which the {target} image lacks"

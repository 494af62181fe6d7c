"""What the cluster has to offer, and what the pipelines ask of it."""

import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
IMPORTS = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "imports.py")))
SETTINGS = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))


OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
OURS = {
    kind: ROOT / f"tests/pipelines/schemas/{kind.lower()}.json" for kind in ("TrainingRuntime",)
}


@cache
def built(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay, as kubectl builds them."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: the manifests of k8s/ are not built")
    command = ["kubectl", "kustomize", str(ROOT / "k8s/overlays" / overlay)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Kind/name -> pod template of everything that runs."""
    found = {}
    for thing in built(overlay):
        spec = thing.get("spec", {})
        if thing["kind"] == "TrainingRuntime":
            (job,) = spec["template"]["spec"]["replicatedJobs"]
            spec = job["template"]["spec"]
        if "template" in spec:
            found[f"{thing['kind']}/{thing['metadata']['name']}"] = spec["template"]
    return found


def only(overlay: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        thing
        for thing in built(overlay)
        if (thing["kind"], thing["metadata"]["name"]) == (kind, name)
    )
    return found


def test_every_manifest_is_used() -> None:
    for file in (ROOT / "k8s").rglob("kustomization.yaml"):
        named = yaml.safe_load(file.read_text(encoding="utf-8")).get("resources", [])
        beside = {path.name for path in file.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert beside == {name for name in named if name.endswith(".yaml")}, file
    used = {
        Path(name).name
        for file in (ROOT / "k8s/overlays").rglob("kustomization.yaml")
        for name in yaml.safe_load(file.read_text(encoding="utf-8")).get("components", [])
    }
    assert used == {path.name for path in (ROOT / "k8s/components").iterdir()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_fit_kubernetes_schemas(overlay: str) -> None:
    """Strictly: an unknown field is an error. Kinds that Kubernetes does not know have schemas in this repository."""
    for thing in built(overlay):
        if thing["kind"] in OURS:
            jsonschema.validate(thing, json.loads(OURS[thing["kind"]].read_text(encoding="utf-8")))
        else:
            kubernetes_validate.validate(thing, "1.34", strict=True)
    for pod in pods(overlay).values():
        whole = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", **pod.get("metadata", {})},
        }
        kubernetes_validate.validate({**whole, "spec": pod["spec"]}, "1.34", strict=True)


def test_a_misspelt_field_would_be_seen() -> None:
    runtime = only("gpu", "TrainingRuntime", "arl") | {"sepc": {}}
    with pytest.raises(jsonschema.ValidationError, match="sepc"):
        jsonschema.validate(
            runtime, json.loads(OURS["TrainingRuntime"].read_text(encoding="utf-8"))
        )
    policy = only("gpu", "NetworkPolicy", "deny-all")
    with pytest.raises(kubernetes_validate.ValidationError, match="podSelectr"):
        kubernetes_validate.validate(policy | {"spec": {"podSelectr": {}}}, "1.34", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_standard(overlay: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, which the namespace enforces."""
    namespace = only(overlay, "Namespace", "arl")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(overlay).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, (
            name
        )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_manifests(overlay: str) -> None:
    assert "Secret" not in {thing["kind"] for thing in built(overlay)}
    references = {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods(overlay).values()
        for container in pod["spec"]["containers"]
        for entry in container.get("env", [])
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert references <= {secret["name"] for secret in SETTINGS["secrets"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_and_cluster_yaml_name_the_same_things(overlay: str) -> None:
    claim = only(overlay, "PersistentVolumeClaim", SETTINGS["claim"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    account = SETTINGS["service_account"]
    assert only(overlay, "ServiceAccount", account)
    (subject,) = only(overlay, "RoleBinding", account)["subjects"]
    assert (subject["name"], subject["namespace"]) == (account, "arl")
    verbs = {
        (group, resource): set(rule["verbs"])
        for rule in only(overlay, "Role", account)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert verbs[("trainer.kubeflow.org", "trainjobs")] >= {"create", "get", "delete"}
    assert verbs[("argoproj.io", "workflowtaskresults")] >= {"create", "patch"}
    for pod in pods(overlay).values():
        assert pod["spec"].get("serviceAccountName", account) == account


def test_the_training_runtime_is_the_gpu_pool_of_cluster_yaml() -> None:
    assert only("gpu", "TrainingRuntime", SETTINGS["runtime"])
    spec = pods("gpu")[f"TrainingRuntime/{SETTINGS['runtime']}"]["spec"]
    assert spec["nodeSelector"] == SETTINGS["gpu"]["node_selector"]
    assert spec["tolerations"] == SETTINGS["gpu"]["tolerations"]
    (container,) = spec["containers"]
    assert container["name"] == "node"  # the name that Kubeflow Trainer fills in
    assert {"name": "arl", "mountPath": SETTINGS["mount"]} in container["volumeMounts"]
    assert {"name": "arl", "persistentVolumeClaim": {"claimName": SETTINGS["claim"]}} in spec[
        "volumes"
    ]
    quota = only("gpu", "ResourceQuota", "arl")["spec"]["hard"]
    needed = max(step["gpus"] * step["nodes"] for step in SETTINGS["steps"].values())
    assert int(quota[f"requests.{SETTINGS['gpu']['resource']}"]) >= needed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_open_that_is_not_named(overlay: str) -> None:
    deny = only(overlay, "NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    names = {
        thing["metadata"]["name"] for thing in built(overlay) if thing["kind"] == "NetworkPolicy"
    }
    named = {"deny-all", "allow-dns", "allow-namespace", "allow-kubeflow", "allow-kubernetes-api"}
    assert names == named | ({"allow-s3"} if overlay == "external-s3" else set())


def _targets() -> dict[str, set[str]]:
    """Dockerfile target -> extras of arl installed in it."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"bin/lock-for ([a-z ]+) > (data|train|monitor)", text)
    return {target: set(extras.split()) for extras, target in found}


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
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": e}) for e in (*wanted, "")
            ):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("target", ["data", "train", "monitor"])
def test_an_image_gets_what_its_extras_need_and_only_from_the_lock(target: str) -> None:
    extras = _targets()[target]
    told = subprocess.run(
        [sys.executable, ROOT / "bin/lock-for", *sorted(extras)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name.lower() for name in re.findall(r"(?m)^([\w.-]+)==", told.stdout)}
    installed = _installed(extras) - {"arl"}
    assert names >= installed
    # the lock does not tell which extra of a package asks for another, so a few come along for
    # nothing
    assert len(names - installed) < 10
    assert told.stdout.count("--hash=sha256:") >= len(names)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert set(told.stdout.splitlines()) <= set(lock.splitlines())
    if target == "data":
        assert not {name for name in names if name.startswith(("torch", "nvidia"))}, (
            "slim means without CUDA"
        )


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

"""The manifests of k8s/, and whether they fit what the pipelines expect."""

import importlib.metadata
import ipaddress
import json
import os
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

from components.images import TARGETS
from pipelines.quantities import parse_quantity
from pipelines.settings import settings

ROOT = Path(__file__).parents[2]
IMPORTS = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "imports.py")))
SETTINGS = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))


OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
NAMESPACES = dict.fromkeys(OVERLAYS, "arl") | {
    "standalone": "kubeflow",
    "minimal": "kubeflow",
}
# overlays for a namespace of their own, not Kubeflow's
ISOLATED = [overlay for overlay, namespace in NAMESPACES.items() if namespace == "arl"]
KUBERNETES = ("1.34", "1.35", "1.36", "1.37")
SCHEMAS = ROOT / "tests/pipelines/schemas"
TRAINER = ("v2.2.0", "v2.3.0")
# a user's overlay: another namespace, own images and settings
OWN_OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: team-a
resources: [{k8s}/overlays/profile]
components: [settings, {k8s}/components/network-cilium, {k8s}/components/network-openshift,
  {k8s}/components/network-nodelocal-dns, {k8s}/components/images]
"""


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """The objects that kubectl builds of a folder."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: the manifests of k8s/ are not built")
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def built(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay."""
    return kustomize(ROOT / "k8s/overlays" / overlay)


@pytest.fixture(scope="module")
def own_overlay(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The objects of a user's overlay, as docs/cluster.md describes it."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(ROOT / "k8s/components/settings", folder / "settings")
    file = folder / "settings/kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("- name: arl-cluster", "- name: arl-cluster\n  behavior: replace"))
    images = [f"ARL_IMAGE_{t.upper()}=hub.example/{t}@sha256:{64 * '0'}\n" for t in TARGETS]
    (folder / "settings/images.env").write_text("".join(images))
    (folder / "settings/cluster.yaml").write_text("queue: lab\n")
    k8s = Path(os.path.relpath(ROOT / "k8s", folder.resolve()))
    (folder / "kustomization.yaml").write_text(OWN_OVERLAY.format(k8s=k8s))
    return kustomize(folder)


def pod_templates(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Kind/name -> pod template of everything that runs."""
    templates = {}
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "TrainingRuntime":
            (job,) = spec["template"]["spec"]["replicatedJobs"]
            spec = job["template"]["spec"]
        if "template" in spec:
            templates[f"{item['kind']}/{item['metadata']['name']}"] = spec["template"]
    return templates


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    return pod_templates(built(overlay))


def only(overlay: str, kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name, which must be in the overlay's namespace."""
    (item,) = (
        item for item in built(overlay) if (item["kind"], item["metadata"]["name"]) == (kind, name)
    )
    assert item["metadata"]["namespace"] == NAMESPACES[overlay]
    return item


def test_every_manifest_is_used() -> None:
    for file in (ROOT / "k8s").rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(file.read_text(encoding="utf-8"))
        named = set(kustomization.get("resources", []))
        for generator in kustomization.get("configMapGenerator", []):
            named |= set(generator.get("files", []))
        beside = {path.name for path in file.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert beside == {name for name in named if name.endswith(".yaml")}, file
    used = {
        Path(name).name
        for file in (ROOT / "k8s/overlays").rglob("kustomization.yaml")
        for name in yaml.safe_load(file.read_text(encoding="utf-8")).get("components", [])
    }
    used |= {name.rpartition("/")[2].rstrip(",]") for name in OWN_OVERLAY.split() if "/" in name}
    assert used >= {path.name for path in (ROOT / "k8s/components").iterdir()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_in_the_namespace_of_its_overlay(overlay: str) -> None:
    """kustomize applies components after the base got its namespace, so the overlay must say it."""
    for item in built(overlay):
        assert item["metadata"].get("namespace") == NAMESPACES[overlay], item["metadata"]["name"]
        for subject in item.get("subjects", []):
            assert subject["namespace"] == NAMESPACES[overlay]


def test_an_overlay_of_a_user_leaves_nothing_in_ours(own_overlay: list[dict[str, Any]]) -> None:
    for item in own_overlay:
        assert item["metadata"]["namespace"] == "team-a"
        assert {s["namespace"] for s in item.get("subjects", [])} <= {"team-a"}
    templates = pod_templates(own_overlay)
    images = {
        name: container["image"]
        for name, template in templates.items()
        for container in template["spec"]["containers"]
    }
    assert images == {
        "Job/arl-prepare-volume": f"hub.example/data@sha256:{64 * '0'}",
        "Job/arl-schedule": f"hub.example/data@sha256:{64 * '0'}",
        "TrainingRuntime/arl": f"hub.example/train@sha256:{64 * '0'}",
    }


def test_the_recurring_job_compiles_with_the_settings_of_the_overlay(
    own_overlay: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The images and cluster.yaml of the ConfigMap are those of the steps that it compiles."""
    (configuration,) = (item for item in own_overlay if item["kind"] == "ConfigMap")
    spec = pod_templates(own_overlay)["Job/arl-schedule"]["spec"]
    (container,) = spec["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": configuration["metadata"]["name"]}}]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "cluster")
    assert variables["ARL_CLUSTER"] == f"{mount['mountPath']}/cluster.yaml"
    (tmp_path / "cluster.yaml").write_text(configuration["data"]["cluster.yaml"])
    names = {f"ARL_IMAGE_{target.upper()}": target for target in TARGETS}
    environment = {name: configuration["data"][name] for name in names}
    program = (
        "from pipelines.expectations import expectations, require_digests\n"
        "from pipelines.settings import settings\n"
        "require_digests(settings())\n"
        "expected = expectations(settings(), ['pretrain'])\n"
        "print(expected.queue, expected.images['train'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment, "ARL_CLUSTER": str(tmp_path / "cluster.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["lab", f"hub.example/train@sha256:{64 * '0'}"], done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_fit_kubernetes_schemas(overlay: str, version: str) -> None:
    """Strictly: an unknown field is an error."""
    for item in built(overlay):
        if item["kind"] != "TrainingRuntime":
            kubernetes_validate.validate(item, version, strict=True)
    for pod in pods(overlay).values():
        metadata = {"name": "x", **pod.get("metadata", {})}
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}
        kubernetes_validate.validate(whole, version, strict=True)


@pytest.mark.parametrize("release", TRAINER)
def test_the_runtime_fits_trainer_and_jobset(release: str) -> None:
    runtime = only("profile", "TrainingRuntime", "arl")
    jsonschema.validate(runtime, schema(f"trainingruntime-{release}"))
    jobset = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {}}
    jsonschema.validate(
        {**jobset, "spec": runtime["spec"]["template"]["spec"]}, schema("jobset-v0.11.1")
    )


def schema(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_a_misspelt_field_would_be_seen() -> None:
    runtime = only("profile", "TrainingRuntime", "arl") | {"sepc": {}}
    with pytest.raises(jsonschema.ValidationError, match="sepc"):
        jsonschema.validate(runtime, schema("trainingruntime-v2.3.0"))
    policy = only("profile", "NetworkPolicy", "deny-all")
    with pytest.raises(kubernetes_validate.ValidationError, match="podSelectr"):
        kubernetes_validate.validate(policy | {"spec": {"podSelectr": {}}}, "1.34", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_standard(overlay: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
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
def test_the_labels_of_a_profile_are_left_alone(overlay: str) -> None:
    """Kubeflow's policies admit a namespace by app.kubernetes.io/part-of: kubeflow-profile.

    kubeflow/manifests, common/kubeflow-namespace/base/kubeflow, and kubeflow/pipelines 2.17.0,
    .../seaweedfs/seaweedfs-networkpolicy.yaml. The profile controller never replaces a label.
    """
    assert "Namespace" not in {item["kind"] for item in built(overlay)}
    for item in built(overlay):
        assert "app.kubernetes.io/part-of" not in (item["metadata"].get("labels") or {})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_manifests(overlay: str) -> None:
    assert "Secret" not in {item["kind"] for item in built(overlay)}
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
    # kind, k3s and minikube offer nothing else
    mode = "ReadWriteOnce" if overlay == "minimal" else "ReadWriteMany"
    assert claim["spec"]["accessModes"] == [mode]
    account = SETTINGS["service_account"]
    assert only(overlay, "ServiceAccount", account)
    (subject,) = only(overlay, "RoleBinding", account)["subjects"]
    assert subject["name"] == account
    verbs = {
        (group, resource): set(rule["verbs"])
        for rule in only(overlay, "Role", account)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert verbs[("trainer.kubeflow.org", "trainjobs")] >= {"create", "get", "patch", "delete"}
    assert verbs[("argoproj.io", "workflowtaskresults")] >= {"create", "patch"}
    assert verbs[("", "pods")] >= {"get"}
    # only the account of the recurring Job may start runs
    assert not [group for group, _ in verbs if group == "pipelines.kubeflow.org"]
    for name, pod in pods(overlay).items():
        expected = "arl-schedule" if name == "Job/arl-schedule" else account
        assert pod["spec"].get("serviceAccountName", expected) == expected


@pytest.mark.parametrize("overlay", ISOLATED)
def test_the_recurring_job_may_create_runs(overlay: str) -> None:
    """In multi-user mode the API server asks for pipelines.kubeflow.org.

    kubeflow/pipelines 2.17.0, backend/src/apiserver/server/job_server.go:425; the ClusterRole is in
    manifests/kustomize/base/installs/multi-user/view-edit-cluster-roles.yaml.
    """
    binding = only(overlay, "RoleBinding", "arl-schedule")
    assert binding["roleRef"]["name"] == "kubeflow-pipelines-edit"
    (subject,) = binding["subjects"]
    assert pods(overlay)["Job/arl-schedule"]["spec"]["serviceAccountName"] == subject["name"]


def test_a_server_for_one_user_gets_no_namespace() -> None:
    """It ignores one (2.17.0, resource_manager.go:2456), and `arl schedule` would refuse it."""
    (container,) = pods("standalone")["Job/arl-schedule"]["spec"]["containers"]
    assert "KFP_NAMESPACE" not in {entry["name"] for entry in container["env"]}
    kinds = {item["kind"] for item in built("standalone")}
    assert not kinds & {"NetworkPolicy", "ResourceQuota", "LimitRange"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_volume_is_made_for_the_user_of_the_steps(overlay: str) -> None:
    """Kubeflow's pods cannot have an fsGroup (kubeflow/pipelines#3866), so a Job has it."""
    spec = pods(overlay)["Job/arl-prepare-volume"]["spec"]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsUser"] == 1000
    (container,) = spec["containers"]
    for folder in ("data", "registry", "runs", "inbox", "monitor"):
        assert folder in container["command"][-1]


def test_the_volume_script_makes_the_folders_and_says_what_is_wrong(tmp_path: Path) -> None:
    (container,) = pods("profile")["Job/arl-prepare-volume"]["spec"]["containers"]
    script = container["command"][-1].replace("/mnt/arl", str(tmp_path / "volume"))
    (tmp_path / "volume").mkdir()
    assert subprocess.run(["sh", "-ec", script], capture_output=True, check=False).returncode == 0
    made = {path.name for path in (tmp_path / "volume").iterdir()}
    assert made == {"data", "registry", "runs", "inbox", "monitor"}
    shutil.rmtree(tmp_path / "volume")
    (tmp_path / "volume").write_text("not a folder")
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "user 1000 cannot write" in done.stderr
    assert "mountPermissions" in done.stderr


def test_the_training_runtime_is_the_gpu_pool_of_cluster_yaml() -> None:
    assert only("profile", "TrainingRuntime", SETTINGS["runtime"])
    spec = pods("profile")[f"TrainingRuntime/{SETTINGS['runtime']}"]["spec"]
    pool = SETTINGS["gpu_pools"]["default"]
    assert spec["nodeSelector"] == pool["node_selector"]
    assert spec["tolerations"] == pool["tolerations"]
    (container,) = spec["containers"]
    # the name that Kubeflow Trainer fills in
    assert container["name"] == "node"
    assert {"name": "arl", "mountPath": SETTINGS["mount"]} in container["volumeMounts"]
    claim = {"name": "arl", "persistentVolumeClaim": {"claimName": SETTINGS["claim"]}}
    assert claim in spec["volumes"]
    quota = only("profile", "ResourceQuota", "arl")["spec"]["hard"]
    needed = max(step["gpus"] * step["nodes"] for step in SETTINGS["steps"].values())
    assert int(quota[f"requests.{pool['resource']}"]) >= needed


def test_the_ingest_fan_out_fits_the_quota() -> None:
    """16 pods, each with the default request of one container of Argo."""
    quota = yaml.safe_load_all((ROOT / "k8s/components/quota/quota.yaml").read_text())
    hard = next(iter(quota))["spec"]["hard"]
    pods = SETTINGS["parallel"]["batches"]
    cpu = parse_quantity(SETTINGS["steps"]["ingest"]["cpu"]) + 0.1
    memory = parse_quantity(SETTINGS["steps"]["ingest"]["memory"]) + parse_quantity("128Mi")
    assert pods * cpu <= parse_quantity(hard["requests.cpu"])
    assert pods * memory <= parse_quantity(hard["requests.memory"])


def test_minimal_asks_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "k8s/overlays/minimal/settings/cluster.yaml"
    monkeypatch.setenv("ARL_CLUSTER", str(file))
    settings.cache_clear()
    cluster = settings()
    settings.cache_clear()
    assert cluster is not None
    assert {step.gpus for step in cluster.steps.values()} == {0}
    assert max(parse_quantity(step.cpu) for step in cluster.steps.values()) <= 2


@pytest.mark.parametrize("overlay", ISOLATED)
def test_nothing_is_open_that_is_not_named(overlay: str) -> None:
    deny = only(overlay, "NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policies = [item for item in built(overlay) if item["kind"] == "NetworkPolicy"]
    names = {"deny-all", "allow-dns", "allow-namespace", "allow-kubeflow", "allow-kubernetes-api"}
    names |= {"allow-s3"} if overlay == "external-s3" else set()
    assert {policy["metadata"]["name"] for policy in policies} == names
    blocks = [
        ipaddress.ip_network(peer["ipBlock"]["cidr"])
        for policy in policies
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    # 192.0.2.0/24 is documentation's example of a store
    assert all(block.is_private for block in blocks), "the internet is open"
    assert ipaddress.ip_network("0.0.0.0/0") not in blocks


def test_other_networks_have_their_policies(own_overlay: list[dict[str, Any]]) -> None:
    policies = {
        (item["kind"], item["metadata"]["name"]): item["spec"]
        for item in own_overlay
        if item["kind"].endswith("NetworkPolicy")
    }
    # an ipBlock matches neither the API server nor nodes (cilium/cilium#20550)
    cilium = policies[("CiliumNetworkPolicy", "allow-kubernetes-api")]["egress"]
    assert cilium[0]["toEntities"] == ["kube-apiserver"]
    # a policy sees the port of the pod, and OpenShift's DNS pods listen on 5353
    openshift = policies[("NetworkPolicy", "allow-dns-openshift")]["egress"][0]
    assert {port["port"] for port in openshift["ports"]} == {5353}
    nodelocal = policies[("NetworkPolicy", "allow-dns-nodelocal")]["egress"][0]
    assert nodelocal["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]


def _targets() -> dict[str, set[str]]:
    """Dockerfile target -> extras of arl installed in it."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"bin/lock-for ([a-z ]+) > (data|train|monitor)", text)
    return {target: set(extras.split()) for extras, target in found}


def _installed(extras: set[str]) -> set[str]:
    """Normalised names of the distributions that arl with these extras installs."""
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
    done = subprocess.run(
        [sys.executable, ROOT / "bin/lock-for", *sorted(extras)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name.lower() for name in re.findall(r"(?m)^([\w.-]+)==", done.stdout)}
    installed = _installed(extras) - {"arl"}
    assert names >= installed
    # the lock does not tell which extra of a package asks for another, so a few come along for
    # nothing
    assert len(names - installed) < 10
    assert done.stdout.count("--hash=sha256:") >= len(names)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert set(done.stdout.splitlines()) <= set(lock.splitlines())
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
    files = IMPORTS.closure(ROOT / "src" / "arl" / "launch" / "artifacts.py")
    stage = ROOT / "src" / "arl" / "stages" / f"{step}.py"
    if stage.is_file():
        files |= IMPORTS.closure(stage)
    if step in ("validate", "accept"):
        files |= IMPORTS.closure(ROOT / "src" / "arl" / "launch" / "corpus_artifacts.py")
    imported = {name.split(".")[0] for file in files for name in IMPORTS.names(file)}
    for package in imported - sys.stdlib_module_names - {"arl"}:
        owners = {re.sub(r"[-_.]+", "-", owner).lower() for owner in distributions[package]}
        assert owners & installed, f"{step} imports {package}, which the {target} image lacks"

"""`arl doctor cluster`, and the checks before a submission, on a cluster that lacks each thing."""

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DIGEST = "sha256:" + 64 * "0"
SETTINGS = {
    "queue": "lab",
    "priority_class": "normal",
    "pull_secrets": ["registry"],
    "steps": {"pretrain": {"nodes": 2, "gpus": 4}},
    "secrets": [{"name": "arl-s3", "keys": {"access_key": "A"}, "steps": [], "required": True}],
}
PROFILE = {
    "app.kubernetes.io/part-of": "kubeflow-profile",
    "pipelines.kubeflow.org/enabled": "true",
}
RETRY = "spec: {templateDefaults: {retryStrategy: {limit: '2', retryPolicy: OnError}}}"
CORE, APIS = "/api/v1/namespaces/lab", "/apis"
CRD = f"{APIS}/apiextensions.k8s.io/v1/customresourcedefinitions/trainjobs.trainer.kubeflow.org"
TRAINJOB = {"activeDeadlineSeconds": {}, "runtimePatches": {}}


def definition(fields: dict[str, Any]) -> dict[str, Any]:
    spec = {"properties": {"spec": {"properties": fields}}}
    return {"spec": {"versions": [{"schema": {"openAPIV3Schema": spec}}]}}


def node(gpus: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": gpus}}}


def complete(registry: str) -> dict[str, Any]:
    """Path -> object of a cluster that has everything."""
    login = {"auths": {registry: {"auth": base64.b64encode(b"user:password").decode()}}}
    keys = {"access_key": "YQ=="}
    pulls = {".dockerconfigjson": base64.b64encode(json.dumps(login).encode()).decode()}
    storage = {"metadata": {"name": "nfs"}, "volumeBindingMode": "Immediate"}
    claim = {"storageClassName": "nfs", "accessModes": ["ReadWriteMany"]}
    container = {"image": "ghcr.io/kubeflow/kfp-api-server:2.17.0"}
    return {
        "/version": {"gitVersion": "v1.34.2"},
        f"{APIS}/apps/v1/namespaces/kubeflow/deployments/ml-pipeline": {
            "spec": {"template": {"spec": {"containers": [container]}}}
        },
        "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap": {
            "data": {"workflowDefaults": RETRY}
        },
        CORE: {"metadata": {"labels": dict(PROFILE)}},
        f"{CORE}/serviceaccounts/arl-runner": {},
        f"{CORE}/persistentvolumeclaims/arl": {"spec": claim, "status": {"phase": "Bound"}},
        f"{CORE}/secrets/arl-s3": {"data": keys},
        f"{CORE}/secrets/arl-signing-key": {"data": {"signing.pem": ""}},
        f"{CORE}/secrets/arl-verify-key": {"data": {"verify.pem": ""}},
        f"{CORE}/secrets/registry": {"data": pulls},
        f"{CORE}/resourcequotas": {"items": []},
        f"{APIS}/storage.k8s.io/v1/storageclasses": {"items": [storage]},
        f"{APIS}/kueue.x-k8s.io/v1beta1/namespaces/lab/localqueues/lab": {},
        f"{APIS}/kueue.x-k8s.io/v1beta1/workloadpriorityclasses/normal": {},
        "/api/v1/nodes": {"items": [node("8", **{"arl.dev/pool": "gpu"}), node("0")]},
        CRD: definition(TRAINJOB),
        f"{APIS}/trainer.kubeflow.org/v1alpha1/namespaces/lab/trainingruntimes/arl": {},
    }


class Cluster(http.server.ThreadingHTTPServer):
    """A Kubernetes API and an image registry."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.objects = complete(self.address)
        # status of paths that are not answered as usual
        self.status: dict[str, int] = {}
        # (user, verb, resource) that SubjectAccessReviews deny; user "" is the caller
        self.denied: set[tuple[str, str, str]] = set()
        self.images = {"arl-data", "arl-train", "arl-monitor"}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: dict[str, Any], code: int = 200, **headers: str) -> None:
        content = b"" if self.command == "HEAD" else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def do_HEAD(self) -> None:
        """A manifest, as in the OCI distribution specification, behind a token server."""
        name = self.path.split("/")[2]
        if self.headers.get("Authorization") != "Bearer t":
            realm = f'Bearer realm="http://{self.server.address}/token",service="registry"'
            self._answer({}, 401, WWW_Authenticate=realm)
        else:
            self._answer({}, 200 if name in self.server.images else 404)

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if path == "/token":
            is_user = self.headers.get("Authorization") == "Basic dXNlcjpwYXNzd29yZA=="
            self._answer({"token": "t"} if is_user else {}, 200 if is_user else 401)
        elif path in self.server.status:
            message = f"forbidden: cannot get {path}"
            self._answer({"message": message}, self.server.status[path])
        elif path in self.server.objects:
            self._answer(self.server.objects[path])
        else:
            self._answer({"message": "not found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        attributes = body["spec"]["resourceAttributes"]
        right = (body["spec"].get("user", ""), attributes["verb"], attributes["resource"])
        self._answer({"status": {"allowed": right not in self.server.denied}}, 201)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    server = Cluster()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def arl(
    cluster: Cluster, kubeflow: Any, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command with a kubeconfig for the cluster and an endpoint."""
    kubeflow.multi_user = True
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(SETTINGS))
    server = {"server": f"http://{cluster.address}"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
        "clusters": [{"name": "lab", "cluster": server}],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    variables = {
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "KFP_ENDPOINT": kubeflow.url,
        "KFP_NAMESPACE": "lab",
        "KFP_EXISTING_TOKEN": "opaque",
        "ARL_CLUSTER": str(tmp_path / "cluster.yaml"),
        "ARL_IMAGE": f"{cluster.address}/arl-{{target}}@{DIGEST}",
        "HOME": str(tmp_path),
    }
    own = ("KFP_", "KF_", "ARL_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}

    def run(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "arl"), *words],
            cwd=ROOT,
            env={**clean, **variables, **changes},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


SUBMIT = ("run", "pipelines/arl_full.py", "--backend", "kfp", "--data-hash", "x")


def test_a_cluster_that_has_everything(arl: Any, kubeflow: Any) -> None:
    done = arl("doctor", "cluster")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "no problem found"
    assert any(line.startswith("ok      Kubeflow Trainer") for line in lines)
    # of 2.17's own manifests, which retry no step that fails
    assert any(line.startswith("note    Argo's retry policy: is OnError") for line in lines)
    assert not [line for line in lines if line.startswith(("warning", "problem"))]
    assert kubeflow.calls == []
    assert arl(*SUBMIT).returncode == 0
    assert len(kubeflow.runs) == 1


def drop(path: str) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        del cluster.objects[path]

    return change


def put(path: str, value: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        cluster.objects[path] = value

    return change


def deny(*right: str) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        cluster.denied.add(right)  # type: ignore[arg-type]

    return change


def quota(**hard: str) -> Callable[[Cluster], None]:
    names = {
        name.replace("_", ".").replace("nvidia.com.", "nvidia.com/"): v for name, v in hard.items()
    }
    return put(
        f"{CORE}/resourcequotas",
        {"items": [{"metadata": {"name": "q"}, "spec": {"hard": names}, "status": {"used": {}}}]},
    )


RUNNER = "system:serviceaccount:lab:arl-runner"
PENDING = {
    "spec": {"storageClassName": "nfs", "accessModes": ["ReadWriteMany"]},
    "status": {"phase": "Pending"},
}
ALONE = {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}


@pytest.mark.parametrize(
    ("change", "subject", "remedy"),
    [
        (drop(CORE), "namespace lab: does not exist", "create a Profile"),
        (
            put(CORE, {"metadata": {"labels": {**PROFILE, "app.kubernetes.io/part-of": "arl"}}}),
            "namespace lab: lacks labels of a profile",
            "part-of=kubeflow-profile",
        ),
        (drop(f"{CORE}/serviceaccounts/arl-runner"), "ServiceAccount lab/arl-runner", "k8s/"),
        (
            deny(RUNNER, "create", "workflowtaskresults"),
            "ServiceAccount lab/arl-runner: may not create workflowtaskresults",
            "rbac.yaml",
        ),
        (deny(RUNNER, "patch", "trainjobs"), "may not patch trainjobs", "rbac.yaml"),
        (deny("", "create", "runs"), "your account in lab: may not create runs", "pipelines-edit"),
        (drop(f"{CORE}/persistentvolumeclaims/arl"), "PersistentVolumeClaim lab/arl", "`claim`"),
        (put(f"{CORE}/persistentvolumeclaims/arl", PENDING), "lab/arl: is Pending", "describe pvc"),
        (put(f"{CORE}/persistentvolumeclaims/arl", ALONE), "is not ReadWriteMany", "several nodes"),
        (drop(f"{CORE}/secrets/arl-s3"), "Secret lab/arl-s3: does not exist", "create secret"),
        (put(f"{CORE}/secrets/arl-s3", {"data": {}}), "arl-s3: lacks access_key", "create secret"),
        (drop(f"{CORE}/secrets/registry"), "Secret lab/registry: does not exist", "docker-reg"),
        (
            drop(f"{APIS}/kueue.x-k8s.io/v1beta1/namespaces/lab/localqueues/lab"),
            "LocalQueue lab/lab: does not exist",
            "queue: null",
        ),
        (
            drop(f"{APIS}/kueue.x-k8s.io/v1beta1/workloadpriorityclasses/normal"),
            "WorkloadPriorityClass normal: does not exist",
            "priority_class: null",
        ),
        (
            put("/api/v1/nodes", {"items": [node("8")]}),
            "nodes of step pretrain: no node has the labels arl.dev/pool=gpu",
            "kubectl label node NODE arl.dev/pool=gpu",
        ),
        (
            put("/api/v1/nodes", {"items": [node("2", **{"arl.dev/pool": "gpu"})]}),
            "the step wants 4 of nvidia.com/gpu on one node",
            "device plugin",
        ),
        (
            quota(requests_nvidia_com_gpu="4"),
            "lab/q: step pretrain requests 8 of requests.nvidia.com/gpu, the quota is 4",
            "raise the quota",
        ),
        (quota(requests_memory="100Gi"), "requests.memory, the quota is 100Gi", "raise the quota"),
        (drop(CRD), "Kubeflow Trainer: is not installed", "nodes: 1"),
        (
            put(CRD, definition({"activeDeadlineSeconds": {}, "podTemplateOverrides": {}})),
            "Kubeflow Trainer: its TrainJob lacks runtimePatches",
            "upgrade to 2.2",
        ),
        (
            drop(f"{APIS}/trainer.kubeflow.org/v1alpha1/namespaces/lab/trainingruntimes/arl"),
            "TrainingRuntime lab/arl: does not exist",
            "components/gpu",
        ),
        (lambda cluster: cluster.images.discard("arl-train"), "cannot be pulled", "make images"),
        (
            lambda cluster: cluster.objects[f"{CORE}/secrets/registry"].clear(),
            "refuses the credentials (401)",
            "pull_secrets",
        ),
    ],
)
def test_each_missing_thing_is_named_with_its_remedy_before_the_first_pod(
    arl: Any,
    cluster: Cluster,
    kubeflow: Any,
    change: Callable[[Cluster], None],
    subject: str,
    remedy: str,
) -> None:
    change(cluster)
    done = arl(*SUBMIT)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if subject in line]
    assert lines, done.stderr
    assert all(line.startswith("problem") and remedy in line for line in lines)
    assert "Traceback" not in done.stderr
    assert kubeflow.runs == []
    assert kubeflow.calls == []


def test_old_kubeflow_pipelines(arl: Any, cluster: Cluster) -> None:
    path = f"{APIS}/apps/v1/namespaces/kubeflow/deployments/ml-pipeline"
    containers = [{"image": "gcr.io/ml-pipeline/api-server:2.5.0"}]
    cluster.objects[path] = {"spec": {"template": {"spec": {"containers": containers}}}}
    done = arl("doctor", "cluster")
    assert done.returncode == 1
    assert "Kubeflow Pipelines: is 2.5.0" in done.stdout
    assert "1 of " in done.stderr


def test_a_quota_in_use_is_a_warning(arl: Any, cluster: Cluster) -> None:
    hard, used = {"requests.memory": "1Ti"}, {"requests.memory": "1000Gi"}
    item = {"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}}
    cluster.objects[f"{CORE}/resourcequotas"] = {"items": [item]}
    done = arl(*SUBMIT)
    assert done.returncode == 0, done.stderr
    assert "the step waits until others end" in done.stdout


def test_what_may_not_be_read_is_a_note(arl: Any, cluster: Cluster) -> None:
    cluster.status["/api/v1/nodes"] = 403
    done = arl("doctor", "cluster")
    assert done.returncode == 0, done.stderr
    assert "note    nodes: could not be checked" in done.stdout


def test_a_missing_optional_secret_is_a_warning(arl: Any, cluster: Cluster) -> None:
    del cluster.objects[f"{CORE}/secrets/arl-signing-key"]
    done = arl("doctor", "cluster")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "arl-signing-key" in line)
    assert line.startswith("warning")
    assert "steps release read it" in line


def jwt(expiry: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expiry}).encode()).decode().rstrip("=")
    return f"e30.{claims}.x"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"KFP_ENDPOINT": ""}, "KFP_ENDPOINT is not set"),
        ({"KFP_ENDPOINT": "http://127.0.0.1:9"}, "no Kubeflow Pipelines API answers"),
        ({"KFP_EXISTING_TOKEN": jwt(time.time() - 600)}, "KFP_EXISTING_TOKEN expired"),
        ({"KFP_NAMESPACE": ""}, "KFP_NAMESPACE: is not set"),
    ],
)
def test_a_wrong_address_is_refused(
    arl: Any, kubeflow: Any, changes: dict[str, str], message: str
) -> None:
    done = arl(*SUBMIT, **changes)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert kubeflow.runs == []


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "does not accept the token (401)"), (403, "forbids this account to read the namespace")],
)
def test_a_token_or_namespace_that_is_refused(
    arl: Any, kubeflow: Any, status: int, message: str
) -> None:
    kubeflow.forbid = status
    done = arl(*SUBMIT)
    assert done.returncode == 1
    assert message in done.stderr
    assert kubeflow.runs == []


def test_a_namespace_that_a_server_for_one_user_ignores(arl: Any, kubeflow: Any) -> None:
    """kubeflow/pipelines 2.17.0, backend/src/apiserver/resource/resource_manager.go:2456."""
    kubeflow.multi_user = False
    done = arl(*SUBMIT)
    assert done.returncode == 1
    assert "KFP_NAMESPACE=lab: is ignored by Kubeflow Pipelines for one user" in done.stderr
    assert "overlays/standalone" in done.stderr


def test_without_a_kubeconfig_the_endpoint_is_checked(arl: Any, kubeflow: Any) -> None:
    done = arl("doctor", "cluster", KUBECONFIG="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "objects of the namespace were not checked" in done.stdout

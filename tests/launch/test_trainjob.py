"""A stage on several nodes, against a server with the Kubernetes paths of TrainJobs and pods."""

import http.server
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from safetensors.torch import load_file

from arl.launch.trainjob import Job, train_job

ROOT = Path(__file__).parents[2]
SCHEMAS = [
    json.loads((ROOT / f"tests/pipelines/schemas/trainjob-{release}.json").read_text("utf-8"))
    for release in ("v2.2.0", "v2.3.0")
]
JOB = Job(
    nodes=3,
    processes=4,
    image="arl-train:0.2.0",
    runtime="arl",
    resources={"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"},
    seconds=7200,
    environment={"AWS_ENDPOINT_URL": "https://s3.example"},
    labels={"kueue.x-k8s.io/queue-name": "lab"},
    node_selector={"arl.dev/pool": "gpu"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
    pull_secrets=["registry"],
    topology_key="topology.kubernetes.io/rack",
)
WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w1"}
POD = "/api/v1/namespaces/lab/pods/step-pod"
PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/lab/trainjobs"
PROGRAM = """
import json, sys
from arl.launch import trainjob
job, arguments = json.loads(sys.argv[1])
try:
    settings = {"poll": 0.05, "patience": 2}
    trainjob.run(trainjob.Job(**job), "pretrain", ["seed=3"], "v1", arguments, **settings)
except RuntimeError as error:
    sys.exit(str(error))
"""


def check_schemas(job: dict[str, Any]) -> None:
    """The published definitions of Trainer; unknown fields are errors."""
    for schema in SCHEMAS:
        jsonschema.validate(job, schema)


class Cluster(http.server.ThreadingHTTPServer):
    """TrainJobs by name; `end` says what becomes of one after a few looks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.end = "Complete"
        self.looks = 0
        self.outages = 0  # GETs that are answered by 503
        self.status = 0  # of every answer, where it is not 0
        # uid of the workflow that owns the step's pod
        self.workflow = "uid-1"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _named(self) -> str | None:
        """The job of the path, if it may be looked at."""
        path, _, _ = self.path.partition("?")
        if self.server.status:
            self._answer(self.server.status, {"message": "told"})
            return None
        assert path.startswith(PATH), path
        return path.removeprefix(PATH).removeprefix("/")

    def do_GET(self) -> None:
        if self.path == POD and not self.server.status:
            # Argo makes its workflow the owner of each pod (workflow/controller/workflowpod.go)
            owner = {**WORKFLOW, "uid": self.server.workflow, "controller": True}
            metadata = {"name": "step-pod", "ownerReferences": [owner]}
            self._answer(200, {"kind": "Pod", "apiVersion": "v1", "metadata": metadata})
            return
        name = self._named()
        if name is None:
            return
        if self.server.jobs and self.server.outages:
            self.server.outages -= 1
            self._answer(503, {})
        elif name not in self.server.jobs:
            self._answer(404, {})
        else:
            self.server.looks += 1
            if self.server.looks > 2 and self.server.end:
                _finish(self.server.jobs[name], self.server.end)
            self._answer(200, self.server.jobs[name])

    def do_POST(self) -> None:
        if self._named() is None:
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        check_schemas(body)
        name = body["metadata"]["name"]
        self.server.calls.append(f"create {name}")
        self.server.jobs[name] = body
        self._answer(201, body)

    def do_PATCH(self) -> None:
        name = self._named()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append(f"patch {name}")
        self.server.jobs[name]["metadata"].update(body["metadata"])
        self._answer(200, self.server.jobs[name])

    def do_DELETE(self) -> None:
        name = self._named()
        if name is None:
            return
        self.server.calls.append(f"delete {name}")
        assert "propagationPolicy=Foreground" in self.path
        self._answer(200 if self.server.jobs.pop(name, None) else 404, {})


def _finish(job: dict[str, Any], end: str) -> None:
    """What the controller reports, and what the pods leave on the volume."""
    job["status"] = {"conditions": [condition(end)]}
    if end == "Complete":
        words = job["spec"]["trainer"]["args"]
        checkpoint = Path(words[words.index("--checkpoint") + 1])
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "model.safetensors").write_bytes(b"weights")
        Path(words[words.index("--metrics") + 1]).write_text("{}")


def condition(kind: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": "JobsFinished", "message": "the last word"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    server = Cluster()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def start(cluster: Cluster, folder: Path) -> subprocess.Popen[str]:
    """The step's pod, with a kubeconfig for the server."""
    (folder / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "contexts": [
                    {
                        "name": "lab",
                        "context": {"cluster": "here", "user": "me", "namespace": "lab"},
                    }
                ],
                "clusters": [
                    {
                        "name": "here",
                        "cluster": {"server": f"http://127.0.0.1:{cluster.server_port}"},
                    }
                ],
                "users": [{"name": "me", "user": {"token": "t"}}],
            }
        )
    )
    arguments = {name: str(folder / name) for name in ("corpus", "checkpoint", "metrics")}
    environment = {
        **os.environ,
        "KUBECONFIG": str(folder / "kubeconfig"),
        "ARL_RUNS": str(folder / "runs"),
        "KFP_POD_NAME": "step-pod",
    }
    words = [sys.executable, "-c", PROGRAM, json.dumps([JOB.__dict__, arguments])]
    return subprocess.Popen(
        words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(cluster: Cluster, folder: Path) -> tuple[int, str]:
    process = start(cluster, folder)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def name_of(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "v1") -> str:
    monkeypatch.setenv("ARL_RUNS", str(folder / "runs"))
    arguments = {name: str(folder / name) for name in ("corpus", "checkpoint", "metrics")}
    manifest, _ = train_job(JOB, "pretrain", ["seed=3"], version, arguments)
    return str(manifest["metadata"]["name"])


def test_a_job_is_started_awaited_and_cleared_away(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.outages = 3  # the control plane is away for a moment
    code, output = run(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    assert code == 0, output
    assert f"TrainJob lab/{name} started" in output
    assert cluster.calls == [f"create {name}", f"delete {name}"]
    assert (tmp_path / "checkpoint/model.safetensors").read_bytes() == b"weights"
    assert (tmp_path / "metrics").read_text() == "{}"


def test_the_object_is_what_the_trainer_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARL_RUNS", "/mnt/arl/runs")
    arguments = {
        "corpus": "/mnt/arl/data",
        "checkpoint": "/tmp/kfp/checkpoint",
        "metrics": "/tmp/kfp/metrics",
    }
    manifest, written = train_job(JOB, "pretrain", ["seed=3"], "v1", arguments)
    check_schemas(manifest)
    spec = manifest["spec"]
    assert spec["trainer"]["command"] == ["torchrun", "-m", "arl.cli"]
    # the results go to the volume, since no other pod sees the folders of the step's
    assert spec["trainer"]["args"] == [
        *("pretrain", "--checkpoint", f"{written}/checkpoint", "--corpus", "/mnt/arl/data"),
        *("--metrics", f"{written}/metrics", "seed=3"),
    ]
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (3, 4)
    assert spec["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    assert spec["activeDeadlineSeconds"] == 7200
    variables = {entry["name"]: entry["value"] for entry in spec["trainer"]["env"]}
    assert variables["AWS_ENDPOINT_URL"] == "https://s3.example"
    (patch,) = spec["runtimePatches"]
    # validation.IsDomainPrefixedPath (kubeflow/trainer v2.3.0, .../plugins/jobset/jobset.go:176)
    assert re.fullmatch(r"[a-z0-9.-]+/.+", patch["manager"])
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lab"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["nodeSelector"] == {"arl.dev/pool": "gpu"}
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    (term,) = pod["spec"]["affinity"]["podAffinity"][preferred]
    assert term["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/rack"
    assert written == Path("/mnt/arl/runs") / manifest["metadata"]["name"]


def test_names_are_those_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(tmp_path, monkeypatch) == name_of(tmp_path, monkeypatch)
    assert name_of(tmp_path, monkeypatch) != name_of(tmp_path, monkeypatch, "v2")


def test_a_second_try_adopts_the_job_of_the_first(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.end = ""
    first = start(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    until(lambda: name in cluster.jobs)
    first.kill()  # the node is lost: no farewell
    first.communicate()
    cluster.end = "Complete"
    code, output = run(cluster, tmp_path)
    assert code == 0, output
    assert f"TrainJob lab/{name} is running already: waiting for it" in output
    assert cluster.calls == [f"create {name}", f"delete {name}"]


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_workflow_owns_the_job(cluster: Cluster, tmp_path: Path) -> None:
    """Kubernetes then deletes the job with the workflow, also after the pod was killed."""
    cluster.end = ""
    process = start(cluster, tmp_path)
    until(lambda: cluster.jobs)
    process.kill()
    process.communicate()
    (job,) = cluster.jobs.values()
    assert job["metadata"]["ownerReferences"] == [{**WORKFLOW, "uid": "uid-1"}]


def test_an_adopted_job_outlives_the_workflow_of_its_first_try(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Kubernetes' garbage collector deletes an object when all its owners are gone."""
    cluster.end = ""
    first = start(cluster, tmp_path)
    until(lambda: cluster.jobs)
    first.kill()
    first.communicate()
    cluster.workflow = "uid-2"
    second = start(cluster, tmp_path)
    until(lambda: any(call.startswith("patch") for call in cluster.calls))
    second.kill()
    second.communicate()
    (job,) = cluster.jobs.values()
    assert [owner["uid"] for owner in job["metadata"]["ownerReferences"]] == ["uid-1", "uid-2"]


def test_a_failed_job_is_reported_and_the_next_try_starts_another(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.end = "Failed"
    code, output = run(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    assert code == 1
    assert (
        f"TrainJob lab/{name} failed: JobsFinished, the last word; its logs: kubectl -n lab logs"
        in output
    )
    assert name in cluster.jobs  # to be looked at
    cluster.end, cluster.looks = "Complete", 0
    code, output = run(cluster, tmp_path)
    assert code == 0, output
    assert cluster.calls == [f"create {name}", f"delete {name}", f"create {name}", f"delete {name}"]


def test_termination_deletes_the_job(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.end = ""
    process = start(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    until(lambda: cluster.looks > 0)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"terminated; TrainJob lab/{name} is deleted, its checkpoints are kept" in output
    assert cluster.calls == [f"create {name}", f"delete {name}"]


def test_a_long_outage_ends_in_a_sentence(cluster: Cluster, tmp_path: Path) -> None:
    cluster.outages = 10**6
    code, output = run(cluster, tmp_path)
    assert code == 1
    assert "Kubernetes has not answered for 2 s" in output
    assert len(cluster.jobs) == 1  # the training goes on; a retry of the step adopts it


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_right_names_the_role(cluster: Cluster, tmp_path: Path, status: int) -> None:
    cluster.status = status
    code, output = run(cluster, tmp_path)
    assert code == 1
    assert f"cannot be read ({status}): the step's service account lacks the right" in output
    assert "Traceback" not in output


def test_no_kubernetes_at_all(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, json.dumps([JOB.__dict__, {}])]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "a TrainJob needs a Kubernetes cluster" in done.stderr


def launch_in_processes(count: int, folder: Path, name: str, arguments: dict[str, str]) -> None:
    """A stage as its component launches it in a pod with `count` GPUs."""
    tiny = runpy.run_path(str(ROOT / "tests/conftest.py"))["TINY"]
    program = (
        "import json, sys; from arl.launch.stage import launch;"
        "name, tiny, arguments = json.loads(sys.argv[1]);"
        "launch(name, tiny, 'v', **arguments)"
    )
    words = [sys.executable, "-c", program, json.dumps([name, tiny, arguments])]
    needs = {
        "ARL_LAUNCH": json.dumps({"processes": count, "attempts": 1}),
        "ARL_RUNS": str(folder / "runs"),
    }
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **needs}, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_torchrun_in_the_pod_trains_as_one_process_does(tiny_corpus: Path, tmp_path: Path) -> None:
    losses, weights = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        encoder, model = str(folder / "c"), str(folder / "breast")
        corpus = {"corpus": str(tiny_corpus)}
        launch_in_processes(
            processes,
            folder,
            "pretrain",
            {**corpus, "checkpoint": encoder, "metrics": str(folder / "m.json")},
        )
        assert (folder / "c/model.safetensors").is_file()
        losses.append(
            [step["loss"] for step in json.loads((folder / "m.json").read_text())["history"]]
        )
        same = str(
            tmp_path / "1" / "c"
        )  # one encoder for both, so that only the fine-tuning may differ
        launch_in_processes(
            processes,
            folder,
            "finetune",
            {**corpus, "task": "breast", "checkpoint": same, "model": model},
        )
        weights.append(load_file(folder / "breast" / "model.safetensors"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert weights[0].keys() == weights[1].keys()
    for name, one in weights[0].items():
        torch.testing.assert_close(one, weights[1][name], rtol=1e-3, atol=1e-4)

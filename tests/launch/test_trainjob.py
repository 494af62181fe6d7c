"""A stage on several nodes, against a server that speaks the Kubernetes paths of TrainJobs and plays the controller."""

import http.server
import json
import os
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
SCHEMA = json.loads((ROOT / "tests/pipelines/schemas/trainjob.json").read_text(encoding="utf-8"))
JOB = Job(
    3, 4, "arl-train:0.1.0", "arl", {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"}, 7200
)
PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/lab/trainjobs"
PROGRAM = """
import json, sys
from arl.launch import trainjob
job, arguments = json.loads(sys.argv[1])
try:
    trainjob.run(trainjob.Job(**job), "pretrain", ["seed=3"], "v1", arguments, poll=0.05, patience=2)
except RuntimeError as error:
    sys.exit(str(error))
"""


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
        jsonschema.validate(body, SCHEMA)
        name = body["metadata"]["name"]
        self.server.calls.append(f"create {name}")
        self.server.jobs[name] = body
        self._answer(201, body)

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
    code, told = run(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    assert code == 0, told
    assert f"TrainJob lab/{name} started" in told
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
    jsonschema.validate(manifest, SCHEMA)
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
    code, told = run(cluster, tmp_path)
    assert code == 0, told
    assert f"TrainJob lab/{name} is there already: waiting for it" in told
    assert cluster.calls == [f"create {name}", f"delete {name}"]


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_failed_job_is_told_and_the_next_try_begins_anew(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.end = "Failed"
    code, told = run(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    assert code == 1
    assert (
        f"TrainJob lab/{name} failed: JobsFinished, the last word; its words: kubectl -n lab logs"
        in told
    )
    assert name in cluster.jobs  # to be looked at
    cluster.end, cluster.looks = "Complete", 0
    code, told = run(cluster, tmp_path)
    assert code == 0, told
    assert cluster.calls == [f"create {name}", f"delete {name}", f"create {name}", f"delete {name}"]


def test_termination_deletes_the_job(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.end = ""
    process = start(cluster, tmp_path)
    name = name_of(tmp_path, monkeypatch)
    until(lambda: cluster.looks > 0)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"terminated; TrainJob lab/{name} is deleted, and its checkpoints are kept" in told
    assert cluster.calls == [f"create {name}", f"delete {name}"]


def test_a_long_outage_ends_in_a_sentence(cluster: Cluster, tmp_path: Path) -> None:
    cluster.outages = 10**6
    code, told = run(cluster, tmp_path)
    assert code == 1
    assert "Kubernetes has not answered for 2 s" in told
    assert len(cluster.jobs) == 1  # the training goes on; a retry of the step adopts it


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_right_names_the_role(cluster: Cluster, tmp_path: Path, status: int) -> None:
    cluster.status = status
    code, told = run(cluster, tmp_path)
    assert code == 1
    assert (
        f"cannot be read ({status}): the step's service account may not; k8s/base/rbac.yaml gives it"
        in told
    )
    assert "Traceback" not in told


def test_no_kubernetes_at_all(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, json.dumps([JOB.__dict__, {}])]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "no Kubernetes here to start a TrainJob on" in done.stderr


def launch_in_processes(count: int, folder: Path, name: str, arguments: dict[str, str]) -> None:
    """A stage as its component launches it in a pod with `count` GPUs."""
    tiny = runpy.run_path(str(ROOT / "tests/conftest.py"))["TINY"]
    program = (
        "import json, sys; from arl.launch.stage import launch; name, tiny, arguments = json.loads(sys.argv[1]);"
        "launch(name, tiny, 'v', **arguments)"
    )
    words = [sys.executable, "-c", program, json.dumps([name, tiny, arguments])]
    needs = {"ARL_LAUNCH": json.dumps({"processes": count}), "ARL_RUNS": str(folder / "runs")}
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

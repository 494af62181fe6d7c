"""Released models without a training, and a Kubeflow Pipelines API, for tests of commands."""

import http.server
import itertools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlparse

import pytest
import torch
import yaml

from arl import params as parameters
from arl.model_config import EncoderConfig, TaskHead, TaskModelConfig
from arl.models.avit import AViT
from arl.stages.evaluate import evaluate
from arl.stages.gate import gate
from arl.stages.release import release
from arl.tasks.make import make_kind
from arl.training.checkpoint import save_model

ROOT = Path(__file__).parents[2]


class Released(NamedTuple):
    """Folders of an encoder, models and evaluations, and the registry they were released to."""

    checkpoint: Path
    models: Path
    evaluations: Path
    registry: Path


@pytest.fixture(scope="session")
def shelf(
    tiny_overrides: list[str], tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Measured and released models of breast and lv, for copies of it."""
    params = parameters.load(tiny_overrides, ROOT / "params.yaml")
    tasks = {name: replace(task, floor=0.0, margin=0.99) for name, task in params.task.items()}
    params = replace(params, task=tasks)
    folder = tmp_path_factory.mktemp("released")
    place = Released(*(folder / name for name in Released._fields))
    arguments = {"img_size": params.data.size, **asdict(params.model)}
    config = EncoderConfig(params.data.size, arguments)
    torch.manual_seed(0)
    save_model(place.checkpoint, AViT(**arguments), config)
    for task in params.tasks:
        settings = params.task[task]
        head = TaskHead.of(settings)
        channels = params.finetune.upernet_channels
        network = make_kind(head).build(AViT(**arguments), channels)
        config = TaskModelConfig(params.data.size, arguments, task, head, channels)
        save_model(place.models / task, network, config)
        measured = place.evaluations / task
        evaluate(
            params, task=task, corpus=tiny_corpus, model=place.models / task, evaluation=measured
        )
    files = {
        "models": sorted(place.models.iterdir()),
        "evaluations": sorted(place.evaluations.iterdir()),
        "registry": str(place.registry),
        "decision": folder / "decision",
    }
    gate(params, corpus=tiny_corpus, **files)
    release(params, checkpoint=place.checkpoint, receipt=folder / "receipt.json", **files)
    return folder


@pytest.fixture
def released(shelf: Path, tmp_path: Path) -> Released:
    """Models of breast and lv that a test may change, measured and released."""
    shutil.copytree(shelf, tmp_path / "released")
    return Released(*(tmp_path / "released" / name for name in Released._fields))


_ROOT = "/apis/v2beta1"


class Kubeflow(http.server.ThreadingHTTPServer):
    """Kubeflow Pipelines 2.17, as far as submissions and recurring runs use it.

    What it does follows backend/src/apiserver of kubeflow/pipelines at 2.17.0: pipelines are found
    by name (server/pipeline_server.go), a version is uploaded to a pipeline's id
    (server/pipeline_upload_server.go), and deleting a recurring run terminates its run in progress
    unless propagation_policy is ORPHAN (resource/resource_manager.go).
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.multi_user = False
        self.runs: list[dict[str, Any]] = []
        # by id
        self.recurring: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        # ids of recurring runs with a workflow in progress
        self.in_progress: set[str] = set()
        self.numbers = itertools.count()
        # that change something
        self.calls: list[str] = []
        self.tokens: set[str | None] = set()
        # status of every answer to a POST
        self.refuse = 0
        # status of every list of experiments
        self.forbid = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def package(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """The documents of the pipeline version that a run refers to."""
        reference = run["pipeline_version_reference"]
        version = self.versions[reference["pipeline_version_id"]]
        assert version["pipeline_id"] == reference["pipeline_id"]
        return list(yaml.safe_load_all(version["package"]))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Kubeflow

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: dict[str, Any], code: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        self.server.tokens.add(self.headers.get("Authorization"))
        if path == f"{_ROOT}/healthz":
            self._answer({"multi_user": self.server.multi_user})
        elif path == f"{_ROOT}/experiments":
            if self.server.forbid:
                self._answer({"error": "refused"}, self.server.forbid)
            else:
                experiments = [{"experiment_id": "e1", "display_name": "arl"}]
                self._answer({"experiments": experiments})
        elif path == f"{_ROOT}/recurringruns":
            self._answer({"recurringRuns": list(self.server.recurring.values())})
        elif path.startswith(f"{_ROOT}/pipelines/names/"):
            name = path.rpartition("/")[2]
            found = [p for p in self.server.pipelines.values() if p["name"] == name]
            self._answer(found[0] if found else {"error": "not found"}, 200 if found else 404)
        elif match := re.fullmatch(f"{_ROOT}/pipelines/([^/]+)/versions", path):
            versions = self.server.versions.values()
            own = [v for v in versions if v["pipeline_id"] == match[1]]
            self._answer({"pipeline_versions": [{**v, "package": None} for v in own]})
        else:
            self._answer({"error": f"no {path}"}, 404)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers.get("Authorization"))
        address = urlparse(self.path)
        if self.server.refuse:
            self._answer({"error": "refused"}, self.server.refuse)
        elif address.path == f"{_ROOT}/pipelines/upload_version":
            self._upload(parse_qs(address.query), content)
        elif address.path == f"{_ROOT}/pipelines":
            self._create(self.server.pipelines, "pipeline_id", json.loads(content))
        elif address.path == f"{_ROOT}/runs":
            run = json.loads(content)
            self.server.runs.append(run)
            # columns of 255 characters, written after the workflow has started
            if max(len(run["display_name"]), len(run["description"])) > 255:
                self._answer({"error": "Error 1406: Data too long for column"}, 500)
            else:
                self._answer({"run_id": "r1", "experiment_id": "e1"})
        elif address.path == f"{_ROOT}/recurringruns":
            body = json.loads(content)
            self.server.calls.append(f"make {body['display_name']}")
            self._create(self.server.recurring, "recurring_run_id", body)
        else:
            self._answer({"error": f"no {address.path}"}, 404)

    def _create(self, objects: dict[str, dict[str, Any]], key: str, body: dict[str, Any]) -> None:
        identifier = f"{key[0]}{next(self.server.numbers)}"
        objects[identifier] = {**body, key: identifier}
        self._answer(objects[identifier])

    def _upload(self, query: dict[str, list[str]], content: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        part = next(p for p in content.split(b"--" + boundary) if b"filename=" in p)
        assert b'.yaml"' in part
        name, pipeline = query["name"][0], query["pipelineid"][0]
        assert pipeline in self.server.pipelines
        self.server.calls.append(f"upload {self.server.pipelines[pipeline]['name']}")
        body = {
            "display_name": name,
            "pipeline_id": pipeline,
            "description": query.get("description", [""])[0],
            "package": part.partition(b"\r\n\r\n")[2].decode(),
        }
        self._create(self.server.versions, "pipeline_version_id", body)

    def do_DELETE(self) -> None:
        address = urlparse(self.path)
        identifier = address.path.removeprefix(f"{_ROOT}/recurringruns/")
        self.server.calls.append(f"delete {self.server.recurring.pop(identifier)['display_name']}")
        if parse_qs(address.query).get("propagation_policy") != ["ORPHAN"]:
            self.server.in_progress.discard(identifier)
        self._answer({})


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    server = Kubeflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

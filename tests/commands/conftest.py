"""Models that no one has trained, measured and released, and a Kubeflow Pipelines API, for commands that use them."""

import http.server
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import pytest
import torch

from arl import params as parameters
from arl.model_config import EncoderConfig, TaskHead, TaskModelConfig
from arl.models.avit import AViT
from arl.stages.evaluate import evaluate
from arl.stages.gate import gate
from arl.stages.release import release
from arl.training.checkpoint import build_task_model, save_model

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
        head = TaskHead(settings.kind, settings.classes, settings.anatomy, settings.mask)
        channels = params.finetune.upernet_channels
        network = build_task_model(AViT(**arguments), head, channels)
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
    """The calls of submissions and recurring runs, in the paths and names of v2beta1, and what the server holds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: list[dict[str, Any]] = []
        self.recurring: dict[str, dict[str, Any]] = {}  # by id
        self.numbers = itertools.count()
        self.calls: list[str] = []  # that change something
        self.tokens: set[str | None] = set()
        self.refuse = 0  # status of every answer to a POST

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


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
        if path == f"{_ROOT}/healthz":
            self._answer({"multi_user": False})
        elif path == f"{_ROOT}/experiments":
            self._answer({"experiments": [{"experiment_id": "e1", "display_name": "arl"}]})
        elif path == f"{_ROOT}/recurringruns":
            self._answer({"recurringRuns": list(self.server.recurring.values())})
        else:
            self._answer({"error": f"no {path}"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.tokens.add(self.headers.get("Authorization"))
        path = urlparse(self.path).path
        if self.server.refuse:
            self._answer({"error": "told"}, self.server.refuse)
        elif path == f"{_ROOT}/runs":
            self.server.runs.append(body)
            self._answer({"run_id": "r1", "experiment_id": "e1"})
        elif path == f"{_ROOT}/recurringruns":
            identifier = f"j{next(self.server.numbers)}"
            self.server.calls.append(f"make {body['display_name']}")
            self.server.recurring[identifier] = {**body, "recurring_run_id": identifier}
            self._answer(self.server.recurring[identifier])
        else:
            self._answer({"error": f"no {path}"}, 404)

    def do_DELETE(self) -> None:
        identifier = urlparse(self.path).path.removeprefix(f"{_ROOT}/recurringruns/")
        self.server.calls.append(f"delete {self.server.recurring.pop(identifier)['display_name']}")
        self._answer({})


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    server = Kubeflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

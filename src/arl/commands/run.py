"""Run a Kubeflow pipeline file on this machine, or submit it to a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

BACKENDS = ("local", "kfp")


def run(
    pipeline: Path,
    overrides: list[str],
    *,
    backend: str = "local",
    corpus: Path | None = None,
    registry: Path | None = None,
    data_hash: str = "",
    root: Path = Path("runs"),
) -> None:
    """Run a pipeline, e.g. `arl run pipelines/arl_full.py --backend kfp pretrain.epochs=5`.

    local runs each step in a subprocess of this machine and keeps its files below --root; kfp compiles the pipeline
    and submits it to the Kubeflow Pipelines API at KFP_ENDPOINT (and KFP_NAMESPACE). Words of the form key=value
    override params.yaml in every step. --corpus and --registry are folders as the steps see them; --data-hash is the
    corpus' hash, by default the one in data.dvc.

    Raises:
        ValueError: an unknown backend, an override that breaks the schema, or no tasks.
        FileNotFoundError: there is no such pipeline, params.yaml or data.dvc.
        SystemExit: the run failed; it has said why.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if not pipeline.is_file():
        raise FileNotFoundError(f"pipeline {pipeline} does not exist")
    arguments: dict[str, Any] = {
        "tasks": _tasks(overrides),
        "overrides": overrides,
        "data_hash": data_hash or _tracked_hash(corpus or Path("data")),
    }
    folders = {"corpus": corpus, "registry": registry}
    arguments |= {name: str(path) for name, path in folders.items() if path is not None}
    command = [sys.executable, "-m", "pipelines.runner", backend, str(pipeline), str(root)]
    code = subprocess.run(
        command, input=json.dumps(arguments), text=True, env=_environment(pipeline, backend), check=False
    ).returncode
    if code:
        raise SystemExit(code)


def _tasks(overrides: list[str]) -> list[str]:
    from arl import params  # 0.1 s, which no help needs

    tasks = params.load(overrides).tasks
    if not tasks:
        raise ValueError("tasks is empty: a pipeline needs at least one task to fine-tune, e.g. tasks=[breast]")
    return tasks


def _tracked_hash(corpus: Path) -> str:
    record = Path(f"{corpus}.dvc")
    if not record.is_file():
        raise FileNotFoundError(f"{record} does not exist: `dvc add {corpus}` makes it, or give --data-hash")
    return str(yaml.safe_load(record.read_text(encoding="utf-8"))["outs"][0]["md5"])


def _environment(pipeline: Path, backend: str) -> dict[str, str]:
    project = str(pipeline.resolve().parents[1])
    paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # one machine has no volumes or accelerators to ask for, and a failed step fails again
    return environment | ({"ARL_CLUSTER": ""} if backend == "local" else {})

"""Run a Kubeflow pipeline file on this machine, in containers of it, or on a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import yaml

BACKENDS = ("local", "docker", "kfp")
# keys of an entry of --batches
_REQUIRED = {"source", "root"}
_OPTIONS = {"name", "site", "anatomy", "probe", "device", "mask_name"}  # of `arl ingest`


def run(
    pipeline: Path,
    overrides: list[str],
    *,
    backend: Literal["local", "docker", "kfp"] = "local",
    experiment: str = "",
    set: list[str] = [],  # noqa: B006  read from the source text by the command line, never changed
    batches: Path | None = None,
    corpus: str = "",
    registry: str = "",
    data_hash: str = "",
    root: Path = Path("runs"),
) -> None:
    """Run a pipeline on this machine, in containers or on Kubeflow.

    The backend local runs each step in a subprocess. docker runs each step in a container of the
    image ARL_IMAGE, without a network or root. kfp submits the pipeline to the API at KFP_ENDPOINT
    (and KFP_NAMESPACE).

    Args:
        pipeline: A pipeline file, e.g. pipelines/arl_full.py.
        overrides: Words of the form key=value on params.yaml.
        backend: Where the steps run.
        experiment: A file of conf/experiment whose parameters replace params.yaml.
        set: Words of the form key=value, as without --set.
        batches: A YAML list of batches to ingest first: source, root, batch, parts and options.
        corpus: The corpus as the steps see it, a folder or s3://bucket/prefix.
        registry: The registry as the steps see it, a folder or s3://bucket/prefix.
        data_hash: Hash of the corpus. Default: the one in data.dvc.
        root: Folder of the files of the backends local and docker.

    Raises:
        ValueError: an unknown backend, an override that breaks the schema, no tasks, or a wrong
            list of batches.
        FileNotFoundError: there is no such pipeline, params.yaml, list of batches or data.dvc.
        SystemExit: the run failed; it has said why.

    Next:
        arl models --registry {registry}

    Examples:
        arl run pipelines/arl_full.py
        arl run pipelines/arl_full.py --backend kfp --experiment paper --corpus s3://arl/corpus
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if not pipeline.is_file():
        raise FileNotFoundError(f"pipeline {pipeline} does not exist")
    tasks, changes = parameters([*overrides, *set], experiment, in_image=backend != "local")
    arguments: dict[str, Any] = {
        "tasks": tasks,
        "overrides": changes,
        "batches": _batches(batches) if batches else [],
        "data_hash": data_hash or _tracked_hash(corpus or "data"),
    }
    arguments |= _folders(backend, corpus, registry)
    if backend != "kfp" and not arguments["batches"]:
        _check_there(corpus or "data")
    command = [sys.executable, "-m", "pipelines.runner", backend, str(pipeline), str(root)]
    code = subprocess.run(
        command,
        input=json.dumps(arguments),
        text=True,
        env=environment(pipeline, backend),
        check=False,
    ).returncode
    if code:
        raise SystemExit(code)


def _check_there(corpus: str) -> None:
    """A fresh clone knows the version of a corpus and has none."""
    if "://" not in corpus and not Path(corpus).is_dir():
        raise FileNotFoundError(
            f"corpus {corpus} does not exist: `arl sample --corpus {corpus}` makes one of phantoms, `arl ingest` reads "
            "yours, `dvc pull` fetches the one of this project's remote; or give --batches"
        )


def _folders(backend: str, corpus: str, registry: str) -> dict[str, str]:
    """Corpus and registry as the steps see them; what is not given is left to the pipeline."""
    if backend == "docker":  # a container sees the folders of this machine under their own names
        for what, place in (("corpus", corpus), ("registry", registry)):
            if "://" in place:
                raise ValueError(
                    f"{what} {place} is not a folder, and the containers of --backend docker have no network"
                )
        return {
            "corpus": str(Path(corpus or "data").absolute()),
            "registry": str(Path(registry or "registry").absolute()),
        }
    given = {"corpus": corpus, "registry": registry}
    return {name: value for name, value in given.items() if value}


def parameters(words: list[str], experiment: str, *, in_image: bool) -> tuple[list[str], list[str]]:
    """The tasks, and the words key=value that lead from the parameters that the steps find to the wanted ones.

    Steps on this machine find params.yaml; those in an image find what conf/ gives without any
    choice.
    """
    from arl import params  # 0.1 s, which no help needs
    from arl.composition import compose

    wanted = compose([f"experiment={experiment}", *words]) if experiment else params.load(words)
    if not wanted.tasks:
        raise ValueError(
            "tasks is empty: a pipeline needs at least one task to fine-tune, e.g. tasks=[breast]"
        )
    found = compose([]) if in_image else params.load([])
    return wanted.tasks, _changes(params.to_literals(found), params.to_literals(wanted))


def _changes(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    changes = []
    for key, value in wanted.items():
        before = found[key]
        if isinstance(value, dict) and isinstance(before, dict) and value.keys() == before.keys():
            changes += _changes(before, value, f"{prefix}{key}.")
        elif value != before:
            changes.append(f"{prefix}{key}={json.dumps(value)}")  # JSON is YAML
    return changes


def _batches(file: Path) -> list[dict[str, Any]]:
    """The batches of a file, one item for each part that a pod is to read."""
    if not file.is_file():
        raise FileNotFoundError(f"list of batches {file} does not exist")
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise ValueError(f"{file} must be a list of {{source, root, batch, parts, ...}}")
    items = [item for entry in listed for item in _parts(file, entry)]
    names = [(item["options"].get("name", item["source"]), item["batch"]) for item in items]
    twice = sorted({"/".join(name) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{file}: {', '.join(twice)} is listed twice; every batch of a source needs a name of its own"
        )
    return items


def _parts(file: Path, entry: dict[str, Any]) -> list[dict[str, Any]]:
    parts = entry.get("parts", 1)
    known = _REQUIRED | _OPTIONS | {"batch", "parts"}
    if entry.keys() - known or _REQUIRED - entry.keys() or not isinstance(parts, int) or parts < 1:
        rule = f"a batch has source and root, and may have {', '.join(sorted(known - _REQUIRED))}, a whole number from 1"
        raise ValueError(f"{file}: {entry} does not fit: {rule}")
    options = {key: str(entry[key]) for key in sorted(_OPTIONS & entry.keys())}
    item = {"source": str(entry["source"]), "root": str(entry["root"]), "options": options}
    batch, width = str(entry.get("batch", "0000")), len(str(parts))
    names = (
        [batch] if parts == 1 else [f"{batch}-{number:0{width}d}" for number in range(1, parts + 1)]
    )
    return [
        item | {"batch": name, "part": f"{number}/{parts}"} for number, name in enumerate(names, 1)
    ]


def _tracked_hash(corpus: str) -> str:
    if "://" in corpus:
        return ""
    record = Path(f"{corpus}.dvc")
    if not record.is_file():
        raise FileNotFoundError(
            f"{record} does not exist: `dvc add {corpus}` makes it, or give --data-hash"
        )
    return str(yaml.safe_load(record.read_text(encoding="utf-8"))["outs"][0]["md5"])


def environment(pipeline: Path, backend: str) -> dict[str, str]:
    """The variables of the process that runs or submits a pipeline file."""
    project = str(pipeline.resolve().parents[1])
    paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # one machine has no volumes or accelerators to ask for, and a failed step fails again
    return variables | ({} if backend == "kfp" else {"ARL_CLUSTER": ""})

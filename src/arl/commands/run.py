"""Run a Kubeflow pipeline file on this machine, in containers, or on a cluster."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml

from arl.launch.request import BatchPart, Request

BACKENDS = ("local", "docker", "kfp")
# keys of an entry of --batches
_REQUIRED = {"source", "root"}
# options of `arl ingest`
_OPTIONS = {"name", "site", "anatomy", "probe", "device", "mask_name"}


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
    root: str = "runs",
    name: str = "",
    description: str = "",
    dry_run: bool = False,
) -> None:
    """Run a pipeline on this machine, in containers or on Kubeflow.

    The backend local runs each step in a subprocess. docker runs each step in a container of its
    image, without a network. kfp checks the cluster, uploads a version of the pipeline to the API
    at KFP_ENDPOINT, and starts a run of it in KFP_NAMESPACE.

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
        name: Name of the run on Kubeflow. Default: pipeline, experiment, data and commit.
        description: Description of the run on Kubeflow. Default: the facts of its name in full.
        dry_run: With kfp, check the cluster and print what would run.

    Raises:
        ValueError: an unknown backend, an override that breaks the schema, no tasks, or a wrong
            list of batches.
        FileNotFoundError: there is no such pipeline, params.yaml, list of batches or data.dvc.
        SystemExit: the run failed; its message is on stderr.

    Next:
        arl models --registry {registry}

    Examples:
        arl run pipelines/arl_full.py
        arl run pipelines/arl_full.py --backend kfp --experiment paper --dry-run
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if dry_run and backend != "kfp":
        raise ValueError(f"--dry-run is for --backend kfp, not for {backend}")
    check_pipeline(pipeline)
    # importing it takes 0.1 s, which no help needs
    from arl.composition import changed_parameters

    tasks, changes = changed_parameters([*overrides, *set], experiment, in_image=backend != "local")
    version = data_hash or _tracked_hash(corpus or "data")
    new_batches = read_batches(batches) if batches else []
    arguments: dict[str, object] = {
        "tasks": tasks,
        "overrides": changes,
        "batches": new_batches,
        "data_hash": version,
        **_folders(backend, corpus, registry),
    }
    # A fresh clone knows the version of a corpus (data.dvc) and has no corpus.
    folder = corpus or "data"
    if backend != "kfp" and not new_batches and "://" not in folder and not Path(folder).is_dir():
        raise FileNotFoundError(
            f"corpus {folder} does not exist: `arl sample --corpus {folder}` makes one of phantoms,"
            " `arl ingest` reads yours, `dvc pull` fetches the one of this project's remote; "
            "or give --batches"
        )
    facts = {
        "experiment": experiment or "params.yaml",
        "data": version or "as validate reads it",
        "commit": _commit() or "unknown",
        "changes": " ".join(changes) or "none",
    }
    request = Request(
        pipeline=str(pipeline),
        arguments=arguments,
        root=root,
        name=name or _run_name(pipeline, experiment, version),
        description=description or "; ".join(f"{key}: {value}" for key, value in facts.items()),
        dry_run=dry_run,
    )
    start(backend, request, environment(pipeline, backend))


def start(command: str, request: Request, variables: dict[str, str]) -> None:
    """Hand a request to the process that knows kfp.

    Raises:
        SystemExit: it failed; its message is on stderr.
    """
    code = subprocess.run(
        # kfp takes a second to import and is in an extra of its own.
        [sys.executable, "-m", "pipelines.runner", command],
        input=request.to_json(),
        text=True,
        env=variables,
        check=False,
    ).returncode
    if code:
        raise SystemExit(code)


def check_pipeline(pipeline: Path) -> None:
    """Raise FileNotFoundError where there is no such pipeline file."""
    if not pipeline.is_file():
        raise FileNotFoundError(f"pipeline {pipeline} does not exist")


def _run_name(pipeline: Path, experiment: str, data_hash: str) -> str:
    """arl-full paper data-1a2b3c4d code-5e6f7a8b: Kubeflow lists runs by this name."""
    commit = _commit()
    parts = [
        pipeline.stem.replace("_", "-"),
        experiment,
        f"data-{data_hash[:8]}" if data_hash else "",
        f"code-{commit[:8]}" if commit else "",
    ]
    return " ".join(filter(None, parts))


def _commit() -> str:
    """The commit of the working directory, with -dirty where files differ; empty without git."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return commit.stdout.strip()


def _folders(backend: str, corpus: str, registry: str) -> dict[str, str]:
    """Corpus and registry as the steps see them; the pipeline has defaults for what is missing."""
    if backend != "docker":
        folders = {"corpus": corpus, "registry": registry}
        return {name: value for name, value in folders.items() if value}
    # a container sees the folders of this machine under their own names
    for name, folder in (("corpus", corpus), ("registry", registry)):
        if "://" in folder:
            raise ValueError(
                f"{name} {folder} is not a folder, "
                "and the containers of --backend docker have no network"
            )
    return {
        "corpus": str(Path(corpus or "data").absolute()),
        "registry": str(Path(registry or "registry").absolute()),
    }


def read_batches(file: Path) -> list[BatchPart]:
    """The batches of a file, one item for each part that a pod is to read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not hold a list of batches, or lists one twice.
    """
    if not file.is_file():
        raise FileNotFoundError(f"list of batches {file} does not exist")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file} must be a list of {{source, root, batch, parts, ...}}")
    items = [item for entry in entries for item in _parts(file, entry)]
    # two pods that write one batch would each find the other's half
    names = [(item["options"].get("name", item["source"]), item["batch"]) for item in items]
    duplicates = sorted({"/".join(name) for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(
            f"{file}: {', '.join(duplicates)} is listed twice; "
            "every batch of a source needs a name of its own"
        )
    return items


def _parts(file: Path, entry: Mapping[str, object]) -> list[BatchPart]:
    parts = entry.get("parts", 1)
    optional = _OPTIONS | {"batch", "parts"}
    is_known = entry.keys() <= _REQUIRED | optional and entry.keys() >= _REQUIRED
    if not is_known or not isinstance(parts, int) or parts < 1:
        raise ValueError(
            f"{file}: {entry} does not fit: a batch has source and root, and may have "
            f"{', '.join(sorted(optional))}; parts is a whole number from 1"
        )
    options = {key: str(entry[key]) for key in sorted(_OPTIONS & entry.keys())}
    batch, width = str(entry.get("batch", "0000")), len(str(parts))
    return [
        BatchPart(
            source=str(entry["source"]),
            root=str(entry["root"]),
            batch=batch if parts == 1 else f"{batch}-{number:0{width}d}",
            part=f"{number}/{parts}",
            options=options,
        )
        for number in range(1, parts + 1)
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
    return variables | ({"ARL_CLUSTER": ""} if backend in ("local", "docker") else {})

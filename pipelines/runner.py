"""Run the pipeline of one file here, or submit it: `python -m pipelines.runner BACKEND FILE ROOT < arguments.json`.

`arl run` starts this as a child process, because kfp.local leaves `print` and the root logger
changed.
"""

import importlib.util
import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from kfp import dsl, local

from pipelines import server

PipelineFunction = dsl.graph_component.GraphComponent
_COLOUR = re.compile("\x1b\\[[0-9;]*m")  # kfp colours its errors, also in a log file


def load_pipeline(file: Path) -> PipelineFunction:
    """The one pipeline that a file defines.

    Raises:
        ValueError: there is none, or more than one.
    """
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [value for value in vars(module).values() if isinstance(value, PipelineFunction)]
    if len(found) != 1:
        raise ValueError(
            f"{file} defines {len(found)} pipelines; `arl run` needs exactly one @dsl.pipeline function"
        )
    return found[0]


def accepted(pipeline: PipelineFunction, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the pipeline has; a ValueError names one that it needs and is not there."""
    inputs = pipeline.component_spec.inputs or {}
    missing = [name for name, spec in inputs.items() if not spec.optional and name not in arguments]
    if missing:
        raise ValueError(
            f"pipeline {pipeline.name} needs {', '.join(missing)}, which `arl run` does not give"
        )
    return {name: value for name, value in arguments.items() if name in inputs}


def run_local(pipeline: PipelineFunction, arguments: dict[str, Any], root: Path) -> str:
    """Run every step in a subprocess of this machine and environment; artifacts go below `root`.

    Raises:
        ValueError: kfp.local would change an argument.
    """
    # it replaces this word by the interpreter's path in all that it hands to a step, e.g.
    # /opt/python3.11/data
    told = json.dumps([arguments, str(root.absolute())])
    changed = re.search(r'[^"]*python3[^"]*', told)
    if changed:
        raise ValueError(
            f"{changed[0]}: kfp.local cannot hand over names with python3 in them; rename it, or link to it"
        )
    # the image is not used here, so its name does not matter
    warnings.filterwarnings("ignore", message=".*image", category=RuntimeWarning)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    return _run(pipeline, arguments, root)


def run_docker(pipeline: PipelineFunction, arguments: dict[str, Any], root: Path) -> str:
    """Run every step in a container of its image: as this user, on a read-only root, without a network.

    Raises:
        ValueError: no Docker daemon answers, or a folder to be read is not there.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
        runtimes = client.info().get("Runtimes", {})
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST", "the default socket")
        raise ValueError(f"no Docker daemon answers at {where}: {error}") from error
    written = [Path(arguments[name]) for name in ("corpus", "registry") if name in arguments]
    states = Path(os.environ.get("ARL_RUNS", root)).absolute()
    for folder in {*written, states, root.absolute()}:
        folder.mkdir(parents=True, exist_ok=True)
    read = {Path(item["root"]).absolute() for item in arguments.get("batches", [])}
    gone = sorted(str(folder) for folder in read if not folder.exists())
    if gone:
        raise ValueError(f"{gone[0]} does not exist: it is the root of a batch to be read")
    # kfp itself mounts the root
    mounts = [_mount(folder, False) for folder in {*written, states} - {root.absolute()}]
    mounts += [_mount(folder, True) for folder in read]
    gpus = (
        [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
        if "nvidia" in runtimes
        else []
    )
    hash_key = {name: os.environ[name] for name in ("ARL_HASH_KEY",) if name in os.environ}
    runner = local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "exec"},
        shm_size="2g",
        mounts=mounts,
        device_requests=gpus,
        environment={"ARL_RUNS": str(states), **hash_key},
    )
    local.init(runner, pipeline_root=str(root.absolute()))
    try:
        return _run(pipeline, arguments, root.absolute())
    except DockerException as error:
        raise ValueError(f"Docker could not run a step: {error}") from error


def _mount(folder: Path, read_only: bool) -> Any:
    import docker

    return docker.types.Mount(str(folder), str(folder), type="bind", read_only=read_only)


def _run(pipeline: PipelineFunction, arguments: dict[str, Any], root: Path) -> str:
    before = set(root.glob("*/"))
    outputs = pipeline(**arguments).outputs
    (folder,) = set(root.glob(f"{pipeline.name}-*/")) - before
    _check_written(pipeline, folder)
    told = [f"page: {page}" for page in sorted(folder.glob("*/*/index.html"))]
    told += [f"{name}: {value}" for name, value in outputs.items()]
    return "\n".join([*told, f"artifacts: {folder}"])


def _check_written(pipeline: PipelineFunction, folder: Path) -> None:
    """A container that dies fast may be taken for one that ended well (kubeflow/pipelines#13332): look at the files."""
    spec = pipeline.pipeline_spec
    for name, component in spec.components.items():
        if component.WhichOneof("implementation") == "dag":
            continue
        step = name.removeprefix("comp-")
        for output in component.output_definitions.artifacts:
            ran = list(folder.rglob(f"{step}/executor_output.json"))
            lost = [file.parent for file in ran if not (file.parent / output).exists()]
            if lost:
                raise RuntimeError(
                    f"step {step} ended without its {output}, in {lost[0]}: look at what it printed"
                )


def schedule(text: str) -> str:
    """Keep the recurring runs of a JSON list {name, pipeline, cron, enabled, arguments}."""
    wanted = []
    for item in json.loads(text):
        pipeline = load_pipeline(Path(item["pipeline"]))
        arguments = accepted(pipeline, item["arguments"])
        wanted.append(
            server.Recurring(item["name"], pipeline, arguments, item["cron"], item["enabled"])
        )
    return "\n".join(server.keep_recurring(wanted, server.Address.from_environment()))


def run(backend: str, file: str, root: str) -> str:
    """Run the pipeline of a file with the arguments on stdin; returns what is told of it."""
    pipeline = load_pipeline(Path(file))
    arguments = accepted(pipeline, json.load(sys.stdin))
    if backend == "kfp":
        return f"run: {server.submit(pipeline, arguments, server.Address.from_environment())}"
    return {"local": run_local, "docker": run_docker}[backend](pipeline, arguments, Path(root))


def main(command: str, *words: str) -> int:
    """Run a pipeline, or `schedule`; a failure is one sentence and exit code 1."""
    try:
        told = schedule(sys.stdin.read()) if command == "schedule" else run(command, *words)
    except (ValueError, RuntimeError) as error:
        sys.stderr.write(
            f"arl {'schedule' if command == 'schedule' else 'run'}: {_COLOUR.sub('', str(error))}\n"
        )
        return 1
    sys.stdout.write(told + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

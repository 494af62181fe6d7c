"""Run, compile or submit a pipeline file: `python -m pipelines.runner COMMAND < request.json`.

`arl run` and its relatives start this as a child process, see `arl.launch.request`.
"""

import importlib.util
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl, local

from arl.launch.request import Request
from components.images import TARGETS, image_of
from components.version import code_version
from pipelines import server
from pipelines.address import Address
from pipelines.endpoint import Finding, check_endpoint
from pipelines.expectations import Expectations, expectations, require_digests, steps_in
from pipelines.settings import settings

PipelineFunction = dsl.graph_component.GraphComponent
# kfp colours its errors, also in a log file
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
# artifacts without a file: all they hold is metadata
_WITHOUT_FILE = ("system.Metrics", "system.ClassificationMetrics")


def load_pipeline(file: Path) -> PipelineFunction:
    """The one pipeline that a file defines.

    Raises:
        ValueError: there is none, or more than one.
    """
    # by path, because a pipeline file of a user need not be importable
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pipelines = [value for value in vars(module).values() if isinstance(value, PipelineFunction)]
    if len(pipelines) != 1:
        raise ValueError(
            f"{file} defines {len(pipelines)} pipelines; "
            "`arl run` needs exactly one @dsl.pipeline function"
        )
    return pipelines[0]


def matching(pipeline: PipelineFunction, arguments: Mapping[str, object]) -> dict[str, object]:
    """Those of the arguments that the pipeline has.

    Raises:
        ValueError: the pipeline needs an argument that is not there.
    """
    inputs = pipeline.component_spec.inputs or {}
    missing = [name for name, spec in inputs.items() if not spec.optional and name not in arguments]
    if missing:
        raise ValueError(
            f"pipeline {pipeline.name} needs {', '.join(missing)}, which `arl run` does not give"
        )
    return {name: value for name, value in arguments.items() if name in inputs}


def run_local(request: Request) -> list[str]:
    """Run every step in a subprocess of this machine; artifacts go below `root`.

    Raises:
        ValueError: kfp.local would change an argument.
    """
    root = Path(request.root)
    pipeline = load_pipeline(Path(request.pipeline))
    arguments = matching(pipeline, request.arguments)
    # kfp.local replaces this word by the path of the interpreter in all that it hands to a step,
    # e.g. in /opt/python3.11/data
    words = json.dumps([arguments, str(root.absolute())])
    changed = re.search(r'[^"]*python3[^"]*', words)
    if changed:
        raise ValueError(
            f"{changed[0]}: kfp.local cannot pass names with python3 in them; "
            "rename it, or link to it"
        )
    # the image is not used here, so its name does not matter
    warnings.filterwarnings("ignore", message=".*image", category=RuntimeWarning)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    return _run(pipeline, arguments, root)


def run_docker(request: Request) -> list[str]:
    """Run every step in a container of its image, without a network, as this user.

    The images are fixed by their ids, so all steps run the same ones. The root file system is
    read-only.

    Raises:
        ValueError: no Docker daemon answers, an image is missing, or a folder does not exist.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
        runtimes = client.info().get("Runtimes", {})
    except DockerException as error:
        host = os.environ.get("DOCKER_HOST", "the default socket")
        raise ValueError(f"no Docker daemon answers at {host}: {error}") from error
    try:
        _fix_images(client)
        # the components read the names of the images when this imports them
        pipeline = load_pipeline(Path(request.pipeline))
        arguments = matching(pipeline, request.arguments)
        root = Path(request.root).absolute()
        runner = _docker_runner(docker, arguments, root, with_gpus="nvidia" in runtimes)
        local.init(runner, pipeline_root=str(root))
        return _run(pipeline, arguments, root)
    except DockerException as error:
        raise ValueError(f"Docker could not run a step: {error}") from error


def _fix_images(client: Any) -> None:
    """Tag each image by its id and use this tag, because kfp's runner finds images by tag only."""
    from docker.errors import ImageNotFound

    for target in TARGETS:
        image = image_of(target)
        try:
            local_image = client.images.get(image)
        except ImageNotFound as error:
            raise ValueError(
                f"there is no image {image}: docker build --target {target} -t {image} ."
            ) from error
        tag = local_image.id.removeprefix("sha256:")
        # a tag may move to another image while the run is in progress
        local_image.tag(f"arl-{target}", tag=f"id-{tag}")
        os.environ[f"ARL_IMAGE_{target.upper()}"] = f"arl-{target}:id-{tag}"


def _docker_runner(
    docker: Any, arguments: dict[str, Any], root: Path, *, with_gpus: bool
) -> local.DockerRunner:
    written = [Path(arguments[name]) for name in ("corpus", "registry") if name in arguments]
    states = Path(os.environ.get("ARL_RUNS", root)).absolute()
    for folder in {*written, states, root}:
        folder.mkdir(parents=True, exist_ok=True)
    sources = {Path(item["root"]).absolute() for item in arguments.get("batches", [])}
    missing = sorted(str(folder) for folder in sources if not folder.exists())
    if missing:
        raise ValueError(f"{missing[0]} does not exist: it is the root of a batch to ingest")

    def mount(folder: Path, read_only: bool) -> Any:
        return docker.types.Mount(str(folder), str(folder), type="bind", read_only=read_only)

    # kfp itself mounts the root
    mounts = [mount(folder, False) for folder in {*written, states} - {root}]
    mounts += [mount(folder, True) for folder in sources]
    gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if with_gpus else []
    hash_key = {name: os.environ[name] for name in ("ARL_HASH_KEY",) if name in os.environ}
    # As close to the restricted pods of a cluster as Docker gets: what works here needs no root, no
    # network and no writable root there.
    return local.DockerRunner(
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


def _run(pipeline: PipelineFunction, arguments: Mapping[str, object], root: Path) -> list[str]:
    before = set(root.glob("*/"))
    # kfp.local names the folder of a run by the time and does not return it
    outputs = pipeline(**arguments).outputs
    (folder,) = set(root.glob(f"{pipeline.name}-*/")) - before
    _check_outputs(pipeline, folder)
    lines = [f"page: {page}" for page in sorted(folder.glob("*/*/index.html"))]
    lines += [f"{name}: {value}" for name, value in outputs.items()]
    return [*lines, f"artifacts: {folder}"]


def _check_outputs(pipeline: PipelineFunction, folder: Path) -> None:
    """Check the files of every step.

    kfp may take a container that dies fast for one that ended well (kubeflow/pipelines#13332).
    """
    for name, component in pipeline.pipeline_spec.components.items():
        if component.WhichOneof("implementation") == "dag":
            continue
        step = name.removeprefix("comp-")
        for output, spec in component.output_definitions.artifacts.items():
            if spec.artifact_type.schema_title in _WITHOUT_FILE:
                continue
            ended = list(folder.rglob(f"{step}/executor_output.json"))
            lost = [file.parent for file in ended if not (file.parent / output).exists()]
            if lost:
                raise RuntimeError(
                    f"step {step} ended without its {output}, in {lost[0]}; "
                    "its output above says why"
                )


def run_kfp(request: Request) -> list[str]:
    """Check the cluster, upload the pipeline and start a run; with dry_run only check.

    Raises:
        ValueError: a check found a problem, or the server refuses.
    """
    require_digests(settings())
    file = Path(request.pipeline)
    lines = check(file)
    pipeline = load_pipeline(file)
    arguments = matching(pipeline, request.arguments)
    if request.dry_run:
        values = [f"{name}: {json.dumps(value)}" for name, value in arguments.items()]
        return [
            *lines,
            *expected_of(file).lines(),
            f"run: {request.name}",
            f"description: {request.description}",
            *values,
            "nothing was submitted (--dry-run)",
        ]
    run = server.Run(pipeline, arguments, request.name, request.description)
    return [*lines, f"run: {server.submit(run, Address.from_environment())}"]


def check(file: Path) -> list[str]:
    """Check endpoint and cluster before a submission; returns the warnings.

    Raises:
        ValueError: there is a problem; the message lists all of them.
    """
    findings = diagnose(expected_of(file))
    problems = [finding for finding in findings if finding.level == "problem"]
    if problems:
        raise ValueError("nothing was submitted:\n" + "\n".join(map(str, problems)))
    return [str(finding) for finding in findings if finding.level == "warning"]


def diagnose(expected: Expectations) -> list[Finding]:
    """All findings about the endpoint, and about the cluster where there is a kubeconfig."""
    address = Address.from_environment()
    findings, multi_user = check_endpoint(address)
    if any(finding.level == "problem" for finding in findings):
        return findings
    cluster = settings()
    assert cluster is not None
    # importing the Kubernetes client takes half a second
    from pipelines.doctor import Target, check_cluster
    from pipelines.kube import Kube, UnreachableError

    try:
        kube = Kube()
    except UnreachableError as error:
        message = f"objects of the namespace were not checked: {error}"
        return [*findings, Finding("note", "Kubernetes", message, "set KUBECONFIG")]
    namespace = address.namespace or ("kubeflow" if not multi_user else kube.current_namespace())
    target = Target(cluster, expected, kube, namespace, multi_user)
    return [*findings, *check_cluster(target)]


def expected_of(file: Path) -> Expectations:
    """What the steps of a pipeline file expect of the cluster.

    Raises:
        ValueError: ARL_CLUSTER is empty.
    """
    cluster = settings()
    if cluster is None:
        raise ValueError("ARL_CLUSTER is empty: a cluster needs its settings")
    return expectations(cluster, steps_in(file))


def compile_file(request: Request) -> list[str]:
    """Compile a pipeline to a YAML file; returns what it expects of the cluster.

    Raises:
        ValueError: an image is named by tag.
    """
    require_digests(settings())
    file = Path(request.pipeline)
    pipeline = load_pipeline(file)
    output = Path(request.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with server.compiled(pipeline) as package:
        output.write_bytes(Path(package).read_bytes())
    return [f"pipeline: {output}", f"code: {code_version()}", *expected_of(file).lines()]


def upload(request: Request) -> list[str]:
    """Upload a version of a pipeline, unless the server has it.

    Raises:
        ValueError: an image is named by tag, or the server refuses.
    """
    require_digests(settings())
    version = server.upload(load_pipeline(Path(request.pipeline)), Address.from_environment())
    verb = "uploaded" if version.is_new else "is on the server already"
    return [f"{version.pipeline} version {version.name}: {verb}"]


def schedule(request: Request) -> list[str]:
    """Make the server's recurring runs those of the request.

    Raises:
        ValueError: an image is named by tag, or the server refuses.
    """
    require_digests(settings())
    wanted = []
    for item in request.schedules:
        pipeline = load_pipeline(Path(item.pipeline))
        arguments = matching(pipeline, item.arguments)
        wanted.append(server.Recurring(item.name, pipeline, arguments, item.cron, item.enabled))
    return server.keep_recurring(wanted, Address.from_environment())


def doctor(request: Request) -> list[str]:
    """Check the cluster for everything that the pipeline expects.

    Raises:
        ValueError: there is a problem.
    """
    findings = diagnose(expected_of(Path(request.pipeline)))
    print("\n".join(map(str, findings)))
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        raise ValueError(f"{problems} of {len(findings)} checks found a problem")
    return ["no problem found"]


COMMANDS: dict[str, Callable[[Request], list[str]]] = {
    "local": run_local,
    "docker": run_docker,
    "kfp": run_kfp,
    "compile": compile_file,
    "upload": upload,
    "schedule": schedule,
    "doctor": doctor,
}


def main(command: str) -> int:
    """Run a command; a failure is a message on stderr and exit code 1."""
    request = Request.read(sys.stdin.read())
    try:
        lines = COMMANDS[command](request)
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        name = {"local": "run", "docker": "run", "kfp": "run", "upload": "pipeline upload"}
        message = _COLOUR.sub("", str(error))
        sys.stderr.write(f"arl {name.get(command, command)}: {message}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

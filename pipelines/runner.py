"""Run the pipeline of one file here, or submit it: `python -m pipelines.runner local|kfp FILE ROOT < arguments.json`.

`arl run` starts this as a child process, because kfp.local leaves `print` and the root logger changed.
"""

import importlib.util
import json
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp import compiler, dsl, local

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
        raise ValueError(f"{file} defines {len(found)} pipelines; `arl run` needs exactly one @dsl.pipeline function")
    return found[0]


def accepted(pipeline: PipelineFunction, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the pipeline has; a ValueError names one that it needs and is not there."""
    inputs = pipeline.component_spec.inputs or {}
    missing = [name for name, spec in inputs.items() if not spec.optional and name not in arguments]
    if missing:
        raise ValueError(f"pipeline {pipeline.name} needs {', '.join(missing)}, which `arl run` does not give")
    return {name: value for name, value in arguments.items() if name in inputs}


def run_local(pipeline: PipelineFunction, arguments: dict[str, Any], root: Path) -> str:
    """Run every step in a subprocess of this machine and environment; artifacts go below `root`."""
    # the image is not used here, so its name does not matter
    warnings.filterwarnings("ignore", message=".*image", category=RuntimeWarning)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    before = set(root.glob("*/"))
    outputs = pipeline(**arguments).outputs
    folders = sorted(set(root.glob("*/")) - before)
    told = [f"{name}: {value}" for name, value in outputs.items()]
    return "\n".join([*told, *(f"artifacts: {folder}" for folder in folders)])


def submit(pipeline: PipelineFunction, arguments: dict[str, Any], endpoint: str, namespace: str | None) -> str:
    """Compile the pipeline and start a run of it on a Kubeflow Pipelines server."""
    warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / "pipeline.yaml")
        compiler.Compiler().compile(pipeline, package)
        client = kfp.Client(host=endpoint, **({"namespace": namespace} if namespace else {}))
        run = client.create_run_from_pipeline_package(package, arguments=arguments, namespace=namespace)
    return f"run: {endpoint.rstrip('/')}/#/runs/details/{run.run_id}"


def _submit_to_environment(pipeline: PipelineFunction, arguments: dict[str, Any]) -> str:
    endpoint = os.environ.get("KFP_ENDPOINT")
    if not endpoint:
        raise ValueError(
            "KFP_ENDPOINT is not set: it is the address of the Kubeflow Pipelines API, e.g. http://HOST:8888"
        )
    try:
        return submit(pipeline, arguments, endpoint, os.environ.get("KFP_NAMESPACE"))
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise ValueError(f"no Kubeflow Pipelines API answers at KFP_ENDPOINT={endpoint}: {error}") from error
    except kfp_server_api.ApiException as error:
        raise ValueError(f"KFP_ENDPOINT={endpoint} refused the run: {error.status} {error.reason}") from error


def main(backend: str, file: str, root: str) -> int:
    """Read the arguments from stdin, run, and tell the outputs; a failure is one sentence and exit code 1."""
    try:
        pipeline = load_pipeline(Path(file))
        arguments = accepted(pipeline, json.load(sys.stdin))
        if backend == "local":
            told = run_local(pipeline, arguments, Path(root))
        else:
            told = _submit_to_environment(pipeline, arguments)
    except (ValueError, RuntimeError) as error:
        sys.stderr.write(f"arl run: {_COLOUR.sub('', str(error))}\n")
        return 1
    sys.stdout.write(told + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

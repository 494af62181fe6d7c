"""Compile a pipeline file for a cluster."""

from pathlib import Path

from arl.commands.run import check_pipeline, environment, start
from arl.launch.request import Request


def compile(pipeline: Path, *, output: Path = Path("build/pipeline.yaml")) -> None:
    """Compile a pipeline for a cluster.

    Writes the YAML that Kubeflow's form and API take, and prints what it expects of the cluster:
    images, claim, secrets and node labels.

    Args:
        pipeline: A pipeline file, e.g. pipelines/arl_full.py.
        output: The YAML file to write.

    Raises:
        FileNotFoundError: there is no such pipeline.
        SystemExit: an image is named by tag, or the pipeline does not compile.

    Writes:
        output

    Examples:
        arl compile pipelines/arl_full.py
    """
    # A missing file would otherwise end as a traceback of the compiler.
    check_pipeline(pipeline)
    request = Request(pipeline=str(pipeline), output=str(output.absolute()))
    start("compile", request, environment(pipeline, "kfp"))

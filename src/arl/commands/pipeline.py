"""Manage the pipelines of a Kubeflow Pipelines server."""

from pathlib import Path
from typing import Literal

from arl.commands.run import check_pipeline, environment, start
from arl.launch.request import Request


def pipeline(action: Literal["upload"], file: Path) -> None:
    """Upload a version of a pipeline to Kubeflow.

    The version is named by the code and by the hash of the compiled pipeline, so uploading the same
    one again changes nothing. Runs and recurring runs can then be created on Kubeflow's pages.

    Args:
        action: What to do.
        file: A pipeline file, e.g. pipelines/arl_full.py.

    Raises:
        ValueError: an unknown action.
        FileNotFoundError: there is no such file.
        SystemExit: an image is named by tag, or the server refuses.

    Examples:
        arl pipeline upload pipelines/arl_full.py
    """
    if action != "upload":
        raise ValueError(f"action {action!r} is not one of upload")
    check_pipeline(file)
    start("upload", Request(pipeline=str(file)), environment(file, "kfp"))

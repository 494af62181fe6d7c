"""Check the place where pipelines shall run."""

from pathlib import Path
from typing import Literal

from arl.commands.run import check_pipeline, environment, start
from arl.launch.request import Request


def doctor(subject: Literal["cluster"], *, pipeline: Path = Path("pipelines/arl_full.py")) -> None:
    """Check a cluster for everything that a pipeline needs.

    Asks the Kubeflow Pipelines API at KFP_ENDPOINT and the Kubernetes API of the kubeconfig. Checks
    versions, namespace, rights, claim, storage classes, secrets, queue, nodes, GPUs, quotas, the
    Trainer and the images, and says what to change. Changes nothing.

    Args:
        subject: What to check.
        pipeline: The pipeline that shall run.

    Raises:
        ValueError: an unknown subject.
        FileNotFoundError: there is no such pipeline.
        SystemExit: a check found a problem.

    Examples:
        arl doctor cluster
    """
    if subject != "cluster":
        raise ValueError(f"subject {subject!r} is not one of cluster")
    check_pipeline(pipeline)
    start("doctor", Request(pipeline=str(pipeline)), environment(pipeline, "kfp"))

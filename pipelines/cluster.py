"""What each step gets on a cluster, from cluster.yaml; on one machine a step just runs."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from kfp import dsl, kubernetes


@dataclass(frozen=True)
class Step:
    """The needs of one step; cpu and memory in Kubernetes' units."""

    cpu: str
    memory: str
    gpus: int
    shared_memory: str  # size of /dev/shm, through which data loaders and NCCL pass tensors
    hours: float  # a step is killed after this time


@dataclass(frozen=True)
class Cluster:
    """The content of cluster.yaml."""

    claim: str
    mount: str
    gpu: str
    retries: int
    steps: dict[str, Step]


@cache
def settings() -> Cluster | None:
    """The cluster of the file that ARL_CLUSTER names, by default cluster.yaml; None where it is set to nothing.

    Raises:
        TypeError: the file has an unknown key or lacks one.
    """
    name = os.environ.get("ARL_CLUSTER", str(Path(__file__).with_name("cluster.yaml")))
    if not name:
        return None
    values = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    steps = {step: Step(**needs) for step, needs in values.pop("steps").items()}
    return Cluster(steps=steps, **values)


def stored(name: str) -> str:
    """The path of a folder of the shared volume as a step sees it, e.g. "data"."""
    cluster = settings()
    return f"{cluster.mount}/{name}" if cluster else name


def place(task: dsl.PipelineTask, step: str) -> dsl.PipelineTask:
    """Give a task its resources, volume, deadline and retries; returns the task."""
    cluster = settings()
    if cluster is None:
        return task
    needs = cluster.steps[step]
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    if needs.gpus:
        task.set_accelerator_type(cluster.gpu).set_accelerator_limit(needs.gpus)
    task.set_retry(cluster.retries, backoff_duration="30s", backoff_factor=2)
    # training states outlive a pod, so that a retry goes on where the killed try was
    task.set_env_variable("ARL_RUNS", stored("runs"))
    kubernetes.mount_pvc(task, pvc_name=cluster.claim, mount_path=cluster.mount)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=needs.shared_memory)
    kubernetes.set_timeout(task, int(needs.hours * 3600))
    return task

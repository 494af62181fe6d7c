"""What each step gets on a cluster, from cluster.yaml; on one machine a step just runs."""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl, kubernetes

# steps that share their work; the pods of a TrainJob see only the volume, and finetune reads an
# artifact of this pod
_ABLE = {"gpus": ("pretrain", "finetune"), "nodes": ("pretrain",)}
USER = 1000  # of the image, which also owns what it writes to the volume


@dataclass(frozen=True)
class Step:
    """The needs of one step; cpu and memory in Kubernetes' units."""

    cpu: str
    memory: str
    gpus: int  # of one node
    nodes: int
    shared_memory: str  # size of /dev/shm, through which data loaders and NCCL pass tensors
    hours: float  # a step is killed after this time


@dataclass(frozen=True)
class Gpu:
    """How a pod gets on a node with GPUs."""

    resource: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]


@dataclass(frozen=True)
class Secret:
    """A Secret's keys as environment variables of steps."""

    name: str
    keys: dict[str, str]
    steps: list[str]  # empty: all


@dataclass(frozen=True)
class SecretFiles:
    """A Secret's keys as files of steps."""

    name: str
    folder: str  # where the steps see them
    files: dict[str, str]  # key of the Secret -> the variable that names its file
    steps: list[str]  # empty: all


@dataclass(frozen=True)
class Cluster:
    """The content of cluster.yaml."""

    claim: str | None
    mount: str
    corpus: str
    registry: str
    inbox: str
    service_account: str
    retries: int
    parallel: dict[str, int]
    gpu: Gpu
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]
    environment: dict[str, str]
    pull_secrets: list[str]
    secrets: list[Secret]
    secret_files: list[SecretFiles]
    runtime: str
    steps: dict[str, Step]


@cache
def settings() -> Cluster | None:
    """The cluster of the file that ARL_CLUSTER names, by default cluster.yaml; None where it is set to nothing.

    Raises:
        ValueError: the file has an unknown key or lacks one, or gives several GPUs to a step that
            uses one.
    """
    name = os.environ.get("ARL_CLUSTER", str(Path(__file__).with_name("cluster.yaml")))
    if not name:
        return None
    try:
        cluster = _parsed(yaml.safe_load(Path(name).read_text(encoding="utf-8")))
    except TypeError as error:  # of a dataclass: it names the key
        raise ValueError(f"{name}: {error}") from error
    for what, able in _ABLE.items():
        for step, needs in cluster.steps.items():
            if getattr(needs, what) > 1 and step not in able:
                raise ValueError(
                    f"{name}: {step} has more than one of {what}, which only {' and '.join(able)} can use"
                )
    if cluster.claim is None:
        _check_without_volume(name, cluster)
    return cluster


def _check_without_volume(name: str, cluster: Cluster) -> None:
    for what in ("corpus", "registry"):
        if not getattr(cluster, what).startswith("s3://"):
            raise ValueError(
                f"{name}: without a claim {what} must be s3://BUCKET/PREFIX, not {getattr(cluster, what)}"
            )
    many = [step for step, needs in cluster.steps.items() if needs.nodes > 1]
    if many:
        raise ValueError(
            f"{name}: {many[0]} has several nodes, which need a claim to share their states"
        )


def _parsed(values: dict[str, Any]) -> Cluster:
    steps = {step: Step(**needs) for step, needs in values.pop("steps", {}).items()}
    secrets = {
        "secrets": [Secret(**secret) for secret in values.pop("secrets", [])],
        "secret_files": [SecretFiles(**secret) for secret in values.pop("secret_files", [])],
    }
    return Cluster(**{**values, "gpu": Gpu(**values.get("gpu", {})), "steps": steps, **secrets})


def stored(name: str) -> str:
    """Where the steps see a folder: "data", "registry" and "inbox" as cluster.yaml says, others on the volume.

    Raises:
        ValueError: the folder must be on a volume, and there is none.
    """
    cluster = settings()
    if cluster is None:
        return name
    named = {"data": cluster.corpus, "registry": cluster.registry, "inbox": cluster.inbox}
    if name not in named and cluster.claim is None:
        raise ValueError(
            f"{name} needs a volume that its steps share, and the cluster's file has claim: null"
        )
    return named.get(name, f"{cluster.mount}/{name}")


def parallel(what: str) -> int | None:
    """How many pods a fan-out may have at once; None where there is no cluster to protect."""
    cluster = settings()
    return cluster.parallel[what] if cluster else None


def place(task: dsl.PipelineTask, step: str) -> dsl.PipelineTask:
    """Give a task its resources, node, volume, secrets, deadline and retries; returns the task."""
    cluster = settings()
    if cluster is None:
        return task
    needs = cluster.steps[step]
    task.set_retry(cluster.retries, backoff_duration="30s", backoff_factor=2)
    kubernetes.set_timeout(task, int(needs.hours * 3600))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_secrets(task, cluster.pull_secrets)
    _give_resources(task, needs, cluster)
    _give_folders(task, needs, cluster)
    _give_variables(task, step, cluster)
    return task


def _give_resources(task: dsl.PipelineTask, needs: Step, cluster: Cluster) -> None:
    if needs.nodes > 1:  # this pod only starts and watches the TrainJob that has them
        task.set_env_variable(
            "ARL_LAUNCH", json.dumps(_train_job(task, needs, cluster), sort_keys=True)
        )
        needs = Step("1", "2Gi", 0, 1, "64Mi", needs.hours)
    elif needs.gpus > 1:
        task.set_env_variable("ARL_LAUNCH", json.dumps({"processes": needs.gpus}))
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    if needs.gpus:
        task.set_accelerator_type(cluster.gpu.resource).set_accelerator_limit(needs.gpus)
    where = cluster.gpu if needs.gpus else cluster
    for key, value in where.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in where.tolerations:
        kubernetes.add_toleration(task, **toleration)


def _train_job(task: dsl.PipelineTask, needs: Step, cluster: Cluster) -> dict[str, Any]:
    """What `arl.launch` needs to know to start the step as a TrainJob."""
    resources = {"cpu": needs.cpu, "memory": needs.memory}
    return {
        "nodes": needs.nodes,
        "processes": max(1, needs.gpus),
        "image": task.container_spec.image,
        "runtime": cluster.runtime,
        "resources": resources | ({cluster.gpu.resource: str(needs.gpus)} if needs.gpus else {}),
        "seconds": int(needs.hours * 3600),
    }


def _give_folders(task: dsl.PipelineTask, needs: Step, cluster: Cluster) -> None:
    kubernetes.empty_dir_mount(
        task, "shm", "/dev/shm", medium="Memory", size_limit=needs.shared_memory
    )
    if cluster.claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.claim, mount_path=cluster.mount)
    else:
        kubernetes.empty_dir_mount(task, "scratch", cluster.mount)
        task.set_env_variable(
            "ARL_CACHE", f"{cluster.mount}/cache"
        )  # of the corpus and the registry
    # on a volume training states outlive a pod, so that a retry goes on where the killed try was
    task.set_env_variable("ARL_RUNS", f"{cluster.mount}/runs")


def _give_variables(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    for name, value in cluster.environment.items():
        task.set_env_variable(name, value)
    for secret in cluster.secrets:
        if not secret.steps or step in secret.steps:
            # optional: a cluster that reads no hospital data has no hash key, and what needs one
            # says so itself
            kubernetes.use_secret_as_env(task, secret.name, secret.keys, optional=True)
    for secret in cluster.secret_files:
        if not secret.steps or step in secret.steps:
            kubernetes.use_secret_as_volume(task, secret.name, secret.folder, optional=True)
            for file, variable in secret.files.items():
                task.set_env_variable(variable, f"{secret.folder}/{file}")

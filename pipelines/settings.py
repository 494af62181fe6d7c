"""The settings of a cluster: cluster.yaml, merged with the file that ARL_CLUSTER names.

This module imports no kfp, so that `arl doctor` and the checks before a submission start fast.
"""

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DEFAULTS = Path(__file__).with_name("cluster.yaml")
# Steps that divide their work. The pods of a TrainJob see only the volume, and finetune reads an
# artifact of its own pod, so only pretrain runs on several nodes.
_PARALLEL_STEPS = {"gpus": ("pretrain", "finetune"), "nodes": ("pretrain",)}


@dataclass(frozen=True)
class Step:
    """The resources of one step; cpu and memory in Kubernetes units."""

    cpu: str
    memory: str
    # of one node
    gpus: int
    nodes: int
    # size of /dev/shm, which carries tensors between data loaders and NCCL ranks
    shared_memory: str
    # size of /tmp, on the node's disk
    scratch: str
    # a step is killed after this time
    hours: float
    gpu_pool: str = "default"
    # Kueue's WorkloadPriorityClass; None: the cluster's
    priority_class: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuPool:
    """How a pod reaches the nodes of one GPU type."""

    resource: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]


@dataclass(frozen=True)
class Secret:
    """Keys of a Secret as environment variables of steps."""

    name: str
    keys: dict[str, str]
    # empty: all steps
    steps: list[str]
    required: bool = False


@dataclass(frozen=True)
class SecretFiles:
    """Keys of a Secret as files of steps."""

    name: str
    # where the steps see the files
    folder: str
    # key of the Secret -> environment variable that names its file
    files: dict[str, str]
    # empty: all steps
    steps: list[str]
    required: bool = False


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
    attempts: int
    parallel: dict[str, int]
    allow_tags: bool
    gpu_pools: dict[str, GpuPool]
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]
    queue: str | None
    priority_class: str | None
    labels: dict[str, str]
    topology_key: str | None
    environment: dict[str, str]
    pull_secrets: list[str]
    secrets: list[Secret]
    secret_files: list[SecretFiles]
    runtime: str
    steps: dict[str, Step]

    def secrets_of(self, step: str) -> list[Secret | SecretFiles]:
        """The Secrets that a step reads."""
        secrets: list[Secret | SecretFiles] = [*self.secrets, *self.secret_files]
        return [secret for secret in secrets if not secret.steps or step in secret.steps]

    def pool_of(self, step: Step) -> "GpuPool | Cluster":
        """What selects the nodes of a step: its GPU pool, or the settings for CPU steps."""
        return self.gpu_pools[step.gpu_pool] if step.gpus else self


@cache
def settings() -> Cluster | None:
    """The cluster's settings; None where ARL_CLUSTER is empty, as on a single machine.

    ARL_CLUSTER names a file that holds only the keys that differ from cluster.yaml.

    Raises:
        ValueError: a key is unknown or missing, or a step asks for what it cannot use.
        FileNotFoundError: ARL_CLUSTER names no file.
    """
    name = os.environ.get("ARL_CLUSTER", str(DEFAULTS))
    if not name:
        return None
    values = _read(DEFAULTS)
    if Path(name).resolve() != DEFAULTS:
        values = _merge(values, _read(Path(name)))
    try:
        cluster = _parse(values)
    except TypeError as error:
        # the dataclass names the key
        raise ValueError(f"{name}: {error}") from error
    _check_parallel_steps(name, cluster)
    _check_pools(name, cluster)
    if cluster.claim is None:
        _check_without_volume(name, cluster)
    return cluster


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"ARL_CLUSTER={file} does not exist: it names a cluster file")
    values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold keys of {DEFAULTS.name}, not {type(values).__name__}")
    return values


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the changes; only `steps`, `gpu_pools` and `parallel` merge key by key."""
    # Lists and free maps, as tolerations and labels, are replaced whole: an entry could otherwise
    # not be removed.
    merged = {**base, **changes}
    for key in {"steps", "gpu_pools", "parallel"} & changes.keys():
        merged[key] = {**base[key], **changes[key]}
    for step, needs in (changes.get("steps") or {}).items():
        merged["steps"][step] = {**base["steps"].get(step, {}), **needs}
    return merged


def _parse(values: dict[str, Any]) -> Cluster:
    parsed: dict[str, Any] = {
        "steps": {name: Step(**step) for name, step in values["steps"].items()},
        "gpu_pools": {name: GpuPool(**pool) for name, pool in values["gpu_pools"].items()},
        "secrets": [Secret(**secret) for secret in values["secrets"]],
        "secret_files": [SecretFiles(**secret) for secret in values["secret_files"]],
    }
    return Cluster(**{**values, **parsed})


def _check_parallel_steps(name: str, cluster: Cluster) -> None:
    for resource, steps in _PARALLEL_STEPS.items():
        for step, needs in cluster.steps.items():
            if getattr(needs, resource) > 1 and step not in steps:
                raise ValueError(
                    f"{name}: step {step} has more than one of {resource}, "
                    f"which only {' and '.join(steps)} can use"
                )


def _check_pools(name: str, cluster: Cluster) -> None:
    for step, needs in cluster.steps.items():
        if needs.gpu_pool not in cluster.gpu_pools:
            raise ValueError(
                f"{name}: gpu_pool {needs.gpu_pool!r} of step {step} is not one of gpu_pools: "
                f"{', '.join(cluster.gpu_pools)}"
            )


def _check_without_volume(name: str, cluster: Cluster) -> None:
    for folder in ("corpus", "registry"):
        address = getattr(cluster, folder)
        if not address.startswith("s3://"):
            raise ValueError(
                f"{name}: without a claim {folder} must be s3://BUCKET/PREFIX, not {address}"
            )
    # the ranks of a TrainJob leave checkpoints and results on the volume
    for step, needs in cluster.steps.items():
        if needs.nodes > 1:
            raise ValueError(
                f"{name}: {step} has several nodes, which need a claim to share their states"
            )


def storage_path(name: str) -> str:
    """The path under which the steps see a folder.

    cluster.yaml gives "data", "registry" and "inbox"; other folders are on the volume.

    Raises:
        ValueError: the folder must be on a volume, and the cluster has none.
    """
    cluster = settings()
    if cluster is None:
        return name
    paths = {"data": cluster.corpus, "registry": cluster.registry, "inbox": cluster.inbox}
    if name not in paths and cluster.claim is None:
        raise ValueError(
            f"{name} needs a volume that its steps share, and the cluster's file has claim: null"
        )
    return paths.get(name, f"{cluster.mount}/{name}")


def parallelism(fan_out: str) -> int | None:
    """The number of concurrent pods of a fan-out; None on a single machine."""
    cluster = settings()
    return cluster.parallel[fan_out] if cluster else None

"""What a pipeline expects of a cluster: images, objects of the namespace and nodes."""

import ast
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.images import TARGETS, image_of, is_digest
from pipelines.settings import Cluster, GpuPool, Secret


@dataclass(frozen=True)
class ExpectedSecret:
    """A Secret and its keys."""

    name: str
    keys: tuple[str, ...]
    required: bool
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Expectations:
    """What the steps of a pipeline expect of a cluster."""

    steps: tuple[str, ...]
    images: dict[str, str]
    service_account: str
    claim: str | None
    mount: str
    secrets: tuple[ExpectedSecret, ...]
    pull_secrets: tuple[str, ...]
    node_selectors: dict[str, dict[str, str]]
    queue: str | None
    priority_classes: tuple[str, ...]
    runtime: str | None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The expectations as lines for a terminal."""
        claim = f"{self.claim} at {self.mount}" if self.claim else "none"
        lines = [f"image {target}: {image}" for target, image in self.images.items()]
        lines += [f"service account: {self.service_account}", f"claim: {claim}"]
        lines += [
            f"secret {secret.name} ({', '.join(secret.keys)}): "
            f"{'required' if secret.required else 'optional'}, read by {', '.join(secret.steps)}"
            for secret in self.secrets
        ]
        lines += [f"pull secret: {name}" for name in self.pull_secrets]
        lines += [
            f"nodes of {step}: {', '.join(f'{k}={v}' for k, v in selector.items()) or 'any'}"
            for step, selector in self.node_selectors.items()
        ]
        if self.queue:
            lines.append(f"Kueue LocalQueue: {self.queue}")
        lines += [f"Kueue WorkloadPriorityClass: {name}" for name in self.priority_classes]
        if self.runtime:
            lines.append(f"Trainer 2.2 or later, with TrainingRuntime {self.runtime}")
        return lines


def expectations(cluster: Cluster, steps: list[str]) -> Expectations:
    """What these steps expect of the cluster."""
    needs = {step: cluster.steps[step] for step in steps}
    priorities = {n.priority_class or cluster.priority_class for n in needs.values()} - {None}
    several_nodes = any(step.nodes > 1 for step in needs.values())
    return Expectations(
        steps=tuple(steps),
        images={target: image_of(target) for target in TARGETS},
        service_account=cluster.service_account,
        claim=cluster.claim,
        mount=cluster.mount,
        secrets=tuple(_secrets(cluster, steps)),
        pull_secrets=tuple(cluster.pull_secrets),
        node_selectors={s: dict(cluster.pool_of(step).node_selector) for s, step in needs.items()},
        queue=cluster.queue,
        priority_classes=tuple(sorted(str(name) for name in priorities)),
        runtime=cluster.runtime if several_nodes else None,
    )


def steps_in(file: Path) -> list[str]:
    """The steps that a pipeline file configures, and the pipelines that it imports.

    The file is read and not run: kfp takes two seconds of CPU to build a pipeline, and the checks
    before a submission come first.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    steps: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pipelines":
            inner = [Path(__file__).with_name(f"{alias.name}.py") for alias in node.names]
            steps += [step for part in inner if part.is_file() for step in steps_in(part)]
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if is_call and node.func.id == "configure_task":
            step = node.args[1]
            assert isinstance(step, ast.Constant)
            steps.append(str(step.value))
    return list(dict.fromkeys(steps))


def _secrets(cluster: Cluster, steps: list[str]) -> list[ExpectedSecret]:
    expected = []
    for secret in [*cluster.secrets, *cluster.secret_files]:
        readers = tuple(step for step in steps if secret in cluster.secrets_of(step))
        if readers:
            keys = tuple(secret.keys if isinstance(secret, Secret) else secret.files)
            expected.append(ExpectedSecret(secret.name, keys, secret.required, readers))
    return expected


def require_digests(cluster: Cluster | None) -> None:
    """Refuse images that are named by tag.

    Raises:
        ValueError: the message says how to get the digests.
    """
    tagged = {target: image_of(target) for target in TARGETS if not is_digest(image_of(target))}
    if not tagged or cluster is None or cluster.allow_tags:
        return
    commands = "; ".join(
        f"docker buildx imagetools inspect {image} --format '{{{{.Manifest.Digest}}}}'"
        for image in tagged.values()
    )
    raise ValueError(
        f"images are named by tag ({', '.join(tagged.values())}), so Kubeflow's cache could answer "
        "with a model of old code. `make images REGISTRY=...` builds and pushes them and writes "
        f"their digests into images.env; for images that are pushed already: {commands}, then "
        "NAME@DIGEST as ARL_IMAGE_DATA, ARL_IMAGE_TRAIN and ARL_IMAGE_MONITOR. allow_tags: true in "
        "the cluster's file accepts tags"
    )


def pool_resource(cluster: Cluster, step: str) -> str | None:
    """The resource name of a step's GPUs; None for a step without."""
    pool = cluster.pool_of(cluster.steps[step])
    return pool.resource if isinstance(pool, GpuPool) else None

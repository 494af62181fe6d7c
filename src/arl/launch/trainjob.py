"""A stage on several nodes, as a TrainJob of Kubeflow Trainer 2 (trainer.kubeflow.org/v1alpha1).

The pod of the pipeline's step only starts the job, waits, and takes over the results. The job is
named by what it does, so a step that is tried again finds the job that its first try has started
instead of starting a second one; the training itself goes on from its last checkpoint below
$ARL_RUNS, which must be on a volume that all pods see.
"""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from arl.launch.torchrun import words

_KIND = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OUTPUTS = ("checkpoint", "metrics")  # of pretrain, the one stage that several nodes share


@dataclass(frozen=True)
class Job:
    """What a TrainJob gets."""

    nodes: int
    processes: int  # of each node
    image: str
    runtime: str  # a TrainingRuntime of the namespace
    resources: dict[str, str]  # of each node
    seconds: int  # deadline


def run(
    job: Job,
    name: str,
    overrides: list[str],
    version: str,
    arguments: dict[str, Any],
    *,
    poll: float = 15,
    patience: float = 600,
) -> None:
    """Run a stage as a TrainJob, or wait for the one that is running already, and copy what it writes.

    Args:
        version: of the corpus.
        poll: seconds between looks.
        patience: seconds for which the Kubernetes API may be away.

    Raises:
        RuntimeError: the job failed, ran out of time, or Kubernetes does not answer or allow it.
    """
    api, namespace = _connect()
    manifest, written = train_job(job, name, overrides, version, arguments)
    title = manifest["metadata"]["name"]
    if not _complete(written):
        with _deleted_on_termination(api, namespace, title):
            _start_or_adopt(api, namespace, manifest, poll, patience)
            _wait(api, namespace, title, poll, patience)
        if not _complete(written):
            raise RuntimeError(
                f"TrainJob {namespace}/{title} is complete, but {written} lacks its results"
            )
    for output in _OUTPUTS:
        copy = shutil.copytree if (written / output).is_dir() else shutil.copy2
        copy(written / output, arguments[output])
    _delete(api, namespace, title)


def train_job(
    job: Job, name: str, overrides: list[str], version: str, arguments: dict[str, Any]
) -> tuple[dict[str, Any], Path]:
    """The TrainJob of a stage, and the folder on the volume that it writes."""
    inputs = {key: str(value) for key, value in arguments.items() if key not in _OUTPUTS}
    runs = os.environ.get("ARL_RUNS", "runs")
    told = json.dumps(
        [name, overrides, version, inputs, job.image, job.nodes, job.processes], sort_keys=True
    )
    title = f"arl-{name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    written = Path(runs) / title
    line = words(name, overrides, {**inputs, **{output: written / output for output in _OUTPUTS}})
    trainer = {
        "image": job.image,
        # torchrun finds the nodes, the processes and the address to meet at in the PET_* variables
        # of the runtime
        "command": ["torchrun", "-m", "arl.cli"],
        "args": line,
        "env": [{"name": "ARL_RUNS", "value": runs}],
        "numNodes": job.nodes,
        "numProcPerNode": job.processes,
        "resourcesPerNode": {"requests": job.resources, "limits": job.resources},
    }
    manifest = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": title,
            "labels": {"app.kubernetes.io/part-of": "arl", "arl.dev/stage": name},
        },
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "TrainingRuntime",
                "name": job.runtime,
            },
            "trainer": trainer,
            "activeDeadlineSeconds": job.seconds,
        },
    }
    return manifest, written


def _complete(written: Path) -> bool:
    # both are written whole or not at all, metrics last
    return all((written / output).exists() for output in _OUTPUTS)


def _connect() -> tuple[client.CustomObjectsApi, str]:
    try:
        config.load_config()
    except ConfigException as error:
        raise RuntimeError(f"no Kubernetes here to start a TrainJob on: {error}") from error
    if _NAMESPACE_FILE.is_file():
        return client.CustomObjectsApi(), _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    _, context = config.list_kube_config_contexts()
    return client.CustomObjectsApi(), context["context"].get("namespace", "default")


def _start_or_adopt(
    api: client.CustomObjectsApi,
    namespace: str,
    manifest: dict[str, Any],
    poll: float,
    patience: float,
) -> None:
    title = manifest["metadata"]["name"]
    found = _get(api, namespace, title)
    if found is not None and _condition(found, "Failed"):
        # an earlier try's end; a new job goes on from the checkpoints of the old one
        _delete(api, namespace, title)
        _wait_until_gone(api, namespace, title, poll, patience)
        found = None
    if found is not None:
        print(f"TrainJob {namespace}/{title} is there already: waiting for it", flush=True)
        return
    try:
        api.create_namespaced_custom_object(namespace=namespace, body=manifest, **_KIND)
    except ApiException as error:
        if error.status != 409:  # made by another try in the same instant
            raise RuntimeError(
                _refusal(error, f"TrainJob {namespace}/{title} could not be made")
            ) from error
    print(f"TrainJob {namespace}/{title} started", flush=True)


def _wait_until_gone(
    api: client.CustomObjectsApi, namespace: str, title: str, poll: float, patience: float
) -> None:
    until = time.monotonic() + patience
    while _get(api, namespace, title) is not None:
        if time.monotonic() > until:
            raise RuntimeError(
                f"TrainJob {namespace}/{title} has not gone {patience:.0f} s after its deletion"
            )
        time.sleep(poll)


def _wait(
    api: client.CustomObjectsApi, namespace: str, title: str, poll: float, patience: float
) -> None:
    answered = time.monotonic()
    while True:
        try:
            found = _get(api, namespace, title)
            answered = time.monotonic()
        except (ApiException, HTTPError) as error:
            # the control plane is upgraded now and then, and a training of days must outlive that
            if time.monotonic() - answered > patience:
                raise RuntimeError(
                    f"Kubernetes has not answered for {patience:.0f} s: {error}"
                ) from error
            time.sleep(poll)
            continue
        if found is None:
            raise RuntimeError(f"TrainJob {namespace}/{title} was deleted by someone else")
        if _condition(found, "Complete"):
            return
        failure = _condition(found, "Failed")
        if failure:
            raise RuntimeError(
                f"TrainJob {namespace}/{title} failed: {failure.get('reason')}, {failure.get('message')}; "
                f"its words: kubectl -n {namespace} logs -l jobset.sigs.k8s.io/jobset-name={title}"
            )
        time.sleep(poll)


def _get(api: client.CustomObjectsApi, namespace: str, title: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = api.get_namespaced_custom_object(
            namespace=namespace, name=title, **_KIND
        )
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status in (401, 403):
            raise RuntimeError(
                _refusal(error, f"TrainJob {namespace}/{title} cannot be read")
            ) from error
        raise
    return found


def _condition(found: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = found.get("status", {}).get("conditions", [])
    return next(
        (one for one in conditions if one["type"] == kind and one["status"] == "True"), None
    )


def _delete(api: client.CustomObjectsApi, namespace: str, title: str) -> None:
    try:
        api.delete_namespaced_custom_object(
            namespace=namespace, name=title, propagation_policy="Foreground", **_KIND
        )
    except ApiException as error:
        if error.status != 404:
            raise RuntimeError(
                _refusal(error, f"TrainJob {namespace}/{title} could not be deleted")
            ) from error


def _refusal(error: ApiException, what: str) -> str:
    if error.status in (401, 403):
        return f"{what} ({error.status}): the step's service account may not; k8s/base/rbac.yaml gives it the right"
    return f"{what}: {error.status} {error.reason} {(error.body or '').strip()[:500]}"


@contextmanager
def _deleted_on_termination(
    api: client.CustomObjectsApi, namespace: str, title: str
) -> Iterator[None]:
    """Delete the job when this pod is told to end, as when someone terminates the pipeline's run."""

    def end(number: int, frame: FrameType | None) -> None:
        _delete(api, namespace, title)
        raise SystemExit(
            f"terminated; TrainJob {namespace}/{title} is deleted, and its checkpoints are kept"
        )

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""A stage on several nodes, as a TrainJob of Kubeflow Trainer (trainer.kubeflow.org/v1alpha1).

The pod of the pipeline's step starts the job, waits, and copies the results. The name of the job
follows from its work, so a retry of the step adopts the job of the first try. The training resumes
from its last checkpoint below $ARL_RUNS, which must be on a volume that all pods see.

The Argo Workflow owns the job. Kubernetes therefore deletes the job with the workflow, also where
the step's pod was killed without a chance to do so.
"""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

_GROUP, _VERSION = "trainer.kubeflow.org", "v1alpha1"
_KIND = {"group": _GROUP, "version": _VERSION, "plural": "trainjobs"}
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# of pretrain, the one stage that runs on several nodes
_OUTPUTS = ("checkpoint", "metrics")
# the field manager of our changes to the TrainingRuntime
_MANAGER = "arl.dev/pipeline"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """The settings of a TrainJob."""

    nodes: int
    # of each node
    processes: int
    image: str
    # a TrainingRuntime of the namespace
    runtime: str
    # of each node
    resources: dict[str, str]
    # deadline
    seconds: int
    attempts: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    pull_secrets: list[str] = field(default_factory=list)
    # the nodes of one job share the value of this label, e.g. a rack
    topology_key: str | None = None


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
    """Run a stage as a TrainJob, or wait for the job of an earlier try, and copy its results.

    Args:
        job: the settings of the TrainJob.
        name: of the stage.
        overrides: words key=value on params.yaml.
        version: of the corpus.
        arguments: of the stage.
        poll: seconds between two requests.
        patience: seconds for which the Kubernetes API may fail to answer.

    Raises:
        RuntimeError: the job failed or ran out of time, or Kubernetes does not answer or refuses.
    """
    namespace = _connect()
    api = client.CustomObjectsApi()
    manifest, results = train_job(job, name, overrides, version, arguments)
    job_name = manifest["metadata"]["name"]
    if not _is_complete(results):
        owner = _workflow_of_this_pod(namespace)
        if owner:
            manifest["metadata"]["ownerReferences"] = [owner]
        with _deleted_on_termination(api, namespace, job_name):
            _start_or_adopt(api, namespace, manifest, poll, patience)
            _wait(api, namespace, job_name, poll, patience)
        if not _is_complete(results):
            raise RuntimeError(
                f"TrainJob {namespace}/{job_name} is complete, but {results} lacks its results"
            )
    for output in _OUTPUTS:
        copy = shutil.copytree if (results / output).is_dir() else shutil.copy2
        copy(results / output, arguments[output])
    _delete(api, namespace, job_name)


def train_job(
    job: Job, name: str, overrides: list[str], version: str, arguments: dict[str, Any]
) -> tuple[Manifest, Path]:
    """The TrainJob of a stage, and the folder on the volume for its results."""
    inputs = {key: str(value) for key, value in arguments.items() if key not in _OUTPUTS}
    runs = os.environ.get("ARL_RUNS", "runs")
    work = [name, overrides, version, inputs, job.image, job.nodes, job.processes]
    digest = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()
    job_name = f"arl-{name}-{digest[:16]}"
    results = Path(runs) / job_name
    outputs = {output: results / output for output in _OUTPUTS}
    variables = {"ARL_RUNS": runs, "ARL_IMAGE": job.image, **job.environment}
    labels = {"app.kubernetes.io/name": "arl", "arl.dev/step": name, **job.labels}
    trainer = {
        "image": job.image,
        # the runtime sets the PET_* variables, by which torchrun finds nodes and processes
        "command": ["torchrun", "-m", "arl.cli"],
        "args": command_line(name, overrides, {**inputs, **outputs}),
        "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
        "numNodes": job.nodes,
        "numProcPerNode": job.processes,
        "resourcesPerNode": {"requests": job.resources, "limits": job.resources},
    }
    manifest: Manifest = {
        "apiVersion": f"{_GROUP}/{_VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": job_name, "labels": labels},
        "spec": {
            "runtimeRef": {"apiGroup": _GROUP, "kind": "TrainingRuntime", "name": job.runtime},
            "trainer": trainer,
            "activeDeadlineSeconds": job.seconds,
            "runtimePatches": [_runtime_patch(job, job_name, labels)],
        },
    }
    return manifest, results


def command_line(name: str, overrides: list[str], arguments: dict[str, Any]) -> list[str]:
    """The command line of a stage, after `arl`."""
    words = [name.replace("_", "-")]
    for key, value in sorted(arguments.items()):
        words += [f"--{key.replace('_', '-')}", str(value)]
    return [*words, *overrides]


def _runtime_patch(job: Job, job_name: str, labels: dict[str, str]) -> Manifest:
    """Labels, nodes and pull secrets of the pods, which the TrainJob's trainer cannot carry."""
    pod: Manifest = {"nodeSelector": job.node_selector, "tolerations": job.tolerations}
    if job.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in job.pull_secrets]
    if job.topology_key:
        pod["affinity"] = {"podAffinity": _same_domain(job.topology_key, job_name)}
    pods = {"metadata": {"labels": labels}, "spec": pod}
    # the name of the runtime's replicated job
    replicated = [{"name": "node", "template": {"spec": {"template": pods}}}]
    spec = {"template": {"spec": {"replicatedJobs": replicated}}}
    return {"manager": _MANAGER, "trainingRuntimeSpec": spec}


def _same_domain(topology_key: str, job_name: str) -> Manifest:
    """Prefer nodes of one topology domain for all pods of the job."""
    selector = {"matchLabels": {"jobset.sigs.k8s.io/jobset-name": job_name}}
    term = {"labelSelector": selector, "topologyKey": topology_key}
    preferred = {"weight": 100, "podAffinityTerm": term}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}


def _is_complete(results: Path) -> bool:
    # the stage writes both atomically, metrics last
    return all((results / output).exists() for output in _OUTPUTS)


def _connect() -> str:
    """Configure the Kubernetes client; returns the namespace of this pod."""
    try:
        config.load_config()
    except ConfigException as error:
        raise RuntimeError(f"a TrainJob needs a Kubernetes cluster: {error}") from error
    if _NAMESPACE_FILE.is_file():
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    _, context = config.list_kube_config_contexts()
    return str(context["context"].get("namespace", "default"))


def _workflow_of_this_pod(namespace: str) -> Manifest | None:
    """A reference to the Argo Workflow that owns this pod; None outside of a workflow."""
    pod = os.environ.get("KFP_POD_NAME") or os.environ.get("HOSTNAME", "")
    try:
        references = client.CoreV1Api().read_namespaced_pod(pod, namespace).metadata
    except (ApiException, HTTPError, ValueError) as error:
        print(f"pod {namespace}/{pod} cannot be read, so no workflow owns the TrainJob: {error}")
        return None
    for owner in references.owner_references or []:
        if owner.kind == "Workflow":
            return {
                "apiVersion": owner.api_version,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
            }
    return None


def _start_or_adopt(
    api: client.CustomObjectsApi,
    namespace: str,
    manifest: Manifest,
    poll: float,
    patience: float,
) -> None:
    job_name = manifest["metadata"]["name"]
    existing = _get(api, namespace, job_name)
    if existing is not None and _condition(existing, "Failed"):
        # a new job resumes from the checkpoints of the failed one
        _delete(api, namespace, job_name)
        _wait_until_gone(api, namespace, job_name, poll, patience)
        existing = None
    if existing is not None:
        _add_owner(api, namespace, existing, manifest["metadata"].get("ownerReferences", []))
        print(f"TrainJob {namespace}/{job_name} is running already: waiting for it", flush=True)
        return
    try:
        api.create_namespaced_custom_object(namespace=namespace, body=manifest, **_KIND)
    except ApiException as error:
        # 409: another try created it in the same instant
        if error.status != 409:
            raise RuntimeError(
                _refusal(error, f"TrainJob {namespace}/{job_name} could not be created")
            ) from error
    print(f"TrainJob {namespace}/{job_name} started", flush=True)


def _add_owner(
    api: client.CustomObjectsApi, namespace: str, existing: Manifest, owners: list[Manifest]
) -> None:
    """Make this workflow an owner too: Kubernetes deletes an object when its last owner is gone."""
    present = existing["metadata"].get("ownerReferences", [])
    missing = [o for o in owners if o["uid"] not in {reference["uid"] for reference in present}]
    if not missing:
        return
    job_name = existing["metadata"]["name"]
    body = {"metadata": {"ownerReferences": [*present, *missing]}}
    try:
        api.patch_namespaced_custom_object(namespace=namespace, name=job_name, body=body, **_KIND)
    except ApiException as error:
        raise RuntimeError(
            _refusal(error, f"TrainJob {namespace}/{job_name} could not be adopted")
        ) from error


def _wait_until_gone(
    api: client.CustomObjectsApi, namespace: str, job_name: str, poll: float, patience: float
) -> None:
    deadline = time.monotonic() + patience
    while _get(api, namespace, job_name) is not None:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"TrainJob {namespace}/{job_name} still exists {patience:.0f} s after its deletion"
            )
        time.sleep(poll)


def _wait(
    api: client.CustomObjectsApi, namespace: str, job_name: str, poll: float, patience: float
) -> None:
    last_answer = time.monotonic()
    while True:
        try:
            current = _get(api, namespace, job_name)
            last_answer = time.monotonic()
        except (ApiException, HTTPError) as error:
            # a training of days outlives an upgrade of the control plane
            if time.monotonic() - last_answer > patience:
                raise RuntimeError(
                    f"Kubernetes has not answered for {patience:.0f} s: {error}"
                ) from error
            time.sleep(poll)
            continue
        if current is None:
            raise RuntimeError(f"TrainJob {namespace}/{job_name} was deleted by someone else")
        if _condition(current, "Complete"):
            return
        failure = _condition(current, "Failed")
        if failure:
            raise RuntimeError(
                f"TrainJob {namespace}/{job_name} failed: {failure.get('reason')}, "
                f"{failure.get('message')}; its logs: "
                f"kubectl -n {namespace} logs -l jobset.sigs.k8s.io/jobset-name={job_name}"
            )
        time.sleep(poll)


def _get(api: client.CustomObjectsApi, namespace: str, job_name: str) -> Manifest | None:
    try:
        job: Manifest = api.get_namespaced_custom_object(
            namespace=namespace, name=job_name, **_KIND
        )
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status in (401, 403):
            raise RuntimeError(
                _refusal(error, f"TrainJob {namespace}/{job_name} cannot be read")
            ) from error
        raise
    return job


def _condition(job: Manifest, kind: str) -> Manifest | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            return dict(condition)
    return None


def _delete(api: client.CustomObjectsApi, namespace: str, job_name: str) -> None:
    try:
        api.delete_namespaced_custom_object(
            namespace=namespace, name=job_name, propagation_policy="Foreground", **_KIND
        )
    except ApiException as error:
        if error.status != 404:
            raise RuntimeError(
                _refusal(error, f"TrainJob {namespace}/{job_name} could not be deleted")
            ) from error


def _refusal(error: ApiException, failure: str) -> str:
    if error.status in (401, 403):
        return (
            f"{failure} ({error.status}): the step's service account lacks the right, "
            "which k8s/base/rbac.yaml gives"
        )
    return f"{failure}: {error.status} {error.reason} {(error.body or '').strip()[:500]}"


@contextmanager
def _deleted_on_termination(
    api: client.CustomObjectsApi, namespace: str, job_name: str
) -> Iterator[None]:
    """Delete the job at SIGTERM, as when a user terminates the run.

    The pod may die before the request is out, so the job has an owner and a deadline as well.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _delete(api, namespace, job_name)
        raise SystemExit(
            f"terminated; TrainJob {namespace}/{job_name} is deleted, its checkpoints are kept"
        )

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

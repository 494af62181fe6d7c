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
from collections.abc import Iterator, Mapping
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
# seconds between two requests
_POLL = 15.0
# Seconds for which the Kubernetes API may fail to answer: a training of days outlives an upgrade of
# the control plane.
_PATIENCE = 600.0

# an object of the Kubernetes API, as its JSON
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
    tolerations: list[dict[str, str | int]] = field(default_factory=list)
    pull_secrets: list[str] = field(default_factory=list)
    # the nodes of one job share the value of this label, e.g. a rack
    topology_key: str | None = None

    def runtime_patch(self, job_name: str, labels: dict[str, str]) -> Manifest:
        """Labels, nodes and pull secrets of the pods, which `spec.trainer` cannot carry."""
        pod: Manifest = {"nodeSelector": self.node_selector, "tolerations": self.tolerations}
        if self.pull_secrets:
            pod["imagePullSecrets"] = [{"name": secret} for secret in self.pull_secrets]
        if self.topology_key:
            # A preference: with a requirement the first pod of a job would never be scheduled,
            # because no other pod carries the label yet.
            selector = {"matchLabels": {"jobset.sigs.k8s.io/jobset-name": job_name}}
            term = {"labelSelector": selector, "topologyKey": self.topology_key}
            preferred = [{"weight": 100, "podAffinityTerm": term}]
            affinity = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
            pod["affinity"] = {"podAffinity": affinity}
        pods = {"metadata": {"labels": labels}, "spec": pod}
        # the name of the runtime's replicated job
        replicated = [{"name": "node", "template": {"spec": {"template": pods}}}]
        spec = {"template": {"spec": {"replicatedJobs": replicated}}}
        return {"manager": _MANAGER, "trainingRuntimeSpec": spec}


@dataclass(frozen=True)
class TrainJobs:
    """The TrainJobs of a namespace; each failure is a RuntimeError with the name of the job."""

    api: client.CustomObjectsApi
    namespace: str
    poll: float
    patience: float

    def get(self, name: str) -> Manifest | None:
        """A TrainJob; None where it does not exist."""
        try:
            job: Manifest = self.api.get_namespaced_custom_object(
                namespace=self.namespace, name=name, **_KIND
            )
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise self.failure(name, "cannot be read", error) from error
            # any other status may pass: `wait` asks again
            raise
        return job

    def start_or_adopt(self, manifest: Manifest) -> None:
        """Create a TrainJob, or become a second owner of the one that an earlier try created."""
        name = manifest["metadata"]["name"]
        existing = self.get(name)
        if existing is not None and _condition(existing, "Failed"):
            # Trainer does not restart a failed job, and a new one resumes from its checkpoints
            self.delete(name)
            self.wait_until_gone(name)
            existing = None
        if existing is not None:
            self.add_owners(existing, manifest["metadata"].get("ownerReferences", []))
            print(
                f"TrainJob {self.namespace}/{name} is running already: waiting for it", flush=True
            )
            return
        try:
            self.api.create_namespaced_custom_object(
                namespace=self.namespace, body=manifest, **_KIND
            )
        except ApiException as error:
            # 409: another try created it in the same instant
            if error.status != 409:
                raise self.failure(name, "could not be created", error) from error
        print(f"TrainJob {self.namespace}/{name} started", flush=True)

    def add_owners(self, existing: Manifest, owners: list[Manifest]) -> None:
        """Make this workflow an owner too: Kubernetes deletes an object with its last owner."""
        present = existing["metadata"].get("ownerReferences", [])
        missing = [o for o in owners if o["uid"] not in {reference["uid"] for reference in present}]
        if not missing:
            return
        name = existing["metadata"]["name"]
        body = {"metadata": {"ownerReferences": [*present, *missing]}}
        try:
            self.api.patch_namespaced_custom_object(
                namespace=self.namespace, name=name, body=body, **_KIND
            )
        except ApiException as error:
            raise self.failure(name, "could not be adopted", error) from error

    def wait(self, name: str) -> None:
        """Return when the job is complete."""
        last_answer = time.monotonic()
        while True:
            try:
                current = self.get(name)
                last_answer = time.monotonic()
            except (ApiException, HTTPError) as error:
                if time.monotonic() - last_answer > self.patience:
                    raise RuntimeError(
                        f"Kubernetes has not answered for {self.patience:.0f} s: {error}"
                    ) from error
                time.sleep(self.poll)
                continue
            if current is None:
                raise RuntimeError(f"TrainJob {self.namespace}/{name} was deleted by someone else")
            if _condition(current, "Complete"):
                return
            if failed := _condition(current, "Failed"):
                raise RuntimeError(
                    f"TrainJob {self.namespace}/{name} failed: {failed.get('reason')}, "
                    f"{failed.get('message')}; its logs: kubectl -n {self.namespace} logs "
                    f"-l jobset.sigs.k8s.io/jobset-name={name}"
                )
            time.sleep(self.poll)

    def wait_until_gone(self, name: str) -> None:
        """Return when a deleted job is gone; its pods go first (propagation Foreground)."""
        deadline = time.monotonic() + self.patience
        while self.get(name) is not None:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"TrainJob {self.namespace}/{name} still exists {self.patience:.0f} s "
                    "after its deletion"
                )
            time.sleep(self.poll)

    def delete(self, name: str) -> None:
        """Delete a TrainJob, if it exists."""
        try:
            # Foreground: the object stays until its pods are gone, so the GPUs are free afterwards
            self.api.delete_namespaced_custom_object(
                namespace=self.namespace, name=name, propagation_policy="Foreground", **_KIND
            )
        except ApiException as error:
            if error.status != 404:
                raise self.failure(name, "could not be deleted", error) from error

    def failure(self, name: str, verb: str, error: ApiException) -> RuntimeError:
        """The error about a request that Kubernetes refused."""
        job = f"TrainJob {self.namespace}/{name} {verb}"
        if error.status in (401, 403):
            return RuntimeError(
                f"{job} ({error.status}): the step's service account lacks the right, "
                "which k8s/base/rbac.yaml gives"
            )
        body = (error.body or "").strip()[:500]
        return RuntimeError(f"{job}: {error.status} {error.reason} {body}")


def run(
    job: Job,
    name: str,
    overrides: list[str],
    version: str,
    arguments: Mapping[str, object],
    *,
    poll: float = _POLL,
    patience: float = _PATIENCE,
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
    jobs = TrainJobs(client.CustomObjectsApi(), namespace, poll, patience)
    manifest, results = train_job(job, name, overrides, version, arguments)
    job_name = manifest["metadata"]["name"]
    if not _is_complete(results):
        owner = _workflow_of_this_pod(namespace)
        if owner:
            manifest["metadata"]["ownerReferences"] = [owner]
        with _deleted_on_termination(jobs, job_name):
            jobs.start_or_adopt(manifest)
            jobs.wait(job_name)
        if not _is_complete(results):
            raise RuntimeError(
                f"TrainJob {namespace}/{job_name} is complete, but {results} lacks its results"
            )
    for output in _OUTPUTS:
        copy = shutil.copytree if (results / output).is_dir() else shutil.copy2
        copy(results / output, str(arguments[output]))
    jobs.delete(job_name)


def train_job(
    job: Job, name: str, overrides: list[str], version: str, arguments: Mapping[str, object]
) -> tuple[Manifest, Path]:
    """The TrainJob of a stage, and the folder on the volume for its results."""
    # The job writes to the volume: an artifact of the step is on the disk of the step's own pod.
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
            "runtimePatches": [job.runtime_patch(job_name, labels)],
        },
    }
    return manifest, results


def command_line(name: str, overrides: list[str], arguments: Mapping[str, object]) -> list[str]:
    """The command line of a stage, after `arl`."""
    words = [name.replace("_", "-")]
    for key, value in sorted(arguments.items()):
        words += [f"--{key.replace('_', '-')}", str(value)]
    return [*words, *overrides]


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
    # Kubeflow's driver sets KFP_POD_NAME; a container's host name is the name of its pod otherwise
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


def _condition(job: Manifest, kind: str) -> Manifest | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            return dict(condition)
    return None


@contextmanager
def _deleted_on_termination(jobs: TrainJobs, job_name: str) -> Iterator[None]:
    """Delete the job at SIGTERM, as when a user terminates the run.

    The pod may die before the request is out, so the job has an owner and a deadline as well.
    """

    def end(number: int, frame: FrameType | None) -> None:
        jobs.delete(job_name)
        raise SystemExit(
            f"terminated; TrainJob {jobs.namespace}/{job_name} is deleted, its checkpoints are kept"
        )

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Check a cluster for what the pipelines expect, and say what to change."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from components.images import is_digest
from pipelines.endpoint import Finding
from pipelines.expectations import Expectations, pool_resource
from pipelines.kube import ForbiddenError, Kube, UnreachableError
from pipelines.quantities import parse_quantity
from pipelines.registry import (
    NotPullableError,
    RegistryUnreachableError,
    auths_of_secret,
    check_pullable,
    docker_auths,
)
from pipelines.settings import Cluster

# since 2.16 a recurring run can be deleted without its run in progress
_MIN_KFP, _MIN_KUBERNETES = (2, 16), (1, 30)
# Argo's executor reports the end of a pod as a WorkflowTaskResult; without it every step fails.
_RIGHTS_OF_STEPS = (
    ("argoproj.io", "workflowtaskresults", "create"),
    ("", "pods", "get"),
)
_TRAINER = "trainer.kubeflow.org"


@dataclass(frozen=True)
class Target:
    """The cluster under test and the settings that it must fit."""

    cluster: Cluster
    expected: Expectations
    kube: Kube
    namespace: str
    multi_user: bool

    def path(self, group: str, plural: str, name: str = "") -> str:
        """The API path of objects in the namespace; `group` is as v1 or apps/v1."""
        root = "/api" if "/" not in group else "/apis"
        return f"{root}/{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")


Check = Callable[[Target], Iterator[Finding]]


def check_cluster(target: Target) -> list[Finding]:
    """All findings about the objects that the pipelines need."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(target)
        except ForbiddenError as error:
            name = check.__name__.removeprefix("_check_").replace("_", " ")
            message = f"could not be checked: {error}"
            findings.append(Finding("note", name, message, "ask an administrator to run this"))
        except UnreachableError as error:
            return [*findings, Finding("problem", "Kubernetes", str(error), "check KUBECONFIG")]
    return findings


def _check_kubernetes(target: Target) -> Iterator[Finding]:
    version = (target.kube.get("/version") or {}).get("gitVersion", "")
    numbers = _numbers(version)
    if numbers and numbers < _MIN_KUBERNETES:
        yield Finding("warning", "Kubernetes", f"is {version}", "1.30 or later is expected")
    else:
        yield Finding("ok", "Kubernetes", version)


def _check_namespace(target: Target) -> Iterator[Finding]:
    subject = f"namespace {target.namespace}"
    namespace = target.kube.get(f"/api/v1/namespaces/{target.namespace}")
    if namespace is None:
        remedy = "create a Profile (k8s/profile), or set KFP_NAMESPACE"
        yield Finding("problem", subject, "does not exist", remedy)
        return
    labels = namespace["metadata"].get("labels", {})
    wanted = {
        "app.kubernetes.io/part-of": "kubeflow-profile",
        "pipelines.kubeflow.org/enabled": "true",
    }
    missing = {key: value for key, value in wanted.items() if labels.get(key) != value}
    if target.multi_user and missing:
        pairs = " ".join(f"{key}={value}" for key, value in missing.items())
        yield Finding(
            "problem",
            subject,
            f"lacks labels of a profile ({', '.join(missing)}), so Kubeflow's store, metadata "
            "server and API are closed to its pods",
            f"kubectl label --overwrite namespace {target.namespace} {pairs}",
        )
    else:
        yield Finding("ok", subject, "exists")


def _check_account(target: Target) -> Iterator[Finding]:
    name = target.expected.service_account
    subject = f"ServiceAccount {target.namespace}/{name}"
    if target.kube.get(target.path("v1", "serviceaccounts", name)) is None:
        remedy = "apply an overlay of k8s/ to this namespace"
        yield Finding("problem", subject, "does not exist", remedy)
        return
    rights = list(_RIGHTS_OF_STEPS)
    if target.expected.runtime:
        rights += [(_TRAINER, "trainjobs", "create"), (_TRAINER, "trainjobs", "patch")]
    user = f"system:serviceaccount:{target.namespace}:{name}"
    missing = [
        f"{verb} {resource}"
        for group, resource, verb in rights
        if not _is_allowed(target, group, resource, verb, user)
    ]
    if missing:
        remedy = "apply k8s/base/rbac.yaml to this namespace"
        yield Finding("problem", subject, f"may not {', '.join(missing)}", remedy)
    else:
        yield Finding("ok", subject, "exists with its rights")


def _check_rights(target: Target) -> Iterator[Finding]:
    """The rights of this user, by which Kubeflow Pipelines decides in multi-user mode."""
    if not target.multi_user:
        return
    for resource in ("runs", "experiments", "jobs", "pipelines"):
        if not _is_allowed(target, "pipelines.kubeflow.org", resource, "create", None):
            yield Finding(
                "problem",
                f"your account in {target.namespace}",
                f"may not create {resource} of pipelines.kubeflow.org",
                "bind it to ClusterRole kubeflow-pipelines-edit in this namespace",
            )
            return
    yield Finding("ok", f"your account in {target.namespace}", "may create runs")


def _is_allowed(target: Target, group: str, resource: str, verb: str, user: str | None) -> bool:
    """Ask Kubernetes, as `kubectl auth can-i` does; `user` None is this user."""
    attributes = {
        "namespace": target.namespace,
        "group": group,
        "resource": resource,
        "verb": verb,
    }
    api = "authorization.k8s.io/v1"
    # Anyone may ask about themselves; asking about another account needs a right of its own.
    if user is None:
        kind, path = "SelfSubjectAccessReview", f"/apis/{api}/selfsubjectaccessreviews"
        spec: dict[str, Any] = {"resourceAttributes": attributes}
    else:
        kind = "LocalSubjectAccessReview"
        path = target.path(api, "localsubjectaccessreviews")
        spec = {"resourceAttributes": attributes, "user": user}
    body = {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"namespace": target.namespace},
        "spec": spec,
    }
    return bool(target.kube.post(path, body).get("status", {}).get("allowed"))


def _check_claim(target: Target) -> Iterator[Finding]:
    name = target.expected.claim
    if name is None:
        return
    subject = f"PersistentVolumeClaim {target.namespace}/{name}"
    claim = target.kube.get(target.path("v1", "persistentvolumeclaims", name))
    if claim is None:
        remedy = "apply an overlay of k8s/, or set `claim` in the cluster's file"
        yield Finding("problem", subject, "does not exist", remedy)
        return
    storage_class = claim["spec"].get("storageClassName")
    modes = claim["spec"]["accessModes"]
    phase = claim.get("status", {}).get("phase")
    # WaitForFirstConsumer leaves a claim Pending until the first pod, which is no fault
    if phase == "Pending" and not _waits_for_consumer(target, storage_class):
        yield Finding(
            "problem",
            subject,
            f"is Pending: StorageClass {storage_class or '(default)'} does not provide "
            f"{', '.join(modes)}",
            "`kubectl describe pvc` says why; kind, k3s and minikube need ReadWriteOnce "
            "(k8s/overlays/minimal), several nodes need a class with ReadWriteMany",
        )
    elif phase == "Lost":
        yield Finding("problem", subject, "has lost its volume", "restore the volume")
    elif "ReadWriteMany" not in modes and target.expected.runtime:
        yield Finding(
            "problem", subject, "is not ReadWriteMany", "training on several nodes needs it"
        )
    else:
        yield Finding("ok", subject, f"{phase}, {', '.join(modes)}")


def _waits_for_consumer(target: Target, name: str | None) -> bool:
    classes = target.kube.items("/apis/storage.k8s.io/v1/storageclasses")
    default = "storageclass.kubernetes.io/is-default-class"
    for storage_class in classes:
        metadata = storage_class["metadata"]
        is_default = metadata.get("annotations", {}).get(default) == "true"
        if metadata["name"] == name or (name is None and is_default):
            return bool(storage_class.get("volumeBindingMode") == "WaitForFirstConsumer")
    return False


def _check_storage_classes(target: Target) -> Iterator[Finding]:
    if not target.kube.items("/apis/storage.k8s.io/v1/storageclasses") and target.expected.claim:
        remedy = "install a storage provisioner, or bind the claim to a volume by hand"
        yield Finding("warning", "StorageClass", "the cluster has none", remedy)


def _check_secrets(target: Target) -> Iterator[Finding]:
    for secret in target.expected.secrets:
        subject = f"Secret {target.namespace}/{secret.name}"
        present = target.kube.get(target.path("v1", "secrets", secret.name))
        missing = [key for key in secret.keys if key not in (present or {}).get("data", {})]
        if present is not None and not missing:
            yield Finding("ok", subject, "exists")
            continue
        message = "does not exist" if present is None else f"lacks {', '.join(missing)}"
        # keys with a suffix are files
        keys = " ".join(
            f"--from-file={key}" if "." in key else f"--from-literal={key}=VALUE"
            for key in secret.keys
        )
        remedy = (
            f"kubectl -n {target.namespace} create secret generic {secret.name} {keys}; "
            f"steps {', '.join(secret.steps)} read it"
        )
        yield Finding("problem" if secret.required else "warning", subject, message, remedy)
    for name in target.expected.pull_secrets:
        if target.kube.get(target.path("v1", "secrets", name)) is None:
            subject = f"Secret {target.namespace}/{name}"
            remedy = f"kubectl -n {target.namespace} create secret docker-registry {name} ..."
            yield Finding("problem", subject, "does not exist (pull_secrets)", remedy)


def _check_queue(target: Target) -> Iterator[Finding]:
    name = target.expected.queue
    if name:
        subject = f"LocalQueue {target.namespace}/{name}"
        # newer releases of Kueue serve v1beta2, older ones v1beta1 only
        versions = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")
        paths = [target.path(version, "localqueues", name) for version in versions]
        if all(target.kube.get(path) is None for path in paths):
            remedy = "create it, or set queue: null in the cluster's file"
            yield Finding("problem", subject, "does not exist (or Kueue is not installed)", remedy)
        else:
            yield Finding("ok", subject, "exists")
    for priority in target.expected.priority_classes:
        paths = [
            f"/apis/kueue.x-k8s.io/{version}/workloadpriorityclasses/{priority}"
            for version in ("v1beta2", "v1beta1")
        ]
        if all(target.kube.get(path) is None for path in paths):
            remedy = "create it, or set priority_class: null in the cluster's file"
            subject = f"WorkloadPriorityClass {priority}"
            yield Finding("problem", subject, "does not exist", remedy)


def _check_nodes(target: Target) -> Iterator[Finding]:
    """Whether some nodes carry the labels of each GPU pool, and enough GPUs."""
    nodes = target.kube.items("/api/v1/nodes")
    for step in target.expected.steps:
        needs = target.cluster.steps[step]
        resource = pool_resource(target.cluster, step)
        selector = target.expected.node_selectors[step]
        if resource is None and not selector:
            continue
        fitting = [node for node in nodes if _fits(node, selector)]
        labels = ", ".join(f"{key}={value}" for key, value in selector.items())
        if not fitting:
            key, value = next(iter(selector.items()), ("", ""))
            yield Finding(
                "problem",
                f"nodes of step {step}",
                f"no node has the labels {labels}",
                f"kubectl label node NODE {key}={value}, or change the pool in the cluster's file",
            )
        elif resource is not None:
            free = max(_allocatable(node, resource) for node in fitting)
            if free < needs.gpus:
                yield Finding(
                    "problem",
                    f"nodes of step {step}",
                    f"the step wants {needs.gpus} of {resource} on one node, "
                    f"and the largest node with {labels or 'any label'} has {free:.0f}",
                    "install the device plugin, or set gpus: 0 (k8s/overlays/minimal)",
                )


def _fits(node: dict[str, Any], selector: dict[str, str]) -> bool:
    labels = node["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())


def _allocatable(node: dict[str, Any], resource: str) -> float:
    return parse_quantity(node.get("status", {}).get("allocatable", {}).get(resource, "0"))


def _check_quota(target: Target) -> Iterator[Finding]:
    for quota in target.kube.items(target.path("v1", "resourcequotas")):
        subject = f"ResourceQuota {target.namespace}/{quota['metadata']['name']}"
        hard = quota["spec"].get("hard", {})
        used = quota.get("status", {}).get("used", {})
        for resource, limit in hard.items():
            step, amount = _largest(target, resource)
            if not amount:
                continue
            # A request above the ceiling is never admitted. Argo retries it without a word, because
            # it takes "exceeded quota" for transient.
            ceiling, taken = parse_quantity(limit), parse_quantity(used.get(resource, "0"))
            request = f"step {step} requests {amount:g} of {resource}"
            if amount > ceiling:
                remedy = "raise the quota, or lower the step in the cluster's file"
                yield Finding("problem", subject, f"{request}, the quota is {limit}", remedy)
            elif amount > ceiling - taken:
                message = f"{request}, and {taken:g} of {limit} are in use"
                yield Finding("warning", subject, message, "the step waits until others end")


def _largest(target: Target, resource: str) -> tuple[str, float]:
    """The step that requests most of a quota's resource, and how much."""
    name = resource.removeprefix("requests.").removeprefix("limits.")
    amounts = {}
    for step in target.expected.steps:
        needs = target.cluster.steps[step]
        per_node = {"cpu": needs.cpu, "memory": needs.memory}.get(name)
        if name == pool_resource(target.cluster, step):
            per_node = str(needs.gpus)
        amounts[step] = parse_quantity(per_node) * needs.nodes if per_node else 0.0
    step = max(amounts, key=lambda key: amounts[key], default="")
    return step, amounts.get(step, 0.0)


def _check_trainer(target: Target) -> Iterator[Finding]:
    """TrainJobs need Trainer 2.2: earlier ones drop activeDeadlineSeconds and runtimePatches."""
    runtime = target.expected.runtime
    if runtime is None:
        return
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trainjobs.{_TRAINER}"
    definition = target.kube.get(path)
    if definition is None:
        remedy = "install Trainer 2.2 or later, or set nodes: 1"
        yield Finding("problem", "Kubeflow Trainer", "is not installed", remedy)
        return
    # Custom resources carry no release number, so the fields of the schema tell it.
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = schema["properties"]["spec"]["properties"]
    missing = [name for name in ("activeDeadlineSeconds", "runtimePatches") if name not in fields]
    if missing:
        message = f"its TrainJob lacks {', '.join(missing)}"
        yield Finding("problem", "Kubeflow Trainer", message, "upgrade to 2.2 or later")
    else:
        yield Finding("ok", "Kubeflow Trainer", "2.2 or later")
    if target.kube.get(target.path(f"{_TRAINER}/v1alpha1", "trainingruntimes", runtime)) is None:
        subject = f"TrainingRuntime {target.namespace}/{runtime}"
        yield Finding("problem", subject, "does not exist", "apply k8s/components/gpu")


def _check_kubeflow(target: Target) -> Iterator[Finding]:
    deployment = target.kube.get("/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline")
    if deployment is None:
        message = "there is no Deployment kubeflow/ml-pipeline, so its version is unknown"
        yield Finding("note", "Kubeflow Pipelines", message)
        return
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    version = image.rpartition(":")[2]
    numbers = _numbers(version)
    if numbers and numbers < _MIN_KFP:
        yield Finding(
            "problem",
            "Kubeflow Pipelines",
            f"is {version}, which terminates running workflows when `arl schedule` changes them",
            "upgrade to 2.16 or later",
        )
    else:
        yield Finding("ok", "Kubeflow Pipelines", version)


def _check_retries(target: Target) -> Iterator[Finding]:
    path = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
    text = ((target.kube.get(path) or {}).get("data") or {}).get("workflowDefaults", "")
    defaults = yaml.safe_load(text) or {}
    template = defaults.get("spec", {}).get("templateDefaults", {})
    policy = template.get("retryStrategy", {}).get("retryPolicy")
    if policy in ("OnError", "OnTransientError"):
        yield Finding(
            "note",
            "Argo's retry policy",
            f"is {policy}: a pod that fails is not retried, one that vanishes is",
            "an administrator can set retryPolicy: Always in workflow-controller-configmap",
        )


def _check_images(target: Target) -> Iterator[Finding]:
    auths = docker_auths()
    for name in target.expected.pull_secrets:
        secret = target.kube.get(target.path("v1", "secrets", name))
        auths |= auths_of_secret(secret) if secret else {}
    yield from check_images(target.expected.images, auths)


def check_images(images: dict[str, str], auths: dict[str, dict[str, str]]) -> Iterator[Finding]:
    """Whether the registry gives each image; asked from this machine."""
    for target, image in images.items():
        # `arl-train:0.2.0` would be docker.io/library/arl-train
        if not is_digest(image) and "/" not in image:
            message = "names no registry, so no node can pull it"
            remedy = "`make images REGISTRY=...` pushes it and writes images.env"
            yield Finding("problem", f"image {image}", message, remedy)
            continue
        try:
            check_pullable(image, auths)
        except NotPullableError as error:
            remedy = f"push it (make images), or correct ARL_IMAGE_{target.upper()} or pull_secrets"
            yield Finding("problem", f"image {image}", f"cannot be pulled: {error}", remedy)
        except RegistryUnreachableError as error:
            # nodes may reach a registry that this machine does not
            yield Finding("note", f"image {image}", f"could not be checked: {error}")
        else:
            yield Finding("ok", f"image {image}", "can be pulled")


def _numbers(version: str) -> tuple[int, int] | None:
    match = re.search(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


CHECKS: tuple[Check, ...] = (
    _check_kubernetes,
    _check_kubeflow,
    _check_namespace,
    _check_rights,
    _check_account,
    _check_claim,
    _check_storage_classes,
    _check_secrets,
    _check_queue,
    _check_nodes,
    _check_quota,
    _check_trainer,
    _check_retries,
    _check_images,
)

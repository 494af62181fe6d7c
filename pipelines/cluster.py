"""Gives each task of a pipeline the resources, volumes and secrets of cluster.yaml.

On a single machine (ARL_CLUSTER is empty) a task stays as it is.
"""

import json
from dataclasses import replace
from typing import Any

from kfp import dsl, kubernetes

from pipelines.settings import Cluster, Step, settings

# the user of the images, who also owns the files on the volume
USER = 1000
# of a pod that only starts a TrainJob and waits for it
_WAITING = {"cpu": "1", "memory": "2Gi", "gpus": 0, "nodes": 1, "shared_memory": "64Mi"}


def configure_task(task: dsl.PipelineTask, step: str, *, cached: bool = False) -> dsl.PipelineTask:
    """Give a task the settings of its step; returns the task.

    Args:
        step: a key of `steps` in cluster.yaml.
        cached: whether Kubeflow may answer the task from its execution cache.
    """
    task.set_caching_options(cached)
    cluster = settings()
    if cluster is None:
        return task
    needs = cluster.steps[step]
    task.set_retry(
        cluster.retries,
        backoff_duration="30s",
        backoff_factor=2,
        backoff_max_duration=f"{retry_window(needs, cluster.retries)}s",
    )
    # Argo applies activeDeadlineSeconds to each try by itself
    kubernetes.set_timeout(task, int(needs.hours * 3600))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_secrets(task, cluster.pull_secrets)
    # The pod of the step then only waits, so it gets a waiter's resources and no GPU.
    if needs.nodes > 1:
        job = _train_job(task.container_spec.image, step, cluster)
        task.set_env_variable("ARL_LAUNCH", json.dumps(job, sort_keys=True))
        needs = replace(needs, **_WAITING)
    else:
        launch = {"processes": max(1, needs.gpus), "attempts": cluster.attempts}
        task.set_env_variable("ARL_LAUNCH", json.dumps(launch, sort_keys=True))
    _set_resources(task, needs, cluster)
    _set_labels(task, step, cluster)
    _mount_folders(task, needs, cluster)
    _set_variables(task, step, cluster)
    return task


def retry_window(needs: Step, retries: int) -> int:
    """Seconds that all tries of a step may take together.

    Argo counts `backoff.maxDuration` from the start of the first try, and kills a later try at its
    end (argo-workflows v4.0.5, workflow/controller/operator.go:1026). The SDK's default of an hour
    would therefore end each second try of a long step.
    """
    waits = sum(30 * 2**i for i in range(retries))
    return int(needs.hours * 3600 * (retries + 1)) + waits + 3600


def _train_job(image: str, step: str, cluster: Cluster) -> dict[str, Any]:
    """The fields of `arl.launch.trainjob.Job` for a step on several nodes."""
    needs = cluster.steps[step]
    pool = cluster.gpu_pools[needs.gpu_pool]
    gpus = {pool.resource: str(needs.gpus)} if needs.gpus else {}
    return {
        "nodes": needs.nodes,
        "processes": max(1, needs.gpus),
        "attempts": cluster.attempts,
        "image": image,
        "runtime": cluster.runtime,
        "resources": {"cpu": needs.cpu, "memory": needs.memory, **gpus},
        "seconds": int(needs.hours * 3600),
        "environment": cluster.environment,
        "labels": pod_labels(step, cluster),
        "node_selector": pool.node_selector if needs.gpus else cluster.node_selector,
        "tolerations": pool.tolerations if needs.gpus else cluster.tolerations,
        "pull_secrets": cluster.pull_secrets,
        "topology_key": cluster.topology_key,
    }


def pod_labels(step: str, cluster: Cluster) -> dict[str, str]:
    """The labels of a step's pods, with those by which Kueue queues them."""
    needs = cluster.steps[step]
    labels = {"app.kubernetes.io/name": "arl", "arl.dev/step": step.replace("_", "-")}
    labels |= cluster.labels | needs.labels
    if cluster.queue:
        labels["kueue.x-k8s.io/queue-name"] = cluster.queue
    priority = needs.priority_class or cluster.priority_class
    if priority:
        labels["kueue.x-k8s.io/priority-class"] = priority
    return labels


def _set_resources(task: dsl.PipelineTask, needs: Step, cluster: Cluster) -> None:
    # requests equal limits: the Guaranteed class, which Kubernetes evicts last
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    if needs.gpus:
        resource = cluster.gpu_pools[needs.gpu_pool].resource
        task.set_accelerator_type(resource).set_accelerator_limit(needs.gpus)
    pool = cluster.pool_of(needs)
    for key, value in pool.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in pool.tolerations:
        kubernetes.add_toleration(task, **toleration)


def _set_labels(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    for key, value in pod_labels(step, cluster).items():
        kubernetes.add_pod_label(task, key, value)


def _mount_folders(task: dsl.PipelineTask, needs: Step, cluster: Cluster) -> None:
    # a container's /dev/shm has 64 MiB, which data loaders and NCCL exceed at once
    kubernetes.empty_dir_mount(
        task, "shm", "/dev/shm", medium="Memory", size_limit=needs.shared_memory
    )
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=needs.scratch)
    if cluster.claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.claim, mount_path=cluster.mount)
    else:
        kubernetes.empty_dir_mount(task, "scratch", cluster.mount, size_limit=needs.scratch)
        # copies of the corpus and the registry
        task.set_env_variable("ARL_CACHE", f"{cluster.mount}/cache")
    # On a volume training states outlive a pod, so that a retry resumes where the killed try was.
    task.set_env_variable("ARL_RUNS", f"{cluster.mount}/runs")


def _set_variables(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    # release writes it into the provenance of a model
    task.set_env_variable("ARL_IMAGE", task.container_spec.image)
    for name, value in cluster.environment.items():
        task.set_env_variable(name, value)
    secrets = cluster.secrets_of(step)
    for secret in cluster.secrets:
        if secret in secrets:
            kubernetes.use_secret_as_env(
                task, secret.name, secret.keys, optional=not secret.required
            )
    for files in cluster.secret_files:
        if files in secrets:
            kubernetes.use_secret_as_volume(
                task, files.name, files.folder, optional=not files.required
            )
            for file, variable in files.files.items():
                task.set_env_variable(variable, f"{files.folder}/{file}")

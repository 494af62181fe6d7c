"""The pipelines on a real cluster: `make cluster-test`, with KUBECONFIG and KFP_ENDPOINT.

Needs Kubernetes 1.30 or later (kind, k3d, minikube or a lab's own) with Kubeflow Pipelines 2.16 or
later for one user, images that its nodes can pull (ARL_CLUSTER names a cluster file with images.env
beside it; `make images` writes both), 4 cores and 12 GiB. It applies k8s/overlays/minimal with a
name prefix of its own, so it touches nothing that is there, and deletes all of it at the end, also
the runs and the experiment. Without a cluster it skips, and says what is missing.

The expectations follow the source of the backend: kubeflow/pipelines 2.17.0 (states in
backend/src/apiserver/model/run.go, retries in backend/src/v2/compiler/argocompiler) and
argo-workflows v4.0.5 (workflow/controller/operator.go).
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# runtime states of a run that has ended
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
MINUTES = 60.0
POLL = 10.0
TINY = [
    *("sample.images_per_anatomy=4", "sample.images_per_task=24", "sample.size=64"),
    *("model.depth=1", "model.embed_dim=48", "pretrain.epochs=1", "finetune.epochs=1"),
    *("tasks=[breast]", "release.signed=false", "watch.source=picture-table", "data.workers=0"),
    *("task.breast.floor=0.0", "task.breast.margin=0.99"),
]


def missing_things() -> str | None:
    """Why the tests cannot run here; None where they can."""
    if not os.environ.get("KFP_ENDPOINT"):
        return "KFP_ENDPOINT is not set: the address of a Kubeflow Pipelines API"
    if not os.environ.get("ARL_CLUSTER"):
        return "ARL_CLUSTER is not set: a cluster file with images.env beside it (make images)"
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    done = subprocess.run(
        ["kubectl", "--request-timeout=10s", "get", "namespace", "kubeflow"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"no cluster with a namespace kubeflow answers: {done.stderr.strip()[-300:]}"
    return None


REASON = missing_things()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]


@dataclass
class Lab:
    """The objects of this test on the cluster."""

    client: Any
    prefix: str
    settings: Path
    experiment: str
    runs: list[str] = field(default_factory=list)
    recurring: list[str] = field(default_factory=list)
    version: tuple[str, str] | None = None

    @property
    def mount(self) -> str:
        return "/mnt/arl"

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Run kubectl in Kubeflow's namespace."""
        command = ["kubectl", "--namespace", "kubeflow", *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
        return done.stdout

    def shell(self, script: str) -> str:
        """Run a script in a pod that sees the volume, as the user of the steps."""
        name = f"{self.prefix}-shell-{uuid.uuid4().hex[:6]}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"arl.dev/cluster-test": self.prefix}},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
                "containers": [
                    {
                        "name": "shell",
                        "image": image("data"),
                        "command": ["/bin/sh", "-ec", script],
                        "volumeMounts": [{"name": "arl", "mountPath": self.mount}],
                        "env": [{"name": "ARL_HASH_KEY", "value": "a secret of the tests"}],
                    }
                ],
                "volumes": [
                    {
                        "name": "arl",
                        "persistentVolumeClaim": {"claimName": f"{self.prefix}-arl"},
                    }
                ],
            },
        }
        self.kubectl("create", "--filename=-", text=json.dumps(pod))
        try:
            until(lambda: self._phase(name) in ("Succeeded", "Failed"), 10 * MINUTES, name)
            output = self.kubectl("logs", name)
            assert self._phase(name) == "Succeeded", output[-3000:]
            return output
        finally:
            self.kubectl("delete", "pod", name, "--wait=false")

    def _phase(self, pod: str) -> str:
        return self.kubectl("get", "pod", pod, "--output=jsonpath={.status.phase}")

    def start(self, pipeline: str, **arguments: Any) -> str:
        """Start a run of a pipeline file; returns its id."""
        package = self.settings.with_name(f"{Path(pipeline).stem}.yaml")
        compile_pipeline(pipeline, package, self.settings)
        defaults = {"overrides": TINY, "tasks": ["breast"]}
        run = self.client.create_run_from_pipeline_package(
            str(package),
            arguments={**defaults, **arguments},
            run_name=f"{self.prefix} {Path(pipeline).stem}",
            experiment_id=self.experiment,
            service_account=f"{self.prefix}-arl-runner",
        )
        self.runs.append(run.run_id)
        return str(run.run_id)

    def state(self, run: str) -> str:
        return str(self.client.get_run(run).state)

    def finish(self, run: str, minutes: float = 60) -> str:
        """Wait for the end of a run; returns its state."""
        until(lambda: self.state(run) in ENDED, minutes * MINUTES, f"run {run}")
        return self.state(run)

    def pods(self, run: str, step: str = "") -> list[dict[str, Any]]:
        """The pods of a run, or of one of its steps."""
        selector = f"pipeline/runid={run}" + (f",arl.dev/step={step}" if step else "")
        text = self.kubectl("get", "pods", f"--selector={selector}", "--output=json")
        return list(json.loads(text)["items"])

    def tasks(self, run: str) -> dict[str, str]:
        """Step -> state of the last try, as the server has it."""
        details = self.client.get_run(run).run_details
        tasks = details.task_details if details else []
        return {task.display_name: str(task.state) for task in tasks}


def until(true: Callable[[], bool], seconds: float, subject: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{subject}: not within {seconds:.0f} s"
        time.sleep(POLL)


def image(target: str) -> str:
    """The image of a target, as the cluster's settings have it."""
    program = f"from components.images import image_of; print(image_of({target!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def compile_pipeline(pipeline: str, package: Path, settings: Path) -> None:
    """Compile with the settings of this test; its folder also holds images.env."""
    words = [str(BIN / "arl"), "compile", pipeline, "--output", str(package)]
    variables = {**os.environ, "ARL_CLUSTER": str(settings)}
    done = subprocess.run(
        words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def write_overlay(folder: Path, prefix: str) -> None:
    """k8s/overlays/minimal under names of this test."""
    overlay = os.path.relpath(ROOT / "k8s/overlays/minimal", folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namePrefix": f"{prefix}-",
        "labels": [{"pairs": {"arl.dev/cluster-test": prefix}}],
        "resources": [overlay],
        "images": [{"name": "arl-data", "newName": image("data").partition("@")[0]}],
    }
    name, _, digest = image("data").partition("@")
    if digest:
        kustomization["images"] = [{"name": "arl-data", "newName": name, "digest": digest}]
    else:
        repository, _, tag = name.rpartition(":")
        kustomization["images"] = [{"name": "arl-data", "newName": repository, "newTag": tag}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The overlay, a corpus of phantoms on its volume, and an experiment; removed at the end."""
    import kfp

    prefix = f"arl-test-{uuid.uuid4().hex[:6]}"
    folder = tmp_path_factory.mktemp("overlay")
    write_overlay(folder, prefix)
    minimal = yaml.safe_load(
        (ROOT / "k8s/overlays/minimal/settings/cluster.yaml").read_text(encoding="utf-8")
    )
    own = {"claim": f"{prefix}-arl", "service_account": f"{prefix}-arl-runner"}
    settings = folder / "cluster.yaml"
    settings.write_text(yaml.safe_dump(minimal | own | {"labels": {"arl.dev/test": prefix}}))
    images = Path(os.environ["ARL_CLUSTER"]).with_name("images.env")
    if images.is_file():
        shutil.copy(images, folder / "images.env")
    client = kfp.Client(
        host=os.environ["KFP_ENDPOINT"], existing_token=os.environ.get("KFP_EXISTING_TOKEN")
    )
    lab = Lab(client, prefix, settings, "")
    try:
        lab.kubectl("apply", f"--kustomize={folder}")
        lab.kubectl(
            "wait", f"job/{prefix}-arl-prepare-volume", "--for=condition=complete", "--timeout=600s"
        )
        lab.experiment = client.create_experiment(prefix).experiment_id
        lab.shell(f"cd /arl && arl sample --corpus {lab.mount}/data {' '.join(TINY[:3])}")
        yield lab
    finally:
        clean_up(lab, folder)


def clean_up(lab: Lab, folder: Path) -> None:
    """Remove everything that the tests made."""
    for identifier in lab.recurring:
        lab.client.delete_recurring_run(identifier)
    for run in lab.runs:
        if lab.state(run) not in ENDED:
            lab.client.terminate_run(run)
        lab.client.delete_run(run)
    if lab.version:
        lab.client.delete_pipeline_version(*lab.version)
        lab.client.delete_pipeline(lab.version[0])
    if lab.experiment:
        lab.client.delete_experiment(lab.experiment)
    for kind in ("workflow", "pod", "trainjob"):
        words = ["delete", kind, f"--selector=arl.dev/test={lab.prefix}", "--ignore-not-found"]
        subprocess.run(["kubectl", "--namespace", "kubeflow", *words], check=False)
    lab.kubectl("delete", f"--kustomize={folder}", "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def full_run(lab: Lab) -> str:
    """A run of arl_full that ended well."""
    run = lab.start("pipelines/arl_full.py")
    assert lab.finish(run) == "SUCCEEDED", lab.tasks(run)
    return run


def test_the_whole_pipeline_releases_a_champion(lab: Lab, full_run: str) -> None:
    tasks = lab.tasks(full_run)
    for step in ("validate", "accept", "pretrain", "drift", "gate", "release", "report"):
        assert tasks[step] == "SUCCEEDED", step
    champion = json.loads(lab.shell(f"cat {lab.mount}/registry/champion.json"))
    assert len(champion["history"]) == 1


def test_its_second_run_answers_the_training_from_the_cache(lab: Lab, full_run: str) -> None:
    """The versions of code and data are the same, so no pod trains again."""
    run = lab.start("pipelines/arl_full.py")
    assert lab.finish(run) == "SUCCEEDED"
    assert not [pod for pod in lab.pods(run, "pretrain") if _ran(pod)]


def _ran(pod: dict[str, Any]) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    return any(status["name"] == "main" for status in statuses)


def deliver(lab: Lab, batch: str, script: str) -> None:
    """Put a batch into the inbox; its marker comes last."""
    folder = f"{lab.mount}/inbox/north/{batch}"
    lab.shell(f"mkdir -p {folder} && cd {folder} && {script} && touch {folder}.complete")


def decisions(lab: Lab) -> list[str]:
    """The decision words of the loop's log, oldest first."""
    lines = lab.shell(f"cat {lab.mount}/monitor/log.jsonl 2> /dev/null || true").splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [
        entry["decision"]["word"]
        for entry in entries
        if entry.get("event") == "decision" and isinstance(entry.get("decision"), dict)
    ]


PICTURES = (
    'python3 -c "import cv2, numpy as np; r = np.random.default_rng(0); '
    "[cv2.imwrite(f'p{i}.png', r.integers(0, 255, (64, 64), np.uint8)) for i in range(12)]; "
    "open('table.csv', 'w').write('file,patient\\n' "
    "+ ''.join(f'p{i}.png,{i}\\n' for i in range(12)))\""
)


def test_an_empty_inbox_ends_after_one_small_step(lab: Lab, full_run: str) -> None:
    run = lab.start("pipelines/arl_monitor.py")
    assert lab.finish(run, 15) == "SUCCEEDED"
    assert not lab.pods(run, "take-batch")
    (pod,) = lab.pods(run, "poll-inbox")
    (main,) = (c for c in pod["spec"]["containers"] if c["name"] == "main")
    assert main["resources"]["requests"] == {"cpu": "100m", "memory": "256Mi"}


def test_a_good_and_a_corrupt_batch_are_decided_on(lab: Lab, full_run: str) -> None:
    """The run's state is not asked: a condition that is not met leaves it open (2.17.0)."""
    before = len(decisions(lab))
    deliver(lab, "good", PICTURES)
    run = lab.start("pipelines/arl_monitor.py")
    lab.finish(run)
    words = decisions(lab)
    assert len(words) == before + 1
    assert words[-1] in ("no-drift", "retrain", "too-few", "cooling-down")
    deliver(lab, "corrupt", "printf broken > table.csv")
    run = lab.start("pipelines/arl_monitor.py")
    lab.finish(run)
    assert decisions(lab)[-1] == "refused"
    assert lab.shell(f"ls {lab.mount}/monitor").split().count("open.json") == 0


def test_a_recurring_run_has_an_owner(lab: Lab, full_run: str) -> None:
    """{{$.pipeline_job_uuid}} is the run's id there too; its name would be empty."""
    package = lab.settings.with_name("arl_monitor.yaml")
    compile_pipeline("pipelines/arl_monitor.py", package, lab.settings)
    pipeline = lab.client.upload_pipeline(str(package), pipeline_name=lab.prefix)
    versions = lab.client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    lab.version = (pipeline.pipeline_id, versions[0].pipeline_version_id)
    recurring = lab.client.create_recurring_run(
        lab.experiment,
        f"{lab.prefix} monitor",
        cron_expression="0 * * * * *",
        max_concurrency=1,
        no_catchup=True,
        params={"overrides": TINY, "tasks": ["breast"]},
        pipeline_id=lab.version[0],
        version_id=lab.version[1],
        service_account=f"{lab.prefix}-arl-runner",
    )
    lab.recurring.append(recurring.recurring_run_id)

    def fired() -> list[str]:
        runs = lab.client.list_runs(experiment_id=lab.experiment, page_size=100).runs or []
        ours = [r for r in runs if r.recurring_run_id == recurring.recurring_run_id]
        return [run.run_id for run in ours]

    until(lambda: bool(fired()), 5 * MINUTES, "the recurring run")
    # the delete of the recurring run must not terminate this run
    lab.client._recurring_run_api.recurring_run_service_delete_recurring_run(
        recurring_run_id=recurring.recurring_run_id, propagation_policy="ORPHAN"
    )
    lab.recurring.remove(recurring.recurring_run_id)
    (run, *_) = fired()
    lab.runs.append(run)
    assert lab.finish(run, 15) == "SUCCEEDED"


def test_a_termination_leaves_no_pod_behind(lab: Lab, full_run: str) -> None:
    run = lab.start("pipelines/arl_full.py", overrides=[*TINY, "pretrain.epochs=500", "seed=7"])
    until(lambda: any(map(_is_running, lab.pods(run, "pretrain"))), 30 * MINUTES, "the training")
    lab.client.terminate_run(run)
    assert lab.finish(run, 10) in ("CANCELED", "FAILED")
    until(lambda: not any(map(_is_running, lab.pods(run))), 5 * MINUTES, "the pods")


def _is_running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def test_a_deleted_pod_is_tried_again_and_resumes(lab: Lab, full_run: str) -> None:
    """A deleted pod is an Error, which every retry policy of Argo covers."""
    run = lab.start("pipelines/arl_full.py", overrides=[*TINY, "pretrain.epochs=40", "seed=8"])
    until(lambda: any(map(_is_running, lab.pods(run, "pretrain"))), 30 * MINUTES, "the training")
    (pod,) = filter(_is_running, lab.pods(run, "pretrain"))
    lab.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    assert lab.finish(run) == "SUCCEEDED", lab.tasks(run)
    names = {pod["metadata"]["name"] for pod in lab.pods(run, "pretrain")}
    assert names - {pod["metadata"]["name"]}

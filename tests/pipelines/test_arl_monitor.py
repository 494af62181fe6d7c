"""The loop as a Kubeflow pipeline: what is compiled, and whole runs of it on this machine."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from arl import params
from arl.monitoring.journal import Journal
from arl.storage.registry import Registry

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STEPS = {"poll-inbox", "take-batch", "compare", "decide", "close-run"}
SETTINGS = [
    "tasks=[breast,lv]",
    "watch.source=picture-table",
    "data.workers=0",
    "release.signed=false",
]
LENIENT = [
    f"task.{task}.{key}" for task in ("breast", "lv") for key in ("floor=0.0", "margin=0.99")
]


def environment(**changes: str) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("KFP_", "ARL_"))
    }
    path = f"{ROOT / 'bin'}:{BIN}:{os.environ['PATH']}"
    return {**clean, "PATH": path, "ARL_CODE_VERSION": "golden", **changes}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The two documents that kfp's own command makes of arl_monitor.py."""
    output = tmp_path_factory.mktemp("compiled") / "arl_monitor.yaml"
    command = [
        "kfp",
        "dsl",
        "compile",
        "--py",
        str(ROOT / "pipelines/arl_monitor.py"),
        "--output",
        str(output),
    ]
    subprocess.run(command, cwd=output.parent, env=environment(), check=True, capture_output=True)
    return list(yaml.safe_load_all(output.read_text(encoding="utf-8")))


def test_it_fits_kubeflows_schemas_and_every_step_is_placed(compiled: list[dict[str, Any]]) -> None:
    spec, platform = compiled
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == spec["deploymentSpec"]["executors"].keys()
    assert {f"exec-{step}" for step in STEPS} <= executors.keys()
    for name, config in executors.items():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        assert config["pvcMount"], name


def test_conditions_are_on_short_words_and_its_steps_are_never_cached(
    compiled: list[dict[str, Any]],
) -> None:
    spec, _ = compiled
    dags = [
        spec["root"]["dag"],
        *(part["dag"] for part in spec["components"].values() if "dag" in part),
    ]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
    conditions = [task.get("triggerPolicy", {}).get("condition", "") for task in tasks.values()]
    words = {condition.split("==")[1].strip() for condition in conditions if condition}
    assert words == {"'waiting'", "'arrived'", "'retrain'"}
    assert not [name for name in STEPS if tasks[name].get("cachingOptions", {}).get("enableCache")]
    assert (
        tasks["close-run"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    )  # also after a failure


def test_the_lease_is_held_by_the_id_of_the_run(compiled: list[dict[str, Any]]) -> None:
    """A recurring run of an inline package has an empty name, and names are not unique.

    kubeflow/pipelines 2.17.0: backend/src/apiserver/template/v2_template.go:108 and
    backend/src/v2/driver/resolve.go:436.
    """
    spec, _ = compiled
    text = json.dumps(spec)
    assert "{{$.pipeline_job_uuid}}" in text
    assert "pipeline_job_name" not in text


def test_an_empty_inbox_costs_little(compiled: list[dict[str, Any]]) -> None:
    """Every other step of the loop is behind the condition that a batch waits."""
    spec, _ = compiled
    tasks = dict(spec["root"]["dag"]["tasks"])
    del tasks["poll-inbox"]
    (policy,) = (task["triggerPolicy"] for task in tasks.values())
    assert "== 'waiting'" in policy["condition"]
    resources = spec["deploymentSpec"]["executors"]["exec-poll-inbox"]["container"]["resources"]
    assert resources["resourceCpuRequest"] == "100m"
    assert resources["resourceMemoryLimit"] == "256Mi"


def test_the_outcome_does_not_depend_on_the_state_of_the_pipeline(
    compiled: list[dict[str, Any]],
) -> None:
    """The backend's words are COMPLETE, FAILED, CANCELED, CACHED and RUNNING, never SUCCEEDED.

    kubeflow/pipelines 2.17.0, backend/src/v2/driver/resolve.go:471. A condition that is not met
    leaves the handler's DAG RUNNING, since only a launcher that ends updates it
    (backend/src/v2/component/launcher_v2.go:227).
    """
    spec, _ = compiled
    parameters = spec["components"]["comp-close-run"]["inputDefinitions"]["parameters"]
    assert {parameter["parameterType"] for parameter in parameters.values()} <= {"STRING", "LIST"}
    assert "taskFinalStatus" not in json.dumps(spec)


@pytest.mark.slow
def test_a_new_scanner_leads_to_a_training_and_a_failed_step_resumes(
    tmp_path: Path, tiny_corpus: Path, deliver: Callable[..., Path]
) -> None:
    """No shift, a failing step, then its retry, with the folders that `arl watch` would leave."""
    folder = tmp_path / "project"
    for name in ("src", "components", "pipelines"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    scale = runpy.run_path(str(ROOT / "tests/conftest.py"))["TINY"]
    tiny = params.load([*scale, *LENIENT, *SETTINGS], ROOT / "params.yaml")
    (folder / "params.yaml").write_text(yaml.safe_dump(params.to_literals(tiny)), encoding="utf-8")
    shutil.copytree(tiny_corpus, folder / "data")
    journal = Journal(folder / "monitor")

    def arl(pipeline: str, code: int = 0, **changes: str) -> str:
        key = {"ARL_HASH_KEY": "7e1f90ac4b2d8365c0f7a91e5d3b8246"} | changes
        command = ["arl", "run", f"pipelines/{pipeline}.py", "--data-hash", "none"]
        done = subprocess.run(
            command, cwd=folder, env=environment(**key), capture_output=True, text=True, check=False
        )
        assert done.returncode == code, (done.stdout + done.stderr)[-4000:]
        return done.stdout + done.stderr

    def events() -> list[str]:
        return [
            entry.event if entry.decision is None else entry.decision.word
            for entry in journal.entries()
        ]

    arl("arl_full")
    (folder / "inbox").mkdir()
    arl("arl_monitor")
    assert events() == []  # nothing has arrived
    deliver(folder / "inbox", "week-1")
    arl("arl_monitor")
    assert events() == ["baseline", "no-drift"]
    deliver(folder / "inbox", "week-2", gain=1.5, seed=2)
    registry = folder / "registry"
    registry.rename(folder / "unreachable")
    arl("arl_monitor", 1)
    assert events() == ["baseline", "no-drift", "failed"]
    shutil.rmtree(registry, ignore_errors=True)
    (folder / "unreachable").rename(registry)
    arl("arl_monitor")
    assert events()[-2:] == ["retrain", "outcome"]
    assert len(Registry(registry, None).history()) == 2
    assert not (folder / "monitor/open.json").exists()
    assert (folder / "monitor/index.html").is_file()
    assert journal.problems() == []

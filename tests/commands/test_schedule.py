"""`arl schedule`: the server's recurring runs follow the file."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from arl.commands.schedule import six_fields

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FULL = {
    "pipeline": "pipelines/arl_full.py",
    "cron": "30 2 * * sun",
    "enabled": True,
    "overrides": ["seed=3"],
}


def schedule(url: str, file: Path) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KFP_", "KF_", "ARL_"))
    }
    digest = "sha256:" + 64 * "0"
    images = {"ARL_IMAGE": f"localhost:9/arl-{{target}}@{digest}"}
    environment = {**clean, "KFP_ENDPOINT": url, **images}
    words = [str(BIN / "arl"), "schedule", "--schedules", str(file)]
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()
    for module in (ROOT / "pipelines").glob("[!_]*.py"):
        (tmp_path / "pipelines" / module.name).symlink_to(module)
    return tmp_path / "pipelines" / "schedules.yaml"


def test_recurring_runs_follow_the_file(kubeflow: Any, file: Path) -> None:
    kubeflow.recurring["other"] = {
        "recurring_run_id": "other",
        "display_name": "by hand",
        "description": "theirs",
    }

    def lines(**schedules: dict[str, Any]) -> list[str]:
        kubeflow.calls.clear()
        file.write_text(yaml.safe_dump(schedules))
        done = schedule(kubeflow.url, file)
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        return [line for line in printed if line.startswith("arl-") and ": next " not in line]

    assert lines(full=FULL) == ["arl-full: created (0 30 2 * * sun)"]
    (made,) = (run for run in kubeflow.recurring.values() if run["display_name"] == "arl-full")
    assert made["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * sun"}}
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", 1, True)
    assert made["experiment_id"] == "e1"
    assert made["service_account"] == "arl-runner"
    assert made["runtime_config"]["parameters"]["overrides"] == ["seed=3"]
    # of a version: only then do its runs have a display name (server/.../template/v2_template.go)
    assert "pipeline_spec" not in made
    assert kubeflow.package(made)[0]["pipelineInfo"]["name"] == "arl-full"

    assert lines(full=FULL) == ["arl-full: unchanged (0 30 2 * * sun)"]
    assert kubeflow.calls == []
    assert lines(full={**FULL, "enabled": False}) == ["arl-full: replaced (0 30 2 * * sun)"]
    # at no moment without one
    assert kubeflow.calls == ["make arl-full", "delete arl-full"]
    assert lines() == ["arl-full: removed"]
    assert list(kubeflow.recurring) == ["other"]


def test_a_change_does_not_terminate_the_run_in_progress(kubeflow: Any, file: Path) -> None:
    """kubeflow/pipelines#12573; 2.17.0, backend/src/apiserver/resource/resource_manager.go."""
    file.write_text(yaml.safe_dump({"full": FULL}))
    assert schedule(kubeflow.url, file).returncode == 0
    kubeflow.in_progress = set(kubeflow.recurring)
    running = set(kubeflow.in_progress)
    file.write_text(yaml.safe_dump({"full": {**FULL, "cron": "0 1 * * *"}}))
    assert schedule(kubeflow.url, file).returncode == 0
    assert kubeflow.in_progress == running
    assert running.isdisjoint(kubeflow.recurring)


def test_the_next_firings_are_printed(kubeflow: Any, file: Path) -> None:
    file.write_text(yaml.safe_dump({"full": {**FULL, "cron": "30 2 1 * *"}}))
    done = schedule(kubeflow.url, file)
    (line,) = (line for line in done.stdout.splitlines() if ": next " in line)
    assert len(re.findall(r"\d{4}-\d\d-01 02:30", line)) == 3


def test_a_refusal_changes_nothing(kubeflow: Any, file: Path) -> None:
    kubeflow.refuse = 401
    file.write_text(yaml.safe_dump({"full": FULL}))
    done = schedule(kubeflow.url, file)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"arl schedule: KFP_ENDPOINT={kubeflow.url} does not accept the token"
    )
    assert kubeflow.calls == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": "0 30 2 * * 0"}, "has 6 fields; it needs five"),
        ({"cron": "60 2 * * *"}, "cron '60 2 * * *'"),
        ({"cron": "0 2 * * 7"}, "'7' is unknown to Kubeflow"),
        ({"cron": "0 2 L * *"}, "'L' is unknown to Kubeflow"),
        ({"cron": "0 2 * foo *"}, "cron '0 2 * foo *'"),
        ({"cron": "30 2 1-7 * 0"}, "names a day of the month and a weekday"),
        ({"pipeline": "pipelines/none.py"}, "pipeline pipelines/none.py of full does not exist"),
        ({"overrides": ["seed=x"]}, "seed is 'x'"),
        ({"time": "now"}, "full has the keys"),
    ],
)
def test_a_wrong_schedule_is_one_sentence(
    file: Path, changes: dict[str, Any], message: str
) -> None:
    file.write_text(yaml.safe_dump({"full": {**FULL, **changes}}))
    done = schedule("http://127.0.0.1:9", file)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("cron", ["*/15 * * * *", "0 2 1,15 jan-mar *", "5-50/5 0 * * mon-fri"])
def test_five_fields_become_six(cron: str) -> None:
    assert six_fields(cron) == f"0 {cron}"


def test_our_own_schedules_are_sound() -> None:
    for entry in yaml.safe_load((ROOT / "pipelines/schedules.yaml").read_text()).values():
        assert (ROOT / entry["pipeline"]).is_file()
        assert len(six_fields(entry["cron"]).split()) == 6

"""`arl run`: what it hands to a pipeline, and what it says when it cannot."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from arl import params
from arl.composition import compose

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DIGEST = "sha256:" + 64 * "0"
IMAGES = {"ARL_IMAGE": f"localhost:9/arl-{{target}}@{DIGEST}", "ARL_CODE_VERSION": "golden"}
ECHO = """
from kfp import dsl


@dsl.component(base_image="python", packages_to_install=[], install_kfp_package=False)
def echo(text: str, tasks: list, overrides: list, batches: list) -> str:
    import json
    import os

    return json.dumps([text, tasks, overrides, batches, os.getcwd()])


@dsl.component(base_image="python", packages_to_install=[], install_kfp_package=False)
def fail():
    raise ValueError("the step's own words")


@dsl.pipeline(name="echo")
def run_echo(data_hash: str, tasks: list, overrides: list, batches: list) -> str:
    return echo(text=data_hash, tasks=tasks, overrides=overrides, batches=batches).output
"""


def arl(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KFP_", "KF_", "ARL_"))
    }
    path = f"{ROOT / 'bin'}:{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        words,
        cwd=folder,
        # no cluster of the developer
        env={**clean, "PATH": path, "KUBECONFIG": "/nonexistent", **IMAGES, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an echoing pipeline; its corpus has the hash abc.dir."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "echo.py").write_text(ECHO)
    for file in (ROOT / "pipelines").iterdir():
        (tmp_path / "pipelines" / file.name).symlink_to(file)
    for name in ("params.yaml", "conf", "components", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  hash: md5\n  path: data\n")
    return tmp_path


def line_of(output: str, prefix: str) -> str:
    """The rest of the one line that begins with the prefix."""
    (line,) = (line for line in output.splitlines() if line.startswith(prefix))
    return line.removeprefix(prefix)


def echoed(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """What the pipeline was given: hash, tasks, overrides, batches and its folder."""
    assert done.returncode == 0, done.stderr
    values: list[Any] = json.loads(line_of(done.stdout, "Output: "))
    return values


def test_local_run_hands_over_hash_tasks_and_overrides(project: Path) -> None:
    words = ["tasks=[lung, lv]", "--root", "kept", "--set", "seed=3", "task.lung.margin=0.07"]
    done = arl(project, "kfp", "run", "pipelines/echo.py", *words)
    changes = ["seed=3", 'tasks=["lung", "lv"]', "task.lung.margin=0.07"]
    assert echoed(done) == ["abc.dir", ["lung", "lv"], changes, [], str(project)]
    artifacts = line_of(done.stdout, "artifacts: ")
    assert (project / artifacts / "echo" / "executor_output.json").is_file()


def test_an_experiment_is_handed_over_as_what_it_changes(project: Path) -> None:
    done = arl(
        project, "arl", "run", "pipelines/echo.py", "--experiment", "busbra", "finetune.epochs=7"
    )
    _, tasks, overrides, *_ = echoed(done)
    assert tasks == ["breast"]
    wanted = compose(["experiment=busbra", "finetune.epochs=7"], ROOT / "conf")
    assert params.load(overrides, ROOT / "params.yaml") == wanted
    assert "finetune.epochs=7" in overrides
    assert not [word for word in overrides if word.startswith("model.depth")]  # as it is


def test_batches_are_handed_over_part_by_part(project: Path) -> None:
    (project / "new.yaml").write_text(
        "- {source: bus-bra, root: /in/BUSBRA}\n"
        "- {source: dicom-folder, root: /in/w47, batch: 2026-w47, site: north, parts: 3}\n"
    )
    *_, batches, _ = echoed(
        arl(project, "arl", "run", "pipelines/echo.py", "--batches", "new.yaml")
    )
    drop = {"source": "dicom-folder", "root": "/in/w47", "options": {"site": "north"}}
    assert batches == [
        {"source": "bus-bra", "root": "/in/BUSBRA", "batch": "0000", "options": {}, "part": "1/1"},
        {**drop, "batch": "2026-w47-1", "part": "1/3"},
        {**drop, "batch": "2026-w47-2", "part": "2/3"},
        {**drop, "batch": "2026-w47-3", "part": "3/3"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x", "new.yaml must be a list of"),
        ("- {source: x}", "source and root"),
        ("- {source: x, root: y, sight: z}", "'sight'"),
        ("- {source: x, root: y, parts: 0}", "a whole number from 1"),
        ("- {source: x, root: y}\n- {source: x, root: z}", "x/0000 is listed twice"),
        ("- {", "new.yaml is not valid YAML"),
    ],
)
def test_a_wrong_list_of_batches(project: Path, text: str, message: str) -> None:
    (project / "new.yaml").write_text(text)
    done = arl(project, "arl", "run", "pipelines/echo.py", "--batches", "new.yaml")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_failing_step_ends_in_exit_code_1(project: Path) -> None:
    file = project / "pipelines" / "echo.py"
    file.write_text(ECHO.replace("return echo(", "fail()\n    return echo("))
    done = arl(project, "arl", "run", "pipelines/echo.py")
    assert done.returncode == 1
    assert "the step's own words" in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "arl run: Pipeline 'echo' finished with status FAILURE"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pipelines/nothing.py"], "pipeline pipelines/nothing.py does not exist"),
        (
            ["pipelines/echo.py", "--root", "x/python3.11"],
            "x/python3.11: kfp.local cannot pass names with python3",
        ),
        (
            ["pipelines/echo.py", "--backend", "docker", "--registry", "s3://releases/arl"],
            "is not a folder, and",
        ),
        (
            ["pipelines/echo.py", "--batches", "nothing.yaml"],
            "batches nothing.yaml does not exist",
        ),
        (["pipelines/echo.py", "--experiment", "none"], "experiment/none"),
        (["pipelines/echo.py", "pretrain.epoch=1"], "did you mean 'epochs'"),
        (["pipelines/echo.py", "tasks=[]"], "tasks is empty"),
        (["pipelines/echo.py", "--corpus", "other"], "other.dvc does not exist"),
        (["pipelines/runner.py"], "pipelines/runner.py defines 0 pipelines"),
        (["pipelines/echo.py", "--backend", "kfp"], "KFP_ENDPOINT is not set"),
    ],
)
def test_what_cannot_run_is_one_sentence(project: Path, words: list[str], message: str) -> None:
    done = arl(project, "arl", "run", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("arl run: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_clone_without_a_corpus_is_told_how_to_get_one(project: Path) -> None:
    (project / "data").rmdir()
    done = arl(project, "kfp", "run", "pipelines/echo.py")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "arl run: corpus data does not exist: `arl sample --corpus data` makes one"
    )
    (project / "new.yaml").write_text("- {source: bus-bra, root: /in}\n")
    assert arl(project, "kfp", "run", "pipelines/echo.py", "--batches", "new.yaml").returncode == 0


def test_a_pipeline_that_needs_more_than_we_give(project: Path) -> None:
    file = project / "pipelines" / "echo.py"
    file.write_text(ECHO.replace("data_hash: str, tasks", "patience: int, data_hash: str, tasks"))
    done = arl(project, "arl", "run", "pipelines/echo.py")
    assert done.returncode == 1
    assert "pipeline echo needs patience" in done.stderr


def test_unreachable_endpoint(project: Path) -> None:
    words = ["run", "pipelines/echo.py", "--backend", "kfp"]
    done = arl(project, "arl", *words, KFP_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "KFP_ENDPOINT=http://127.0.0.1:9: no Kubeflow Pipelines API answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_submission(kubeflow: Any) -> None:
    words = ["run", "pipelines/arl_full.py", "--backend", "kfp", "--data-hash", "abc.dir"]
    words += ["tasks=[lung]", "--registry", "s3://releases/arl"]
    done = arl(ROOT, "kfp", *words, KFP_ENDPOINT=kubeflow.url, KFP_EXISTING_TOKEN="token")
    assert done.returncode == 0, done.stderr
    assert line_of(done.stdout, "run: ") == f"{kubeflow.url}/#/runs/details/r1"
    (run,) = kubeflow.runs
    assert kubeflow.tokens == {"Bearer token"}
    assert run["service_account"] == "arl-runner"
    # the corpus is left to the pipeline's default: a folder of the cluster's volume
    assert run["runtime_config"]["parameters"] == {
        "data_hash": "abc.dir",
        "tasks": ["lung"],
        "overrides": ['tasks=["lung"]'],
        "batches": [],
        "registry": "s3://releases/arl",
    }
    assert re.fullmatch(r"arl-full data-abc\.dir code-[0-9a-f]{8}", run["display_name"])
    assert 'changes: tasks=["lung"]' in run["description"]
    (version,) = kubeflow.versions.values()
    assert version["display_name"].startswith("golden-")
    spec, platform = kubeflow.package(run)
    golden = (ROOT / "tests/pipelines/golden/arl_full.yaml").read_text()
    text = golden.replace("arl-", "localhost:9/arl-")
    assert spec["components"].keys() == next(yaml.safe_load_all(text))["components"].keys()
    assert platform["platforms"]["kubernetes"]


def test_a_long_description_fits_kubeflows_column(kubeflow: Any) -> None:
    """VARCHAR(255): kubeflow/pipelines 2.17.0, backend/src/apiserver/client_manager."""
    words = ["run", "pipelines/arl_full.py", "--backend", "kfp", "--data-hash", "x"]
    words += ["--experiment", "paper", "--name", 300 * "n"]
    done = arl(ROOT, "arl", *words, KFP_ENDPOINT=kubeflow.url)
    assert done.returncode == 0, done.stderr
    (run,) = kubeflow.runs
    assert run["description"].startswith("experiment: paper; ")
    assert run["description"].endswith(" ...")
    assert run["runtime_config"]["parameters"]["overrides"]


def test_a_second_submission_uses_the_version_of_the_first(kubeflow: Any) -> None:
    words = ["run", "pipelines/arl_full.py", "--backend", "kfp", "--data-hash", "x"]
    for name in ("first", "second"):
        done = arl(ROOT, "arl", *words, "--name", name, KFP_ENDPOINT=kubeflow.url)
        assert done.returncode == 0, done.stderr
    assert [run["display_name"] for run in kubeflow.runs] == ["first", "second"]
    assert kubeflow.calls == ["upload arl-full"]


def test_another_code_is_another_version(kubeflow: Any) -> None:
    words = ["pipeline", "upload", "pipelines/arl_full.py"]
    for version in ("old", "new", "new"):
        done = arl(ROOT, "arl", *words, KFP_ENDPOINT=kubeflow.url, ARL_CODE_VERSION=version)
        assert done.returncode == 0, done.stderr
    assert "is on the server already" in done.stdout
    names = [version["display_name"].partition("-")[0] for version in kubeflow.versions.values()]
    assert names == ["old", "new"]


@pytest.mark.parametrize("command", ["run", "pipeline", "compile"])
def test_a_tag_is_refused_for_a_cluster(project: Path, kubeflow: Any, command: str) -> None:
    words = {
        "run": ["run", "pipelines/echo.py", "--backend", "kfp"],
        "pipeline": ["pipeline", "upload", "pipelines/echo.py"],
        "compile": ["compile", "pipelines/echo.py"],
    }[command]
    tags = {"ARL_IMAGE": "hub.example/arl-{target}:1", "KFP_ENDPOINT": kubeflow.url}
    done = arl(project, "arl", *words, **tags)
    assert done.returncode == 1
    assert "docker buildx imagetools inspect hub.example/arl-train:1" in done.stderr
    assert not kubeflow.runs
    (project / "own.yaml").write_text("allow_tags: true\n")
    assert arl(project, "arl", *words, **tags, ARL_CLUSTER="own.yaml").returncode == 0


def test_compile_says_what_the_pipeline_expects(tmp_path: Path) -> None:
    words = ["compile", "pipelines/arl_full.py", "--output", str(tmp_path / "x.yaml")]
    done = arl(ROOT, "arl", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"image train: localhost:9/arl-train@{DIGEST}" in lines
    assert "claim: arl at /mnt/arl" in lines
    assert "secret arl-signing-key (signing.pem): optional, read by release" in lines
    assert "nodes of pretrain: arl.dev/pool=gpu" in lines
    assert len(list(yaml.safe_load_all((tmp_path / "x.yaml").read_text()))) == 2


def test_dry_run_submits_nothing(kubeflow: Any) -> None:
    words = ["run", "pipelines/arl_full.py", "--backend", "kfp", "--data-hash", "x", "--dry-run"]
    done = arl(ROOT, "arl", *words, KFP_ENDPOINT=kubeflow.url)
    assert done.returncode == 0, done.stderr
    assert "service account: arl-runner" in done.stdout
    assert "nothing was submitted (--dry-run)" in done.stdout
    assert not kubeflow.runs
    assert not kubeflow.calls


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "does not accept the token (401): it is missing or has expired"),
        (403, "forbids it (403): the token's account lacks the ClusterRole"),
        (500, 'refused it: 500 Internal Server Error {"error": "refused"}'),
    ],
)
def test_refused_submission(kubeflow: Any, status: int, message: str) -> None:
    kubeflow.refuse = status
    words = ["run", "pipelines/arl_full.py", "--backend", "kfp", "--data-hash", "x"]
    done = arl(ROOT, "arl", *words, KFP_ENDPOINT=kubeflow.url)
    assert done.returncode == 1
    assert f"arl run: KFP_ENDPOINT={kubeflow.url} {message}" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_docker_daemon(project: Path) -> None:
    words = ["run", "pipelines/echo.py", "--backend", "docker"]
    done = arl(project, "arl", *words, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "arl run: no Docker daemon answers at unix:///nowhere/docker.sock"
    )


def test_the_shim_leaves_the_rest_to_kfp() -> None:
    done = arl(ROOT, "kfp", "--version")
    assert done.stdout.startswith("kfp 2.")
    assert arl(ROOT, "kfp", "dsl", "compile", "--help").returncode == 0

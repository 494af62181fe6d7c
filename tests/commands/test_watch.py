"""`arl watch` in a project with its own git and DVC: killed at every step, starved of disk,
triggered twice.
"""

import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from arl import params
from arl.files import tree_hash
from arl.monitoring.journal import Journal, LogEntry
from arl.storage.registry import Registry

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# what a model that has learnt nothing may be released with
LENIENT = [
    f"task.{task}.{key}" for task in ("breast", "lv") for key in ("floor=0.0", "margin=0.99")
]
SETTINGS = [
    "tasks=[breast,lv]",
    "watch.source=picture-table",
    "data.workers=0",
    "release.signed=false",
]
pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("KFP_", "ARL_"))
    }
    return {
        **clean,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ARL_HASH_KEY": "7e1f90ac4b2d8365c0f7a91e5d3b8246",
    }


class Project:
    """A project whose loop is started, killed and looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inbox = folder, folder / "inbox"
        self.journal = Journal(folder / "monitor")

    def start(self, **options: Any) -> "subprocess.Popen[str]":
        """`arl watch inbox`, in a session of its own, so that it can be killed with all of its
        children.
        """
        return subprocess.Popen(
            ["arl", "watch", "inbox"],
            cwd=self.folder,
            env={**environment(), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )

    def watch(self, code: int = 0, **options: Any) -> str:
        """`arl watch inbox` to its end; what it said."""
        told, _ = (process := self.start(**options)).communicate()
        assert process.returncode == code, told
        return told

    def events(self) -> list[str]:
        return [
            entry.event if entry.decision is None else entry.decision.word
            for entry in self.journal.entries()
        ]

    def outcome(self) -> LogEntry:
        [outcome] = [entry for entry in self.journal.entries() if entry.event == "outcome"]
        return outcome

    @property
    def champions(self) -> list[str]:
        return Registry(self.folder / "registry", None).history()

    def batches(self) -> list[str]:
        return sorted(
            file.parent.parent.name for file in (self.folder / "data").glob("*/*/batch.json")
        )

    def commits(self) -> list[str]:
        told = subprocess.run(
            ["git", "log", "--format=%s"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.split(" picture-table")[0] for line in told.stdout.splitlines()]


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    """A project with a corpus of one site, under git, whose first champion was trained and released
    by the pipeline.
    """
    folder = tmp_path_factory.mktemp("watched") / "project"
    for name in ("src", "components", "pipelines"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    scale = runpy.run_path(str(ROOT / "tests/conftest.py"))["TINY"]
    tiny = params.load([*scale, *LENIENT, *SETTINGS], ROOT / "params.yaml")
    (folder / "params.yaml").write_text(yaml.safe_dump(params.to_literals(tiny)), encoding="utf-8")
    shutil.copytree(tiny_corpus, folder / "data")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "dvc", "add", "--quiet", "data")
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "--all")
    run(
        folder,
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@localhost",
        "commit",
        "--quiet",
        "-m",
        "Start",
    )
    (folder / "inbox").mkdir()
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Project:
    shutil.copytree(trained, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def kill_when(
    project: Project, line: str, *, only_parent: bool = False, later: float = 0.4
) -> None:
    """Start the loop and kill it, as a power failure would, a moment after it has said `line`."""
    process = project.start()
    assert process.stdout is not None
    for told in process.stdout:
        if told.startswith(line):
            break
    else:
        pytest.fail(f"the loop ended without saying {line!r}")
    time.sleep(later)
    if only_parent:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


STEPS = ["take-batch", "compare", "decide", "dvc add", "git commit", "dvc repro", "close-run"]


def test_killed_at_every_step_it_ends_as_if_nothing_had_been(
    project: Project, trained: Path, tmp_path: Path, deliver: Callable[..., Path]
) -> None:
    shutil.copytree(trained, tmp_path / "calm", symlinks=True)
    calm = Project(tmp_path / "calm")
    for each in (project, calm):
        deliver(each.inbox, "week-1", gain=1.5)
    calm.watch()
    for step in STEPS:
        # a child says its step before it has begun, and some are soon over: at once, and a moment
        # later
        kill_when(
            project, f"watch: {step} ...", later=0.05 if step in ("git commit", "decide") else 1.5
        )
    project.watch()
    for each in (project, calm):
        assert each.events() == ["baseline", "retrain", "outcome"]
        assert each.batches() == ["clinic", "picture-table"]
        assert not (each.folder / "monitor/open.json").exists()
        assert each.commits() == ["Training on batch", "Corpus: batch", "Start"]
        assert len(list((each.folder / "monitor/runs").iterdir())) == 1
    assert len(project.champions) == 2
    assert project.champions == calm.champions  # the same bits
    words = [[entry.words for entry in each.journal.entries()] for each in (project, calm)]
    assert words[0] == words[1]
    left = project.journal.file.read_bytes(), tree_hash(project.folder / "data")
    told = project.watch()
    assert (
        "nothing new has arrived" in (project.folder / "monitor/steps/take-batch.txt").read_text()
    )
    assert "dvc" not in told
    assert (project.journal.file.read_bytes(), tree_hash(project.folder / "data")) == left


KILLS = 20


def killed_at_random(project: Project, rng: random.Random, seconds: float) -> list[float]:
    """Start the loop again and again, and kill it with all of its children after a random time,
    KILLS times at most.

    `seconds` is how long it may live, at most; longer each time, since its longest step must come
    to an end on a busy machine. Log-uniform, so that the short steps at the beginning are hit as
    often as a training. Returns the seconds after which it was killed.
    """
    after: list[float] = []
    while True:
        process = project.start()
        lives = 0.5 * (2 * seconds * (1 + len(after) / 10)) ** rng.random()
        try:
            told, _ = process.communicate(timeout=lives if len(after) < KILLS else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            after.append(round(lives, 1))
            continue
        assert process.returncode == 0, told
        return after


def same_end(project: Project, calm: Project) -> None:
    """The same decisions in the same words, corpus, commits and champion, and nothing half done."""
    assert project.events() == calm.events() == ["baseline", "retrain", "outcome"]
    assert [entry.words for entry in project.journal.entries()] == [
        entry.words for entry in calm.journal.entries()
    ]
    assert project.champions == calm.champions  # the same bits
    assert project.batches() == calm.batches()
    assert project.commits() == calm.commits()
    assert not (project.folder / "monitor/open.json").exists()
    assert not [path for path in project.folder.rglob("*") if ".partial" in path.name]
    ours, theirs = (sorted((each.folder / "monitor/runs").iterdir()) for each in (project, calm))
    assert len(ours) == len(theirs) == 1
    assert {path.name for path in ours[0].iterdir()} == {path.name for path in theirs[0].iterdir()}
    for name in ("dvc.lock", "out/report/index.html", "monitor/index.html"):
        assert (project.folder / name).is_file()


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(
    trained: Path, tmp_path: Path, deliver: Callable[..., Path]
) -> None:
    def fresh(name: str) -> Project:
        shutil.copytree(trained, tmp_path / name, symlinks=True)
        deliver((made := Project(tmp_path / name)).inbox, "week-1", gain=1.5)
        return made

    calm = fresh("calm")
    began = time.monotonic()
    calm.watch()
    longest = (time.monotonic() - began) / 4
    rng, kills, rounds = random.Random(6), 0, 0
    while kills < KILLS:
        project = fresh(f"round-{rounds}")
        after = killed_at_random(project, rng, longest)
        print(f"round {rounds}: {len(after)} kills, after {after} s; champions {project.champions}")
        same_end(project, calm)
        kills, rounds = kills + len(after), rounds + 1
    print(f"{kills} kills in {rounds} rounds, each ended as {calm.champions} did")


def test_a_training_outlives_its_killed_parent_and_is_not_started_twice(
    project: Project, deliver: Callable[..., Path]
) -> None:
    deliver(project.inbox, "week-1", gain=1.5)
    kill_when(project, "watch: dvc repro ...", only_parent=True, later=2)
    told = project.watch()
    assert "already-running" in told
    assert "is under way (process " in told
    deadline = time.monotonic() + 1800
    while "already-running" in (told := project.watch()):
        assert time.monotonic() < deadline
        time.sleep(2)
    events = Counter(project.events())
    assert (events["retrain"], events["outcome"], len(project.champions)) == (1, 1, 2)
    assert project.outcome().label == "promote"


def wait_for(process: "subprocess.Popen[str]", words: str) -> list[int]:
    """The processes of a session whose command line has these words, once there are any."""
    command = ["pgrep", "-s", str(process.pid), "-f", words]
    deadline = time.monotonic() + 1800
    while not (found := subprocess.run(command, capture_output=True, check=False).stdout.split()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [int(pid) for pid in found]


def test_a_stage_that_dies_is_tried_again(project: Project, deliver: Callable[..., Path]) -> None:
    deliver(project.inbox, "week-1", gain=1.5)
    process = project.start()
    assert process.stdout is not None
    for told in process.stdout:
        if told.startswith("watch: dvc repro ..."):
            break
    for pid in wait_for(process, "arl pretrain"):
        os.kill(pid, signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait() == 1
    assert "dvc repro failed" in rest
    assert project.events()[-1] == "failed"
    assert project.champions == project.champions[:1]
    project.watch()
    assert project.events() == ["baseline", "retrain", "failed", "outcome"]
    assert len(project.champions) == 2


@pytest.mark.parametrize("limit", [6_000, 40_000])
def test_a_full_disk_loses_nothing(
    project: Project, deliver: Callable[..., Path], limit: int
) -> None:
    """No file may grow beyond the limit: what a write to a full disk does, at the batch's shard or
    at the pages.
    """
    deliver(project.inbox, "week-1")
    before = tree_hash(project.folder / "data"), tree_hash(project.inbox)
    told = project.watch(
        1, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert "failed: " in told
    assert "failed" not in project.events()  # an outage is no attempt
    assert "File too large" in told or "disk full" in told
    assert tree_hash(project.inbox) == before[1]
    assert project.champions == project.champions[:1]
    project.watch()
    assert [event for event in project.events() if event != "outage"] == ["baseline", "no-drift"]
    assert project.batches() == ["clinic", "picture-table"]
    assert not list(project.folder.rglob("*.partial"))


def test_of_two_triggers_in_the_same_second_one_runs_and_one_is_told(
    project: Project, deliver: Callable[..., Path]
) -> None:
    deliver(project.inbox, "week-1")
    told = [process.communicate()[0] for process in [project.start(), project.start()]]
    assert ["already-running" in text for text in told].count(True) == 1
    assert sorted(project.events()) == ["already-running", "baseline", "no-drift"]
    assert project.batches() == ["clinic", "picture-table"]


def test_outside_a_project(tmp_path: Path) -> None:
    done = subprocess.run(
        ["arl", "watch", "inbox"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "params.yaml does not exist: run inside the project" in done.stderr


def test_an_inbox_that_cannot_be_reached_is_named_and_nothing_begins(project: Project) -> None:
    shutil.rmtree(project.inbox)
    told = project.watch(1)
    assert "take-batch failed: arl take-batch: inbox inbox is not a folder" in told
    assert project.events() == []

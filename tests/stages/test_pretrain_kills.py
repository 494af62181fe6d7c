"""Kill a pretraining at random moments: the resumed run must end in the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from arl.files import tree_hash
from arl.training import checkpoint
from arl.training.engine import EXIT_PREEMPTED

ROOT = Path(__file__).parents[2]
KILLS = 30
STEPS = 250

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path, tiny_corpus: Path, tiny_overrides: list[str]) -> Start:
    """Return a function that starts the pretraining NAME with states of its own."""

    def start_named(name: str, *overrides: str) -> subprocess.Popen[bytes]:
        outputs = [
            "--checkpoint",
            str(tmp_path / name),
            "--metrics",
            str(tmp_path / f"{name}.json"),
        ]
        arl = str(Path(sys.executable).with_name("arl"))
        words = [*tiny_overrides, f"pretrain.max_steps={STEPS}", *overrides]
        return subprocess.Popen(
            [arl, "pretrain", "--corpus", str(tiny_corpus), *outputs, *words],
            cwd=ROOT,
            env=os.environ | {"ARL_RUNS": str(tmp_path / f"runs-{name}")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return start_named


def steps_done(runs: Path) -> int:
    """Steps of the newest complete training state."""
    states = list(runs.glob("pretrain-*"))
    newest = checkpoint.latest(states[0]) if states else None
    return int(newest.name.removeprefix("step-")) if newest else 0


def holds_lock(process: subprocess.Popen[bytes], runs: Path) -> bool:
    return any(f"process {process.pid} " in lock.read_text() for lock in runs.glob("*/lock"))


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.02)


def require_same_result(folder: Path, start: Start) -> None:
    """End the run `killed`, train the run `whole` in one go and compare all that they write."""
    assert start("killed").wait() == 0
    assert start("whole").wait() == 0
    assert tree_hash(folder / "killed") == tree_hash(folder / "whole")
    assert (folder / "killed.json").read_bytes() == (folder / "whole.json").read_bytes()


@pytest.mark.slow
def test_sigkill_thirty_times(tmp_path: Path, start: Start) -> None:
    """SIGKILL at a random moment after the first state that the process itself wrote."""
    chance, runs, reached = random.Random(7), tmp_path / "runs-killed", [0]
    for _ in range(KILLS):
        process = start("killed")
        wait_for(process, lambda: steps_done(runs) > reached[-1])
        time.sleep(chance.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended too early: give it more steps"
        reached.append(steps_done(runs))
    print(f"{KILLS} kills by SIGKILL; steps that were safe after each: {reached[1:]}")
    assert all(later > earlier for earlier, later in pairwise(reached))
    require_same_result(tmp_path, start)


@pytest.mark.slow
def test_sigterm_thirty_times(tmp_path: Path, start: Start) -> None:
    """SIGTERM at a random moment after the process has taken the run's lock.

    The run writes no other states, so each one is that of the step in which the signal came.
    """
    chance, runs, reached = random.Random(8), tmp_path / "runs-killed", [0]
    for _ in range(KILLS):
        process = start("killed", "pretrain.checkpoint_every=0")
        wait_for(process, lambda process=process: holds_lock(process, runs))
        time.sleep(chance.uniform(0.0, 0.6))
        process.send_signal(signal.SIGTERM)
        assert process.wait() == EXIT_PREEMPTED
        reached.append(steps_done(runs))
    print(f"{KILLS} kills by SIGTERM; steps that were safe after each: {reached[1:]}")
    assert all(later > earlier for earlier, later in pairwise(reached))
    require_same_result(tmp_path, start)

"""kill -9 at random moments of a pretraining: the resumed run must end in the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from arl.files import tree_hash
from arl.training import checkpoint

ROOT = Path(__file__).parents[2]
KILLS = 30
STEPS = 250


def start(folder: Path, corpus: Path, name: str, overrides: list[str]) -> subprocess.Popen[bytes]:
    outputs = ["--checkpoint", str(folder / name), "--metrics", str(folder / f"{name}.json")]
    arl = str(Path(sys.executable).with_name("arl"))
    command = [
        arl,
        "pretrain",
        "--corpus",
        str(corpus),
        *outputs,
        *overrides,
        f"pretrain.max_steps={STEPS}",
    ]
    environment = os.environ | {"ARL_RUNS": str(folder / f"runs-{name}")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def steps_done(folder: Path) -> int:
    """Steps of the newest complete training state."""
    states = list(folder.glob("pretrain-*"))
    newest = checkpoint.latest(states[0]) if states else None
    return int(newest.name.removeprefix("step-")) if newest else 0


def kill_in_training(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> bool:
    """Kill the process a random moment after its first own state; False if it has ended before."""
    done = steps_done(folder)
    while process.poll() is None and steps_done(folder) == done:
        time.sleep(0.02)
    time.sleep(chance.uniform(0.0, 0.2))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_thirty_times(tmp_path: Path, tiny_corpus: Path, tiny_overrides: list[str]) -> None:
    assert start(tmp_path, tiny_corpus, "whole", tiny_overrides).wait() == 0
    chance, kills, reached = random.Random(7), 0, [0]
    runs = tmp_path / "runs-killed"
    while kills < KILLS and kill_in_training(
        start(tmp_path, tiny_corpus, "killed", tiny_overrides), runs, chance
    ):
        kills += 1
        reached.append(steps_done(runs))
    print(f"{kills} kills; steps that were safe after each: {reached[1:]}")
    assert kills == KILLS, "the run ended before it was killed often enough: give it more steps"
    assert all(later > earlier for earlier, later in pairwise(reached))
    assert start(tmp_path, tiny_corpus, "killed", tiny_overrides).wait() == 0
    assert tree_hash(tmp_path / "killed") == tree_hash(tmp_path / "whole")
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()

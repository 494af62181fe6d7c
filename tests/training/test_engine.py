import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from arl.settings import Training
from arl.training import checkpoint, engine, optim

STEPS = 7
SETTINGS = Training(
    fraction=1.0,
    epochs=1,
    batch_size=6,
    base_lr=0.05 * 256 / 6,
    min_lr=0.001,
    warmup=0.2,
    weight_decay=0.1,
    weight_decay_end=None,
    betas=[0.9, 0.999],
    clip_grad=1.0,
    precision="fp32",
    zero_stage=0,
    gradient_accumulation_steps=1,
    checkpoint_every=2,
)


@dataclass
class Points:
    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> "Points":
        return replace(self, x=self.x.to(device), y=self.y.to(device))


class Regression(nn.Module):
    """Least squares with dropout and a moving average, so that both must survive a resume."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(5, 3)
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("average", torch.zeros(3, 5))

    def forward(self, points: Points, progress: float) -> dict[str, Tensor]:
        return {"loss": (self.linear(self.dropout(points.x)) - points.y).square().mean()}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.average.lerp_(self.linear.weight, 0.5)


def points(step: int, part: slice = slice(None)) -> Points:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(6, 5, generator=generator)
    return Points(x[part], x[part, :3] * 2 - 1)


def batches(start: int, stop: int = STEPS) -> Iterator[Points]:
    yield from (points(step) for step in range(start, stop))


def fit(
    module: nn.Module, settings: Training = SETTINGS, *, steps: int = STEPS, **kwargs
) -> list[dict[str, float]]:
    groups = optim.parameter_groups(module, weight_decay=settings.weight_decay)
    inputs = kwargs.pop("inputs", batches)
    return engine.fit(module, groups, inputs, settings, steps=steps, seed=3, **kwargs)


def weights(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def test_slow_bfloat16_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    fit(
        Regression(),
        replace(SETTINGS, precision="bf16"),
        steps=1,
        inputs=lambda start: batches(start, 1),
    )
    has_instructions = "bf16" in Path("/proc/cpuinfo").read_text()
    assert ("no bfloat16 instructions" in capsys.readouterr().err) == (not has_instructions)


def test_the_loss_falls() -> None:
    history = fit(Regression(), steps=40, inputs=lambda start: batches(start, 40))
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert [record["step"] for record in history] == list(range(1, 41))


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_the_first_gradient_norm_is_that_of_torch(zero_stage: int) -> None:
    module = Regression()
    module.dropout.p = 0.0
    module(points(0), 0.0)["loss"].backward()
    expected = sum(p.grad.square().sum().item() for p in module.parameters()) ** 0.5
    module.zero_grad()
    history = fit(module, replace(SETTINGS, zero_stage=zero_stage))
    assert history[0]["grad_norm"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.parametrize("killed_at", [1, 4, 5])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, killed_at: int, zero_stage: int
) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage)
    whole = Regression()
    expected = fit(whole, settings)

    def dying(start: int) -> Iterator[Points]:
        yield from batches(start, killed_at)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), settings, inputs=dying, state=tmp_path)
    resumed = Regression()
    assert fit(resumed, settings, state=tmp_path) == expected
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def poisoned(*bad: int) -> Callable[[int], Iterator[Points]]:
    """Batches of which some steps hold NaN."""

    def give(start: int) -> Iterator[Points]:
        for step in range(start, STEPS):
            good = points(step)
            yield Points(good.x * float("nan"), good.y) if step in bad else good

    return give


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_a_step_with_nan_is_skipped_and_counted(zero_stage: int) -> None:
    """Weights and moments are those of a run that has never seen the step."""
    module = Regression()
    module.dropout.p = 0.0
    settings = replace(SETTINGS, zero_stage=zero_stage)
    history = fit(module, settings, inputs=poisoned(3))
    assert [record["skipped"] for record in history] == [0, 0, 0, 1, 0, 0, 0]
    assert all(bool(value.isfinite().all()) for value in weights(module))

    without = Regression()
    without.dropout.p = 0.0
    reached = weights_after(without, settings, 3)
    before = Regression()
    before.dropout.p = 0.0
    skipped = weights_after(before, settings, 4, inputs=poisoned(3))
    torch.testing.assert_close(skipped, reached, rtol=0, atol=0)


def weights_after(module: nn.Module, settings: Training, done: int, inputs=batches) -> list[Tensor]:
    """Weights when a run of `STEPS` steps has done some of them."""

    def give(start: int) -> Iterator[Points]:
        for _, batch in zip(range(done), inputs(start), strict=False):
            yield batch
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(module, settings, inputs=give)
    return weights(module)


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is_finite() -> None:
    class Steep(Regression):
        def forward(self, points: Points, progress: float) -> dict[str, Tensor]:
            loss = super().forward(points, progress)["loss"]
            # the derivative of a square root at zero is infinite
            return {"loss": loss + (self.linear.weight.sum() * 0).sqrt()}

    with pytest.raises(FloatingPointError, match="3 steps in a row"):
        fit(Steep())


def test_three_skipped_steps_in_a_row_end_the_training_and_name_the_last_good_state(
    tmp_path: Path,
) -> None:
    with pytest.raises(FloatingPointError, match=r"3 steps in a row.* step 7 .*step-00000006"):
        fit(Regression(), inputs=poisoned(4, 5, 6), state=tmp_path)


def test_a_nan_does_not_stay_in_buffers_that_move_in_the_forward_pass() -> None:
    class Centred(Regression):
        def forward(self, points: Points, progress: float) -> dict[str, Tensor]:
            self.average += points.x.mean()
            return super().forward(points, progress)

    module = Centred()
    fit(module, inputs=poisoned(2))
    assert bool(module.average.isfinite().all())


def test_accumulated_micro_batches_equal_one_batch() -> None:
    one_batch, two_batches = Regression(), Regression()
    one_batch.dropout.p = two_batches.dropout.p = 0.0
    fit(one_batch)

    def halves(start: int) -> Iterator[Points]:
        for step in range(start, STEPS):
            yield points(step, slice(0, 3))
            yield points(step, slice(3, 6))

    fit(two_batches, replace(SETTINGS, gradient_accumulation_steps=2), inputs=halves)
    torch.testing.assert_close(weights(one_batch), weights(two_batches), atol=1e-6, rtol=1e-5)


def test_a_training_without_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        fit(Regression(), steps=0)


def test_a_batch_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch_size 7 is not divisible by 1 ranks x 2"):
        fit(Regression(), replace(SETTINGS, batch_size=7, gradient_accumulation_steps=2))


def test_zero_stage_three_is_refused() -> None:
    with pytest.raises(ValueError, match="zero_stage 3"):
        fit(Regression(), replace(SETTINGS, zero_stage=3))


def damage(state: Path, name: str, how: str) -> None:
    """Cut, empty, replace, flip or remove a file of a state."""
    victim = state / name
    content = victim.read_bytes()
    if how == "missing":
        victim.unlink()
    elif how == "directory":
        victim.unlink()
        victim.mkdir()
    else:
        damaged = {
            "cut": content[:-9],
            "empty": b"",
            "binary": b"\xff\xfe" + content[2:],
            "flipped": content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
            "other": b'{"unknown": 1}',
        }
        victim.write_bytes(damaged[how])


@pytest.mark.parametrize(
    "how", ["cut", "empty", "binary", "flipped", "missing", "directory", "other"]
)
@pytest.mark.parametrize("name", ["state.safetensors", "files.json"])
def test_a_damaged_state_falls_back_to_the_one_before_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    whole = Regression()
    expected = fit(whole)
    fit(Regression(), state=tmp_path)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000006"
    damage(newest, name, how)
    resumed = Regression()
    assert fit(resumed, state=tmp_path) == expected
    message = capsys.readouterr().err
    assert "step-00000006 is damaged" in message
    assert "resuming from" in message
    assert "step-00000004" in message
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)


def test_when_all_states_are_damaged_nothing_is_trained(tmp_path: Path) -> None:
    fit(Regression(), state=tmp_path)
    for state in tmp_path.glob("step-*"):
        damage(state, "state.safetensors", "cut")
    with pytest.raises(ValueError, match=r"no state is whole.*remove .* to train from the start"):
        fit(Regression(), state=tmp_path)


def test_a_damaged_history_is_damage(tmp_path: Path) -> None:
    fit(Regression(), state=tmp_path)
    file = tmp_path / "history.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:5], b"{}\n"]))
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000004"


def test_the_history_is_appended(tmp_path: Path) -> None:
    """A state of its own would hold 230 MB at the paper's scale."""
    fit(Regression(), state=tmp_path)
    assert not list(tmp_path.glob("step-*/history*"))
    before = (tmp_path / "history.jsonl").read_bytes()
    assert len(before.splitlines()) == 6
    fit(Regression(), state=tmp_path, steps=12, inputs=lambda start: batches(start, 12))
    after = (tmp_path / "history.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 12


def test_a_second_process_is_told_who_trains(tmp_path: Path) -> None:
    with checkpoint.states(tmp_path), pytest.raises(ValueError, match=rf"process {os.getpid()} of"):
        fit(Regression(), state=tmp_path)
    fit(Regression(), state=tmp_path)


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engine import Regression, fit
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    fit(Regression(), state=Path(sys.argv[2]))
except OSError as error:
    print(error)
"""


def test_a_full_disk_ends_in_a_sentence_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    def stops(start: int) -> Iterator[Points]:
        yield from batches(start, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), inputs=stops, state=tmp_path / "state")
    script = tmp_path / "full.py"
    script.write_text(FULL_DISK)
    command = [sys.executable, script, Path(__file__).parent, tmp_path / "state"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no room for the training state of step 4" in done.stdout
    assert "step-00000002" in done.stdout
    newest = checkpoint.latest(tmp_path / "state")
    assert newest is not None
    assert newest.name == "step-00000002"


TERMINATED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engine import Regression, fit, points
def inputs(start):
    for step in range(start, 7):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        yield points(step)
fit(Regression(), state=Path(sys.argv[2]), inputs=inputs)
"""


def test_sigterm_leaves_a_state_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "terminated.py"
    script.write_text(TERMINATED)
    command = [sys.executable, script, Path(__file__).parent, tmp_path / "state"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == engine.EXIT_PREEMPTED
    assert "SIGTERM ended the training after step 5" in done.stderr
    newest = checkpoint.latest(tmp_path / "state")
    assert newest is not None
    assert newest.name == "step-00000005"
    whole, resumed = Regression(), Regression()
    assert fit(resumed, state=tmp_path / "state") == fit(whole)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)


RANK_SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from test_engine import SETTINGS, Regression, fit, points
from arl.training import distributed
distributed.initialize()
size = 6 // distributed.world_size()
part = slice(distributed.rank() * size, (distributed.rank() + 1) * size)
module = Regression()
module.dropout.p = 0.0
def inputs(start):
    yield from (points(step, part) for step in range(start, int(sys.argv[4])))
    raise KeyboardInterrupt
try:
    settings = replace(SETTINGS, zero_stage=int(sys.argv[3]))
    history = fit(module, settings, inputs=inputs, state=Path(sys.argv[5]))
except KeyboardInterrupt:
    history = []
if distributed.rank() == 0:
    with open(sys.argv[2], "w") as file:
        losses = [record["loss"] for record in history]
        json.dump({"loss": losses, "weight": module.linear.weight.tolist()}, file)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_ranks(
    folder: Path, world: int, zero_stage: int, stop: int = STEPS
) -> dict[str, list[float]]:
    """Train in `world` processes until step `stop`, from the state in the folder, if any."""
    script, out = folder / "rank.py", folder / f"{world}-{stop}.json"
    script.write_text(RANK_SCRIPT)
    command = [
        sys.executable,
        script,
        Path(__file__).parent,
        out,
        zero_stage,
        stop,
        folder / "state",
    ]
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [str(part) for part in command],
            env=os.environ
            | {"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(world)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for r in range(world)
    ]
    assert [process.wait(timeout=120) for process in ranks] == [0] * world
    return json.loads(out.read_text())


def assert_same_training(actual: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    """Sums of gradients are rounded differently: 1e-5 after seven steps."""
    torch.testing.assert_close(
        torch.tensor(actual["loss"]), torch.tensor(expected["loss"]), atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        torch.tensor(actual["weight"]), torch.tensor(expected["weight"]), atol=1e-5, rtol=1e-5
    )


def train_without_dropout(zero_stage: int) -> dict[str, list[float]]:
    module = Regression()
    module.dropout.p = 0.0
    history = fit(module, replace(SETTINGS, zero_stage=zero_stage))
    return {"loss": [record["loss"] for record in history], "weight": module.linear.weight.tolist()}


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_two_ranks_equal_one(tmp_path: Path, zero_stage: int) -> None:
    assert_same_training(run_ranks(tmp_path, 2, zero_stage), train_without_dropout(zero_stage))


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_the_number_of_ranks_may_change(tmp_path: Path, zero_stage: int) -> None:
    run_ranks(tmp_path, 2, zero_stage, stop=3)  # leaves step 2
    run_ranks(tmp_path, 1, zero_stage, stop=4)  # leaves step 4
    assert checkpoint.latest(tmp_path / "state").name == "step-00000004"
    assert_same_training(run_ranks(tmp_path, 2, zero_stage), train_without_dropout(zero_stage))


def test_the_module_is_examined_on_time_and_goes_on_training(tmp_path: Path) -> None:
    module, seen = Regression(), []

    def measure() -> dict[str, float]:
        module.eval()
        seen.append(module.training)
        return {"health": float(len(seen))}

    history = fit(module, eval_every=3, evaluate=measure)
    assert {record["step"]: record.get("health") for record in history} == {
        **dict.fromkeys((1, 2, 4, 5)),
        3: 1.0,
        6: 2.0,
        7: 3.0,
    }
    assert module.training
    plain = fit(Regression())
    assert [record["loss"] for record in history] == [record["loss"] for record in plain]


def test_tensorboard_has_every_step_after_a_kill(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def dying(start: int) -> Iterator[Points]:
        yield from batches(start, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), inputs=dying, state=tmp_path / "state", log=tmp_path / "log")
    history = fit(Regression(), state=tmp_path / "state", log=tmp_path / "log")
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    assert logged == [
        (record["step"], pytest.approx(record["loss"], rel=1e-6)) for record in history
    ]
    assert all(event.value > 0 for event in events.Scalars("images_per_second"))
    assert "images_per_second" not in history[0]

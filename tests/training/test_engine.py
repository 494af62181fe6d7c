import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
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


def test_a_nan_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    def poisoned(start: int) -> Iterator[Points]:
        yield from batches(start, 5)
        yield Points(torch.full((6, 5), float("nan")), torch.zeros(6, 3))

    with pytest.raises(FloatingPointError, match=r"nan at step 6.*step-00000004"):
        fit(Regression(), inputs=poisoned, state=tmp_path)


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


def test_a_truncated_state_is_passed_over(tmp_path: Path) -> None:
    fit(Regression(), state=tmp_path)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000006"
    victim = newest / "state.safetensors"
    victim.write_bytes(victim.read_bytes()[:-9])
    older = checkpoint.latest(tmp_path)
    assert older is not None
    assert older.name == "step-00000004"


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

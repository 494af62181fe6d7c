"""What only happens on a GPU, contradicted without one.

CUDA's autocast flag, a process group for CUDA tensors only, and fake CUDA tensors stand for it.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from arl.loading.loader import Batch
from arl.settings import Training
from arl.training import distributed, engine, optim

SETTINGS = Training(
    fraction=1.0,
    epochs=1,
    batch_size=4,
    base_lr=1.0,
    min_lr=0.0,
    warmup=0.0,
    weight_decay=0.0,
    weight_decay_end=None,
    betas=[0.9, 0.999],
    clip_grad=1.0,
    precision="bf16",
    zero_stage=0,
    gradient_accumulation_steps=1,
    checkpoint_every=0,
)


class Inputs:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> "Inputs":
        return Inputs(self.x.to(device))


class Precise(nn.Module):
    """Remembers in which precision its product was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.dtypes: list[torch.dtype] = []

    def forward(self, inputs: Inputs, progress: float) -> dict[str, Tensor]:
        product = self.linear(inputs.x)
        self.dtypes.append(product.dtype)
        return {"loss": product.float().square().mean()}

    def after_step(self, progress: float) -> None:
        pass


@pytest.fixture
def cuda_autocast_flag() -> Iterator[None]:
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)


@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.usefixtures("cuda_autocast_flag")
def test_deepspeed_does_not_switch_bfloat16_off(zero_stage: int) -> None:
    module = Precise()
    settings = Training(**{**vars(SETTINGS), "zero_stage": zero_stage})
    inputs = [Inputs(torch.randn(4, 3)) for _ in range(2)]
    engine.fit(
        module,
        optim.parameter_groups(module, weight_decay=0.0),
        lambda start: iter(inputs[start:]),
        settings,
        steps=2,
        seed=0,
    )
    assert module.dtypes == [torch.bfloat16] * 2
    assert "forward" not in vars(module)


FAKE_GROUP = """
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from arl.training import distributed
dist.init_process_group("cuda:fake", store=FakeStore(), rank=0, world_size=2)
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
with FakeTensorMode(allow_non_fake_inputs=True):
    values = {"loss": torch.ones((), device="cuda"), "grad_norm": torch.ones(()), "stop": 0.0}
    try:
        distributed.mean_over_ranks(values)
    except DataDependentOutputException:
        print("reduced on", distributed.collective_device())
"""


def test_the_mean_over_ranks_travels_on_the_device_of_the_group() -> None:
    """NCCL's group has no backend for CPU tensors: `RuntimeError: No backend type associated`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FAKE_GROUP],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "reduced on cuda:0"


def test_a_gpu_multiplies_float32_in_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        distributed.use_fast_float32(torch.device("cpu"))
        assert torch.get_float32_matmul_precision() == "highest"
        distributed.use_fast_float32(torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.local_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(ValueError, match=r"needs GPU 3, but the machine has 2: start at most 2"):
        distributed.local_device()


def test_bf16_is_refused_on_a_gpu_that_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ValueError, match="Tesla T4 has less: set precision=fp32"):
        engine.require_precision("bf16", torch.device("cuda"))
    engine.require_precision("fp32", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    engine.require_precision("bf16", torch.device("cuda"))


def test_prefetched_items_come_in_order_and_errors_where_they_happen() -> None:
    assert list(engine.prefetch(iter(range(50)), 3)) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    items = engine.prefetch(failing(), 2)
    assert next(items) == 1
    with pytest.raises(OSError, match="disk"):
        next(items)


def test_a_reader_that_stops_early_ends_the_thread() -> None:
    before = threading.active_count()
    items = engine.prefetch(iter(range(10_000)), 2)
    assert next(items) == 0
    items.close()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.daemon:
            thread.join(timeout=5)
    assert threading.active_count() <= before


OTHER_CODE = """
import sys
from pathlib import Path
from arl.training import distributed
if sys.argv[1] == "1":
    distributed.code_version = lambda: "0" * 64
try:
    distributed.initialize()
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_nodes_with_different_code_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(OTHER_CODE)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank)],
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert all("other code than rank" in output for output in outputs)


class Recorder(nn.Module):
    """Records where its weights and inputs are; its output is on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.devices: set[str] = set()

    def forward(self, x: Tensor, anatomy: Tensor) -> Tensor:
        self.devices |= {one.device.type for one in (self.weight, x, anatomy)}
        return torch.zeros(len(x), 2)


def test_prediction_runs_on_the_device_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU; evaluation, probe, compare and embed all call `predict`."""
    monkeypatch.setattr(distributed, "local_device", lambda: torch.device("meta"))
    batch = Batch(
        torch.zeros(3, 1, 16, 16, dtype=torch.uint8),
        torch.full((3, 2), 16),
        torch.tensor([0, 1, 16]),
        torch.full((3,), -1),
        None,
        torch.arange(3),
    )
    model = Recorder()
    outputs = [output for _, output in engine.predict(model, [batch], size=8)]
    assert model.devices == {"meta"}
    assert outputs[0].shape == (3, 2)


def test_micro_batches_for_a_gpu_are_pinned_and_made_beside_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned: list[str] = []
    main = threading.get_ident()

    def pin_memory(tensor: Tensor) -> Tensor:
        pinned.append("main" if threading.get_ident() == main else "beside")
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    batches = (Inputs(torch.ones(2)) for _ in range(5))
    moved = list(engine._on_device(batches, torch.device("meta")))
    assert [inputs.x.device.type for inputs in moved] == ["meta"] * 5
    assert pinned == ["beside"] * 5

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from arl.composition import compose
from arl.models.avit import AViT
from arl.training.plan import (
    MeasuredStep,
    line_through,
    make_plan,
    measure_step,
    memory_per_rank,
    read_devices,
    step_macs,
)
from arl.training.pretrainer import Pretrainer, PretrainInputs

ROOT = Path(__file__).parents[2]
DEVICES = read_devices(ROOT / "conf/devices.yaml")
PAPER = compose(["experiment=paper"], ROOT / "conf")
SMALL = ["model.embed_dim=48", "model.depth=3", "model.num_heads=3", "model.patch_size=8"]


class NoModules(nullcontext):
    parents = {"Global"}  # noqa: RUF012


def plan(ranks: int = 64, device: str = "h100-80gb", **changed: object):
    return make_plan(
        PAPER.model,
        PAPER.objective,
        replace(PAPER.pretrain, **changed),
        size=PAPER.data.size,
        images=5_200_000,
        ranks=ranks,
        device=DEVICES[device],
    )


@pytest.mark.parametrize("objective", ["mae", "dino", "arl"])
def test_the_work_is_that_of_a_real_step(objective: str) -> None:
    """Against PyTorch's own counter around a forward and a backward pass.

    The plan takes a backward pass for two forward passes. At these widths the first layer, which
    needs no gradient of its input, is a tenth of the work.
    """
    words = [f"objective={objective}", "model.conditioning=none", "data.size=64", *SMALL]
    params = compose([*words, "objective.local_crops_size=32"], ROOT / "conf")
    pretrainer = Pretrainer(AViT(img_size=64, **vars(params.model)), params.objective)
    views, batch = params.objective.global_crops_number, 4
    local = params.objective.local_crops_number if params.objective.self_distillation else 0
    inputs = PretrainInputs(
        global_crops=torch.randn(views * batch, 1, 64, 64),
        local_crops=torch.randn(local * batch, 1, 32, 32),
        anatomy=torch.arange(batch),
        noise=torch.rand(views * batch, 64),
        block_noise=torch.rand(views * batch, 10, 4),
    )
    counter = FlopCounterMode(display=False)
    # The counter's hooks on modules do not allow the gradients inside of eq. 6.
    counter.mod_tracker = NoModules()
    with counter:
        pretrainer(inputs, 0.9)["loss"].backward()
    counted = counter.get_total_flops() / 2 / batch
    assert step_macs(params.model, params.objective, 64) == pytest.approx(counted, rel=0.2)


def test_the_paper_s_steps_and_bytes() -> None:
    answer = plan()
    assert answer.steps == 100 * (5_200_000 // 1024)
    assert answer.images_per_rank == 16
    assert answer.bytes_read == pytest.approx(51e12, rel=0.02)
    assert answer.device_hours == pytest.approx(64 * answer.hours)
    assert answer.dollars == pytest.approx(answer.device_hours * 2.5)


def test_what_does_not_fit_is_told_with_what_to_change() -> None:
    answer = plan(ranks=1, device="a100-40gb")
    assert answer.memory_gib > 40
    assert any("grad_checkpointing" in sentence for sentence in answer.advice)
    assert plan().memory_gib < 80


def test_memory_falls_with_zero_ranks_and_checkpointing() -> None:
    def memory(**changed: object) -> float:
        settings = replace(PAPER.pretrain, **changed)
        return memory_per_rank(PAPER.model, PAPER.objective, settings, size=224, ranks=8)

    assert memory(zero_stage=2) < memory(zero_stage=1) < memory(zero_stage=0)
    assert memory(grad_checkpointing=True) < memory()
    assert memory(gradient_accumulation_steps=4) < memory()


def test_a_batch_that_does_not_divide_names_one_that_would() -> None:
    with pytest.raises(ValueError, match=r"does not divide over 3 ranks.*batch_size=1023 would"):
        plan(ranks=3)


def test_views_that_hold_a_step_up_are_named() -> None:
    settings = replace(PAPER.pretrain, batch_size=64)
    answer = make_plan(
        PAPER.model,
        PAPER.objective,
        settings,
        size=224,
        images=1000,
        ranks=1,
        device=DEVICES["h100-80gb"],
        cpus_per_rank=1,
    )
    assert answer.step == answer.step_views
    assert any("CPUs instead of 1" in sentence for sentence in answer.advice)


def test_a_measured_step_is_a_line() -> None:
    assert MeasuredStep(2.0, 0.5).seconds(16) == 10


def test_a_line_through_disturbed_steps_predicts_no_negative_time() -> None:
    assert line_through((2, 3.0), (4, 4.0)) == MeasuredStep(2.0, 0.5)
    for small, large in [(9.0, 3.0), (1.0, 7.0)]:
        step = line_through((2, small), (4, large))
        assert step.fixed == 0
        assert step.per_image == pytest.approx((small + large) / 6)


def test_this_machine_can_be_measured() -> None:
    params = compose(["data.size=32", "objective.local_crops_size=16", *SMALL], ROOT / "conf")
    step = measure_step(
        params.model, params.objective, params.pretrain, size=32, images=(2, 4), repeats=1
    )
    assert step.seconds(8) > 0
    answer = make_plan(
        params.model,
        params.objective,
        params.pretrain,
        size=32,
        images=64,
        ranks=1,
        device=None,
        measured=step,
    )
    assert answer.dollars is None
    assert answer.hours * 3600 == pytest.approx(answer.steps * step.seconds(32))


def test_an_odd_table_of_devices_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("a100: {memory: 40}\n")
    with pytest.raises(ValueError, match="no table of devices"):
        read_devices(file)

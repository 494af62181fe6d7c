"""The plan of a fine-tuning: batch, learning rate and steps of each task."""

from dataclasses import replace
from pathlib import Path

import pytest

from arl.composition import compose
from arl.params import Params
from arl.stages.finetune import describe_plan, plan_finetuning
from arl.training import distributed

ROOT = Path(__file__).parents[2]
# Table 1: training images of each task.
IMAGES = {
    "breast": 505,
    "gallbladder": 1_100,
    "thyroid": 2_662,
    "lung": 9_251,
    "cardiac_view": 33_520,
    "lv": 8_000,
}


@pytest.fixture(scope="module")
def paper() -> Params:
    return compose(["experiment=paper"], ROOT / "conf")


@pytest.mark.parametrize("task", sorted(IMAGES))
def test_every_task_of_the_paper_gets_a_thousand_steps_or_fifty_epochs(
    paper: Params, task: str
) -> None:
    settings, steps = plan_finetuning(paper, task, IMAGES[task])
    fifty_epochs = 50 * (IMAGES[task] // settings.batch_size)
    assert steps == max(1_000, fifty_epochs)
    assert settings.label_smoothing == 0
    assert settings.layer_decay == 1


def test_the_rates_are_those_of_appendix_b(paper: Params) -> None:
    rates = {task: plan_finetuning(paper, task, images)[0] for task, images in IMAGES.items()}
    assert rates["lv"].lr == pytest.approx(1e-4)
    assert {rates[task].base_lr for task in IMAGES if task != "lv"} == {1e-3}


def test_the_probe_of_the_paper_is_sgd_with_crop_and_flip(paper: Params) -> None:
    assert paper.probe.solver == "sgd"
    assert paper.probe.augmented_views > 1


def test_a_set_smaller_than_a_batch_loses_no_image(paper: Params) -> None:
    settings, steps = plan_finetuning(paper, "breast", 7)
    assert settings.batch_size == 7
    assert steps == 1_000
    line = describe_plan("breast", 7, settings, steps)
    assert line.startswith("breast: 7 training images, batch 7, 1 steps an epoch, 1,000 steps")


def test_a_batch_divides_over_the_ranks(paper: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    settings, _ = plan_finetuning(paper, "breast", 30)
    assert settings.batch_size == 28
    with pytest.raises(ValueError, match="3 training images, fewer than 4"):
        plan_finetuning(paper, "breast", 3)


def test_a_task_without_settings_of_its_own_has_those_of_finetune(paper: Params) -> None:
    task = replace(paper.task["breast"], batch_size=None)
    params = replace(paper, task={**paper.task, "breast": task})
    assert plan_finetuning(params, "breast", 505)[0] == replace(paper.finetune, batch_size=16)

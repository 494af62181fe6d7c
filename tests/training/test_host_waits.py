"""A step must not make the host wait for a GPU, contradicted without one.

A tensor on the meta device has no values. So `item`, `tolist`, `nonzero`, a Boolean index and a
comparison in an `if` raise there, and on a GPU they wait. A copy of host memory waits as well.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from arl.models.avit import AViT
from arl.models.heads import Classifier
from arl.models.upernet import Segmenter
from arl.tasks.classification import Classification
from arl.tasks.segmentation import Segmentation
from arl.training.finetuner import FineTuner, TaskInputs
from tests.training.test_pretrainer import IBOT, MOCO_V3, inputs, pretrainer

META = torch.device("meta")
COPIES = (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor, Tensor.cpu)


class NoCopies(TorchFunctionMode):
    """Refuse the functions that copy between host and device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in COPIES:
            raise AssertionError(f"{func.__name__} copies between host and device")
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def autocast_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no autocast, so that of a CPU opens in its place."""
    opened = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device, **options: opened("cpu", **options))


def step(module: nn.Module, views: Any) -> None:
    """Forward pass, backward pass and teacher update on the meta device."""
    module.to(META)
    on_device = views.to(META)
    with NoCopies():
        terms = module(on_device, 0.5)
        terms["loss"].backward()
        module.after_step(0.5)
    assert all(term.device == META for term in terms.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"self_distillation_tokens": "all"},
        {"self_distillation_tokens": "all", "drop_masked": False},
        {"mask_strategy": "block", "centering": "sinkhorn"},
        {"weighting": "constant", "norm_pix_loss": True},
        {"self_distillation": False, "adversarial": False},
        {"mim": False, "adversarial": False},
        {**IBOT, "mask_strategy": "block"},
        MOCO_V3,
    ],
    ids=lambda changes: ",".join(changes) or "arl",
)
def test_a_pretraining_step_reads_no_value(changes: dict[str, object]) -> None:
    module, views = pretrainer(**changes), inputs()
    crops = module.objective.global_crops_number * len(views.anatomy)
    for name in ("global_crops", "noise", "block_noise"):
        setattr(views, name, getattr(views, name)[:crops])
    step(module, views)


@pytest.mark.parametrize("conditioning", ["film", "lora", "cross_attention", "none"])
def test_an_encoder_of_the_comparison_reads_no_value(conditioning: str) -> None:
    encoder = AViT(
        img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=3, conditioning=conditioning
    )
    tuner = FineTuner(Classifier(encoder, 3), Classification(("a", "b", "c")), label_smoothing=0.0)
    step(tuner, TaskInputs(torch.rand(2, 1, 16, 16), torch.tensor([0, 16]), torch.tensor([0, 2])))


def test_a_step_of_a_segmentation_reads_no_value() -> None:
    encoder = AViT(img_size=32, patch_size=4, embed_dim=12, depth=4, num_heads=3)
    tuner = FineTuner(Segmenter(encoder, 8), Segmentation("lv"), label_smoothing=0.0)
    mask = torch.rand(2, 1, 32, 32).round()
    step(tuner, TaskInputs(torch.rand(2, 1, 32, 32), torch.tensor([0, 16]), mask))


def test_an_unknown_anatomy_is_refused_before_it_travels_to_a_device() -> None:
    views = inputs()
    views.anatomy[1] = -3
    with pytest.raises(ValueError, match=r"unknown anatomy index \[-3\]"):
        views.to(META)
    example = TaskInputs(torch.rand(1, 1, 16, 16), torch.tensor([17]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"unknown anatomy index \[17\]"):
        example.to(META)

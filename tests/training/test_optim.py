import math

import pytest
import torch
from torch import nn

from arl.models.avit import AViT
from arl.training.optim import (
    adamw,
    layer_of,
    lr_at,
    parameter_groups,
    set_lr,
    set_weight_decay,
    weight_decay_at,
)

SCHEDULE = {"steps": 110, "lr": 2.0, "min_lr": 0.5, "warmup_steps": 10}


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.2), (9, 2.0), (10, 2.0), (60, 1.25), (110, 0.5), (500, 0.5)],
)
def test_warm_up_then_half_a_cosine(step: int, expected: float) -> None:
    assert lr_at(step, **SCHEDULE) == pytest.approx(expected)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 3))
        self.kernel = nn.Parameter(torch.zeros(9, 3))

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "kernel"}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.encoder.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.encoder.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 5)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.cls_token", 0),
        ("encoder.blocks.0.weight", 1),
        ("encoder.blocks.1.bias", 2),
        ("encoder.norm.bias", 3),
    ],
)
def test_layer_of_the_encoder_counts_from_the_embeddings(name: str, layer: int) -> None:
    assert layer_of(name, depth=2) == layer


def test_each_trained_parameter_is_in_one_group() -> None:
    module = Tiny()
    grouped = [p for group in parameter_groups(module, weight_decay=0.1) for p in group["params"]]
    trained = [p for p in module.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trained))


def test_layer_decay_and_weight_decay_per_parameter() -> None:
    module = Tiny()
    groups = parameter_groups(module, weight_decay=0.1, layer_decay=0.5, depth=2)
    groups_of = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    assert groups_of[id(module.encoder.cls_token)] == (0.125, 0.0)
    assert groups_of[id(module.encoder.kernel)] == (0.125, 0.0)
    assert groups_of[id(module.encoder.blocks[0].weight)] == (0.25, 0.1)
    assert groups_of[id(module.encoder.blocks[1].bias)] == (0.5, 0.0)
    assert groups_of[id(module.head.weight)] == (1.0, 0.1)


def test_set_lr_keeps_the_scale_of_each_group() -> None:
    optimizer = adamw(parameter_groups(Tiny(), weight_decay=0.1, layer_decay=0.5, depth=2))
    set_lr(optimizer, 0.8)
    assert all(
        math.isclose(group["lr"], 0.8 * group["lr_scale"]) for group in optimizer.param_groups
    )


@pytest.mark.parametrize(
    "name",
    ["pos_embed", "cls_token", "mask_token", "blocks.1.deform.weight", "blocks.0.norm1.bias"],
)
def test_positions_tokens_and_identity_kernels_of_an_encoder_do_not_decay(name: str) -> None:
    encoder = AViT(img_size=24, patch_size=8, embed_dim=12, depth=2, num_heads=3, anatomy_hidden=5)
    decay = {
        id(p): group["weight_decay"]
        for group in parameter_groups(encoder, weight_decay=0.1)
        for p in group["params"]
    }
    assert decay[id(encoder.get_parameter(name))] == 0.0
    assert decay[id(encoder.blocks[0].deform.offset.weight)] == 0.1


def test_the_weight_decay_follows_a_cosine_where_there_is_one() -> None:
    ends = [weight_decay_at(step, steps=11, start=0.04, end=0.4) for step in (0, 5, 10)]
    assert ends == pytest.approx([0.04, 0.22, 0.4])
    module = torch.nn.Linear(3, 2)
    optimizer = adamw(parameter_groups(module, weight_decay=0.0), betas=(0.8, 0.9))
    set_weight_decay(optimizer, 0.3)
    decays = {group["params"][0].ndim: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {2: 0.3, 1: 0.0}
    assert optimizer.defaults["betas"] == (0.8, 0.9)

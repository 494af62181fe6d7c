"""The budget of appendix H."""

import pytest
import timm
import torch
from torch import nn

from arl.models.cost import count_macs, count_parameters


def build(name: str, **kwargs: object) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, **kwargs)
    return model


@pytest.mark.parametrize("in_chans", [1, 3])
def test_avit_base_keeps_the_budget_of_the_paper(in_chans: int) -> None:
    model = build("avit_base_patch16", in_chans=in_chans)
    assert abs(count_parameters(model) - 95.0e6) <= 0.5e6
    macs = count_macs(model, (1, in_chans, 224, 224))
    assert 17.5e9 <= macs <= 17.8e9


def test_the_count_agrees_with_arithmetic() -> None:
    """ViT-B/16 is 17.563 G; ACDT adds per token 5 K C of sampling, 2 K C of offsets, and MLPs."""
    assert (
        count_macs(build("vit_base_patch16_224", num_classes=0), (1, 3, 224, 224)) == 17_563_060_224
    )
    sampling = 12 * 196 * 9 * 5 * 768
    offsets = 12 * 196 * 768 * 18
    anatomy = 12 * 960 * (16 + 768)
    base = count_macs(build("avit_base_patch16", in_chans=3, conditioning="none"), (1, 3, 224, 224))
    assert base == 17_563_060_224
    avit = count_macs(build("avit_base_patch16", in_chans=3), (1, 3, 224, 224))
    assert avit == base + sampling + offsets + anatomy


@pytest.mark.parametrize("name", ["avit_tiny_patch16", "avit_base_patch16"])
@pytest.mark.parametrize("conditioning", ["cross_attention", "film", "lora"])
def test_the_alternatives_have_as_many_parameters(name: str, conditioning: str) -> None:
    acdt, plain = (count_parameters(build(name, conditioning=one)) for one in ("acdt", "none"))
    other = count_parameters(build(name, conditioning=conditioning))
    assert other - plain == pytest.approx(acdt - plain, rel=0.12)
    assert other == pytest.approx(acdt, rel=0.015)

"""Loading weights: exactly, or not at all."""

from typing import Any

import pytest
import timm
import torch

from arl.models.acdt import DeformableDepthwise
from arl.models.avit import AViT
from arl.models.block import code_table
from arl.models.weights import load_avit, load_timm_vit

ANATOMY = torch.tensor([4, 16])


def vit(**kwargs: Any) -> torch.nn.Module:
    defaults: dict[str, Any] = {
        "img_size": 48,
        "patch_size": 16,
        "embed_dim": 20,
        "depth": 3,
        "num_heads": 5,
    }
    return timm.models.VisionTransformer(**(defaults | kwargs)).eval()


def avit(**kwargs: Any) -> AViT:
    defaults: dict[str, Any] = {
        "img_size": 48,
        "embed_dim": 20,
        "depth": 3,
        "num_heads": 5,
        "in_chans": 3,
    }
    return AViT(**(defaults | kwargs)).eval()


@pytest.mark.parametrize("conditioning", ["acdt", "cross_attention", "film", "lora", "none"])
def test_avit_computes_what_the_vit_does(conditioning: str) -> None:
    theirs, ours = vit(num_classes=7), avit(conditioning=conditioning)
    load_timm_vit(ours, theirs.state_dict())
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(ours(images, ANATOMY), theirs.forward_features(images))


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_models_of_timm_load_exactly(name: str) -> None:
    with torch.device("meta"):  # the usual initialisation of ViT-B takes seconds
        theirs = timm.create_model(f"vit_{name}_patch16_224").eval()
        shell = timm.create_model(f"avit_{name}_patch16", in_chans=3).eval()
    theirs.to_empty(device="cpu")
    ours = shell.to_empty(device="cpu")
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    for parameter in ours.parameters():
        torch.nn.init.zeros_(parameter)
    for module in ours.modules():
        if isinstance(module, DeformableDepthwise):
            module.reset_conditioning()
    ours.anatomy_codes.copy_(code_table(16))
    load_timm_vit(ours, theirs.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images, ANATOMY[:1]), theirs.forward_features(images), rtol=1e-4, atol=1e-5
        )


def test_a_grey_stem_reads_grey_as_the_coloured_one_does() -> None:
    theirs, ours = vit(), avit(in_chans=1)
    load_timm_vit(ours, theirs.state_dict())
    grey = torch.randn(2, 1, 48, 48)
    torch.testing.assert_close(
        ours(grey), theirs.forward_features(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )
    back = avit(in_chans=3)
    load_timm_vit(back, vit(in_chans=1).state_dict())
    assert back.patch_embed.proj.weight.shape[1] == 3


def test_positions_are_resampled_to_the_grid_of_the_model() -> None:
    theirs, ours = vit(), avit(img_size=80)
    load_timm_vit(ours, theirs.state_dict())
    assert ours.pos_embed.shape == (1, 26, 20)
    torch.testing.assert_close(ours.pos_embed[:, 0], theirs.pos_embed[:, 0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"embed_dim": 15},
            r"not a timm ViT of embed_dim 20 and depth 3: .*cls_token is \(1, 1, 15\), expected",
        ),
        ({"depth": 4}, r"blocks\.3\.attn\.proj\.bias is unknown"),
        ({"depth": 2}, r"blocks\.2\.attn\.proj\.bias is missing"),
        (
            {"patch_size": 8},
            r"patch_embed\.proj\.weight is \(20, 3, 8, 8\), expected \(20, 3, 16, 16\)",
        ),
        ({"qkv_bias": False}, r"blocks\.0\.attn\.qkv\.bias is missing"),
        ({"init_values": 1e-5}, r"blocks\.0\.ls1\.gamma is unknown"),
        ({"in_chans": 5}, r"patch_embed\.proj\.weight is \(20, 5, 16, 16\)"),
    ],
)
def test_another_architecture_is_refused_by_name(kwargs: dict[str, Any], message: str) -> None:
    ours = avit()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_timm_vit(ours, vit(**kwargs).state_dict())
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


def test_an_avit_loads_whole_or_not_at_all() -> None:
    source, target = avit(), avit()
    load_avit(target, source.state_dict())
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    with pytest.raises(
        ValueError, match=r"not an A-ViT of .*blocks\.0\.anatomy\.fc1\.weight is missing"
    ):
        load_avit(target, vit(num_classes=0).state_dict())
    with pytest.raises(ValueError, match=r"blocks\.0\.anatomy\.fc1\.weight is unknown"):
        load_avit(avit(conditioning="none"), source.state_dict())

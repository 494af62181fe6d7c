"""A-ViT: what it computes, the sizes it reads, and what it refuses."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from arl.models.avit import CONDITIONINGS, AViT


def tiny(**kwargs: Any) -> AViT:
    defaults: dict[str, Any] = {
        "img_size": 40,
        "patch_size": 8,
        "in_chans": 1,
        "embed_dim": 12,
        "depth": 3,
        "num_heads": 3,
        "anatomy_hidden": 7,
    }
    return AViT(**(defaults | kwargs)).eval()


def moved(model: AViT) -> AViT:
    """Away from the start, where A-ViT is a plain ViT."""
    for name, parameter in model.named_parameters():
        if ".deform." in name or ".film." in name or ".lora_" in name or ".cross_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def shuffled(batch: int, patches: int) -> Tensor:
    return torch.stack([torch.randperm(patches) for _ in range(batch)])


ANATOMY = torch.tensor([2, 16, 11])


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_keeping_all_patches_in_any_order_is_the_full_forward(conditioning: str) -> None:
    model, images = moved(tiny(conditioning=conditioning)), torch.randn(3, 1, 40, 40)
    ids_keep = shuffled(3, 25)
    full = model(images, ANATOMY)
    kept = model(images, ANATOMY, ids_keep=ids_keep)
    torch.testing.assert_close(kept[:, 0], full[:, 0], rtol=1e-4, atol=1e-5)
    order = ids_keep.unsqueeze(-1).expand(-1, -1, 12)
    torch.testing.assert_close(kept[:, 1:], full[:, 1:].gather(1, order), rtol=1e-4, atol=1e-5)


def test_hidden_patches_do_not_reach_the_kept_ones() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    ids_keep = shuffled(3, 25)[:, :7]
    hidden = torch.ones(3, 25, dtype=torch.bool).scatter(1, ids_keep, False)
    noise = torch.randn(3, 1, 40, 40) * hidden.view(3, 1, 5, 5).repeat_interleave(
        8, 2
    ).repeat_interleave(8, 3)
    out = model(images, ANATOMY, ids_keep=ids_keep)
    assert out.shape == (3, 8, 12)
    torch.testing.assert_close(out, model(images + noise, ANATOMY, ids_keep=ids_keep))
    masked = model(images, ANATOMY, mask=hidden)
    assert masked.shape == (3, 26, 12)
    torch.testing.assert_close(masked, model(images + noise, ANATOMY, mask=hidden))


def test_an_empty_mask_is_the_full_forward_and_a_full_one_sees_no_image() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    none, all_ = torch.zeros(3, 25, dtype=torch.bool), torch.ones(3, 25, dtype=torch.bool)
    torch.testing.assert_close(model(images, ANATOMY, mask=none), model(images, ANATOMY))
    blind = model(images, torch.full((3,), 16), mask=all_)
    torch.testing.assert_close(blind[0], blind[1])


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("visible", [25, 7])
def test_the_cls_token_alone_is_that_of_the_full_forward(conditioning: str, visible: int) -> None:
    model, images, ids_keep = (
        moved(tiny(conditioning=conditioning)),
        torch.randn(3, 1, 40, 40),
        shuffled(3, 25),
    )
    outputs, direction = [], torch.randn(3, 12)
    for cls_only in (False, True):
        model.zero_grad()
        tokens = model.forward_features(
            images, ANATOMY, ids_keep=ids_keep[:, :visible], cls_only=cls_only
        )
        assert tokens.shape == (3, 1 if cls_only else 1 + visible, 12)
        (tokens[:, 0] * direction).sum().backward()
        outputs.append([tokens[:, 0], *(p.grad for p in model.parameters() if p.grad is not None)])
        with torch.no_grad():
            again = model.forward_features(
                images, ANATOMY, ids_keep=ids_keep[:, :visible], cls_only=cls_only
            )
        torch.testing.assert_close(again, tokens)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)


def test_the_null_condition_is_the_default() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    torch.testing.assert_close(model(images), model(images, torch.full((3,), 16)))


@pytest.mark.parametrize("conditioning", sorted(set(CONDITIONINGS) - {"none"}))
def test_the_anatomy_changes_the_features(conditioning: str) -> None:
    model, images = (
        moved(tiny(conditioning=conditioning)),
        torch.randn(1, 1, 40, 40).expand(3, -1, -1, -1),
    )
    first, second, null = model(images, torch.tensor([1, 2, 16]))
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(first, null, atol=1e-3)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_conditioning_starts_as_the_plain_vit(conditioning: str) -> None:
    model, plain = tiny(conditioning=conditioning), tiny(conditioning="none")
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    images = torch.randn(3, 1, 40, 40)
    torch.testing.assert_close(model(images, ANATOMY), plain(images))


@pytest.mark.parametrize("size", [(40, 40), (24, 24), (16, 56), (72, 8)])
def test_other_sizes_and_grids_that_are_not_square(size: tuple[int, int]) -> None:
    model = moved(tiny())
    rows, columns = size[0] // 8, size[1] // 8
    assert model(torch.randn(3, 1, *size), ANATOMY).shape == (3, 1 + rows * columns, 12)
    maps = model.forward_intermediates(
        torch.randn(3, 1, *size), anatomy=ANATOMY, intermediates_only=True
    )
    assert [one.shape for one in maps] == [(3, 12, rows, columns)] * 3


def test_positions_are_resampled_as_timm_does() -> None:
    model = tiny(conditioning="none")
    torch.nn.init.normal_(model.pos_embed)  # CLS has a position too, once it has learned
    theirs = timm.models.VisionTransformer(
        img_size=40,
        patch_size=8,
        in_chans=1,
        embed_dim=12,
        depth=3,
        num_heads=3,
        num_classes=0,
        dynamic_img_size=True,
    ).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "mask_token"}
    theirs.load_state_dict(state)
    images = torch.randn(2, 1, 24, 56)
    torch.testing.assert_close(model(images), theirs.forward_features(images))


def test_intermediates_are_those_of_timm() -> None:
    model = tiny(conditioning="none")
    torch.nn.init.normal_(model.pos_embed)  # CLS has a position too, once it has learned
    theirs = timm.models.VisionTransformer(
        img_size=40, patch_size=8, in_chans=1, embed_dim=12, depth=3, num_heads=3, num_classes=0
    ).eval()
    theirs.load_state_dict(
        {name: tensor for name, tensor in model.state_dict().items() if name != "mask_token"}
    )
    images = torch.randn(2, 1, 40, 40)
    for options in (
        {"indices": None},
        {"indices": 2, "norm": True, "output_fmt": "NLC"},
        {"indices": [0, 2], "return_prefix_tokens": True},
        {"indices": [1], "stop_early": True, "intermediates_only": True},
        {"indices": [-2], "intermediates_only": True, "norm": True},
    ):
        torch.testing.assert_close(
            model.forward_intermediates(images, **options),
            theirs.forward_intermediates(images, **options),
        )


def test_final_features_are_the_normalised_last_intermediate() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    final, (last,) = model.forward_intermediates(
        images, 1, norm=True, output_fmt="NLC", anatomy=ANATOMY
    )
    torch.testing.assert_close(final, model(images, ANATOMY))
    torch.testing.assert_close(final[:, 1:], last)


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    model, images = moved(tiny()).train(), torch.randn(3, 1, 40, 40)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images, ANATOMY).square().sum().backward()
        gradients.append([one.grad.clone() for one in model.parameters() if one.grad is not None])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_folding_the_anatomy_keeps_the_features() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    before = model(images, ANATOMY)
    model.fold_anatomy()
    torch.testing.assert_close(model(images, ANATOMY), before)
    assert not any("anatomy.fc1" in name for name, _ in model.named_parameters())


def test_inference_in_place_gives_the_same_features_and_keeps_the_images() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    before = images.clone()
    with torch.no_grad():
        torch.testing.assert_close(model(images, ANATOMY), model.train()(images, ANATOMY))
        maps = model.forward_intermediates(
            images, output_fmt="NLC", anatomy=ANATOMY, intermediates_only=True
        )
    expected = model.forward_intermediates(
        images, output_fmt="NLC", anatomy=ANATOMY, intermediates_only=True
    )
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(images, before, rtol=0, atol=0)


@pytest.mark.parametrize("visible", [False, True])
def test_the_exported_graph_gives_the_same_features(visible: bool) -> None:
    model, images = moved(tiny(depth=1)), torch.randn(3, 1, 40, 40)
    options = {"ids_keep": shuffled(3, 25)[:, :7]} if visible else {}
    exported = torch.export.export(model, (images, ANATOMY), options)
    torch.testing.assert_close(
        exported.module()(images, ANATOMY, **options), model(images, ANATOMY, **options)
    )
    assert not any("arl" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_gives_the_same_features_and_gradients() -> None:
    model, images = moved(tiny(depth=2)), torch.randn(3, 1, 40, 40)
    compiled = torch.compile(model)
    results = []
    for run in (model, compiled):
        model.zero_grad()
        out = run(images, ANATOMY)
        out.square().sum().backward()
        results.append(
            [
                out.detach(),
                *(one.grad.clone() for one in model.parameters() if one.grad is not None),
            ]
        )
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


def test_stochastic_depth_grows_with_depth() -> None:
    rates = [
        getattr(block.drop_path, "drop_prob", 0.0) for block in tiny(drop_path_rate=0.2).blocks
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_what_must_not_decay() -> None:
    names = dict(tiny().named_parameters()).keys()
    assert tiny().no_weight_decay() <= names
    assert "blocks.2.deform.weight" in tiny().no_weight_decay()
    layers = timm.models.group_parameters(tiny(), tiny().group_matcher())
    assert sorted(name for layer in layers.values() for name in layer) == sorted(names)
    assert layers[0] == [
        name for name in names if "blocks" not in name and not name.startswith("norm")
    ]


def test_the_same_seed_gives_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(tiny().state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_bfloat16_autocast_stays_close() -> None:
    model, images = moved(tiny()), torch.randn(3, 1, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images, ANATOMY)
    torch.testing.assert_close(low.float(), model(images, ANATOMY), rtol=0.1, atol=0.15)
    assert model.bfloat16()(images.bfloat16(), ANATOMY).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"img_size": 44}, "44 x 44 pixels is not a whole number of patches of 8"),
        ({"img_size": 4}, "4 x 4 pixels is smaller than a patch of 8"),
        ({"num_heads": 5}, "embed_dim 12 is not divisible by num_heads 5"),
        ({"conditioning": "gate"}, "unknown conditioning 'gate'"),
        ({"embed_dim": 6}, "divisible by 4, got 6"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


@pytest.mark.parametrize(
    ("shape", "anatomy", "message"),
    [
        ((2, 1, 40, 40), [3, 17], r"unknown anatomy index \[17\]: expected 0..15, or 16"),
        ((2, 1, 40, 40), [-1, 2], r"unknown anatomy index \[-1\]"),
        ((2, 1, 40, 40), [1], r"anatomy has shape \(1,\)"),
        ((2, 3, 40, 40), [1, 2], r"this encoder reads \(batch, 1, H, W\)"),
        ((2, 1, 40, 7), [1, 2], "40 x 7 pixels is smaller than a patch of 8"),
        ((2, 1, 42, 40), [1, 2], "42 x 40 pixels is not a whole number of patches of 8"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(
    shape: tuple[int, ...], anatomy: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(shape), torch.tensor(anatomy))


def test_ids_keep_and_mask_together_are_refused() -> None:
    with pytest.raises(ValueError, match="pass one of them"):
        tiny()(
            torch.zeros(1, 1, 40, 40),
            ids_keep=torch.zeros(1, 3).long(),
            mask=torch.zeros(1, 25).bool(),
        )
    with pytest.raises(ValueError, match="'NHWC' is not NCHW or NLC"):
        tiny().forward_intermediates(torch.zeros(1, 1, 40, 40), output_fmt="NHWC")


def test_timm_builds_it() -> None:
    model = timm.create_model(
        "avit_tiny_patch16", img_size=32, in_chans=3, depth=1, drop_path_rate=None
    )
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 192)
    with pytest.raises(ValueError, match="no pretrained weights"):
        timm.create_model("avit_tiny_patch16", pretrained=True)
    with pytest.raises(ValueError, match="has no head"):
        timm.create_model("avit_tiny_patch16", num_classes=3)

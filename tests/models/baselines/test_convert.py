"""Official files of the baselines: timm's features, or an error that names the cause."""

import argparse
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from arl.loading.transforms import MEAN, STD
from arl.models.baselines.convert import import_baseline
from arl.models.baselines.encoder import gaussian_blur
from arl.models.baselines.layouts import METHODS

WRITE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "layouts.py")))
GREY = (MEAN, STD)
ANATOMY = torch.tensor([3, 16])


def grey(size: int = 48) -> Tensor:
    """Two images of grey levels 0..1."""
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(3))


def seen(method: str, levels: Tensor) -> Tensor:
    """The images as the method's authors feed them."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in METHODS[method].normalisation)
    return (levels.expand(-1, 3, -1, -1) - mean) / std


def features(method: str, file: Path, levels: Tensor) -> Tensor:
    encoder = import_baseline(method, file, size=levels.shape[-1], grey=GREY).encoder.eval()
    with torch.no_grad():
        return encoder((levels - MEAN) / STD, ANATOMY)


def expected(method: str, reference: torch.nn.Module, levels: Tensor) -> Tensor:
    with torch.no_grad():
        return reference.forward_features(seen(method, levels))


@pytest.mark.parametrize("name", WRITE.LAYOUTS)
def test_an_official_file_gives_the_features_of_the_published_model(
    name: str, tmp_path: Path
) -> None:
    method, write = WRITE.LAYOUTS[name]
    file, reference = write(tmp_path)
    actual = features(method, file, grey())
    torch.testing.assert_close(actual, expected(method, reference, grey()), rtol=1e-4, atol=1e-4)
    assert actual.std() > 0.1


@pytest.mark.parametrize("name", WRITE.LAYOUTS)
def test_maps_of_blocks_are_those_of_the_published_model(name: str, tmp_path: Path) -> None:
    method, write = WRITE.LAYOUTS[name]
    file, reference = write(tmp_path)
    encoder = import_baseline(method, file, size=48, grey=GREY).encoder.eval()
    with torch.no_grad():
        maps = encoder.forward_intermediates(
            (grey() - MEAN) / STD, [0, 2], norm=True, intermediates_only=True
        )
        theirs = reference.forward_intermediates(
            seen(method, grey()), [0, 2], norm=True, intermediates_only=True
        )
    assert maps[0].shape == (2, encoder.embed_dim, 3, 3)
    torch.testing.assert_close(maps, theirs, rtol=1e-4, atol=1e-4)


def test_every_method_is_written_by_some_fixture() -> None:
    assert {method for method, _ in WRITE.LAYOUTS.values()} | {"lvm_med", "dmae"} == set(METHODS)


def test_lvm_med_of_one_window(tmp_path: Path) -> None:
    file, reference = WRITE.lvm_med(tmp_path)
    imported = import_baseline("lvm_med", file, size=224, grey=GREY)
    levels = grey(224)
    theirs = expected("lvm_med", reference, levels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(features("lvm_med", file, levels), theirs, rtol=1e-4, atol=1e-4)
    # tables of windows fit as they are, that of the global block was made for 1024 pixels
    assert imported.resampled == {
        f"blocks.1.attn.rel_pos_{side}": [[127, 64], [27, 64]] for side in "hw"
    }
    assert imported.dropped == ["neck.0.weight", "neck.1.bias"]


def test_lvm_med_of_several_windows(tmp_path: Path) -> None:
    file, reference = WRITE.lvm_med(tmp_path, size=320)
    imported = import_baseline("lvm_med", file, size=320, grey=GREY)
    assert imported.config["global_blocks"] == [1]
    assert {name: shapes[1] for name, shapes in imported.resampled.items()} == {
        f"blocks.1.attn.rel_pos_{side}": [39, 64] for side in "hw"
    }
    levels = grey(320)
    theirs = expected("lvm_med", reference, levels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(features("lvm_med", file, levels), theirs, rtol=1e-4, atol=1e-4)


def test_dmae_sees_images_through_the_blur_of_its_training(tmp_path: Path) -> None:
    file, reference = WRITE.mae_training(tmp_path)
    theirs = expected("dmae", reference, gaussian_blur(grey(), 1.1))
    torch.testing.assert_close(features("dmae", file, grey()), theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(features("mae", file, grey()), theirs, atol=1e-2)


def test_the_blur_is_scipys() -> None:
    from scipy.ndimage import gaussian_filter

    image = grey(53)
    theirs = gaussian_filter(image[0, 0].double().numpy(), 1.1, mode="mirror", truncate=4.0)
    torch.testing.assert_close(
        gaussian_blur(image, 1.1)[0, 0], torch.tensor(theirs).float(), rtol=1e-4, atol=1e-5
    )


def test_positions_are_resampled_to_the_image_size(tmp_path: Path) -> None:
    file, reference = WRITE.mae(tmp_path)
    imported = import_baseline("mae", file, size=80, grey=GREY)
    assert imported.resampled == {"pos_embed": [[1, 10, 128], [1, 26, 128]]}
    reference.set_input_size(80)
    theirs = expected("mae", reference, grey(80))
    torch.testing.assert_close(features("mae", file, grey(80)), theirs, rtol=1e-4, atol=1e-4)


def test_usfms_table_is_resampled_without_its_three_entries_of_cls(tmp_path: Path) -> None:
    file, reference = WRITE.usfm(tmp_path)
    imported = import_baseline("usfm", file, size=80, grey=GREY)
    assert imported.resampled == {"rel_pos_bias.relative_position_bias_table": [[28, 2], [84, 2]]}
    table = imported.encoder.net.rel_pos_bias.relative_position_bias_table
    theirs = reference.blocks[0].attn.relative_position_bias_table
    torch.testing.assert_close(table[-3:], theirs[-3:])
    torch.testing.assert_close(table[40], theirs[12])  # the middle: no distance


# --- what goes wrong elsewhere, silently --------------------------------------------------------


def test_a_mask_token_does_not_turn_mae_into_dino_v2(tmp_path: Path) -> None:
    """timm takes any file with a mask token for DINOv2's."""
    alone, whole = WRITE.mae(tmp_path), WRITE.mae_training(tmp_path)
    assert torch.equal(features("mae", alone.file, grey()), features("mae", whole.file, grey()))
    misled = checkpoint_filter_fn(
        torch.load(whole.file, weights_only=False)["model"], whole.reference
    )
    assert (
        "decoder_embed.weight" in misled
    )  # if this fails timm has learned, and only this line can go


def test_nothing_of_usfm_is_lost(tmp_path: Path) -> None:
    """TinyUSFM's loader drops 25 of ViT-B's tensors: shared positions, query and value biases."""
    file, _ = WRITE.usfm(tmp_path)
    before = features("usfm", file, grey())
    state = torch.load(file, weights_only=True)
    lost = [name for name in state if name.endswith(("q_bias", "v_bias", "position_bias_table"))]
    assert len(lost) == 2 * WRITE.DEPTH + 1
    for name in lost:
        torch.save(state | {name: torch.zeros_like(state[name])}, file)
        assert not torch.allclose(features("usfm", file, grey()), before, atol=1e-4), name
        torch.save({other: tensor for other, tensor in state.items() if other != name}, file)
        with pytest.raises(ValueError, match="usfm"):
            import_baseline("usfm", file, size=48, grey=GREY)


def test_prefixes_are_stripped_from_the_front_only(tmp_path: Path) -> None:
    """iBOT's own loader replaces "module." and "backbone." anywhere in a name."""
    file, _ = WRITE.ibot_training(tmp_path)
    state = torch.load(file, weights_only=True)
    name = "module.backbone.blocks.1.attn.proj.weight"
    state["teacher"]["module.backbone.blocks.1.backbone.attn.proj.weight"] = state["teacher"].pop(
        name
    )
    torch.save(state, file)
    with pytest.raises(
        ValueError, match=r"blocks\.1\.attn\.proj\.weight is missing.*backbone\.attn\.proj\.weight"
    ):
        import_baseline("ibot", file, size=48, grey=GREY)


def test_a_tensor_of_another_shape_is_no_reason_to_go_on_without_it(tmp_path: Path) -> None:
    """DMAE's loader drops what has another shape."""
    file, _ = WRITE.mae(tmp_path)
    state = torch.load(file, weights_only=True)
    state["model"]["blocks.2.mlp.fc2.bias"] = torch.zeros(7)
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"blocks\.2\.mlp\.fc2\.bias is \(7,\), expected \(128,\)"):
        import_baseline("dmae", file, size=48, grey=GREY)


@pytest.mark.parametrize(
    "written", ["mae_training", "dino_v3_hugging_face", "siglip2_hugging_face", "usfm"]
)
@pytest.mark.parametrize("surplus", ["blocks.1.attn.scale", "norm3.weight", "adapter.weight"])
def test_a_tensor_that_nobody_expects_is_refused(
    written: str, surplus: str, tmp_path: Path
) -> None:
    method = next(
        method for method, write in WRITE.LAYOUTS.values() if write is getattr(WRITE, written)
    )
    file, _ = getattr(WRITE, written)(tmp_path)
    imported = (
        load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=False)
    )
    imported.get("model", imported)[surplus] = torch.ones(3)
    torch.save(imported, tmp_path / "surplus.pth")
    with pytest.raises(ValueError, match=rf"{re.escape(surplus)} \(3,\) is unknown"):
        import_baseline(method, tmp_path / "surplus.pth", size=48, grey=GREY)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "written", "message"),
    [
        (
            "usfm",
            "mae",
            r"is no usfm checkpoint \(official layout\)\. .*looks like mae or dmae",
        ),
        (
            "moco_v3",
            "dino",
            r"is no moco_v3 checkpoint .*blocks\.\.\. \(36\).*looks like mae or dino",
        ),
        ("mae", "moco_v3", r"is no mae checkpoint.*epoch.*looks like moco_v3"),
        ("dino_v3", "siglip2_timm", r"official, timm, Hugging Face layout.*looks like siglip2"),
        ("lvm_med", "usfm", "looks like usfm"),
    ],
)
def test_another_methods_file_is_refused_with_what_it_looks_like(
    method: str, written: str, message: str, tmp_path: Path
) -> None:
    file, _ = getattr(WRITE, written)(tmp_path)
    with pytest.raises(ValueError, match=message):
        import_baseline(method, file, size=48, grey=GREY)


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {}, "args": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(
        ValueError, match=r"bad\.pth holds more than tensors, so that loading could run code"
    ):
        import_baseline("mae", tmp_path / "bad.pth", size=48, grey=GREY)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_a_damaged_file_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"torn{suffix}"
    file.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ValueError, match=rf"torn{suffix} (is damaged|holds more)"):
        import_baseline("siglip2", file, size=48, grey=GREY)


def test_a_missing_file_and_an_unknown_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist"):
        import_baseline("mae", tmp_path / "none.pth", size=48, grey=GREY)
    with pytest.raises(ValueError, match="unknown baseline 'simclr': expected one of mae, moco_v3"):
        import_baseline("simclr", tmp_path / "none.pth", size=48, grey=GREY)


def test_tensors_without_names_are_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth holds a list, not named tensors"):
        import_baseline("mae", tmp_path / "list.pth", size=48, grey=GREY)


def test_a_patch_of_a_linear_layer_is_refused(tmp_path: Path) -> None:
    """SigLIP2's NaFlex variant embeds patches of any aspect by a matrix."""
    file, _ = WRITE.siglip2_timm(tmp_path)
    save_file(load_file(file) | {"patch_embed.proj.weight": torch.ones(128, 768)}, file)
    with pytest.raises(
        ValueError, match=r"patch_embed\.proj\.weight is \(128, 768\), expected \(width, 3, patch"
    ):
        import_baseline("siglip2", file, size=48, grey=GREY)


def test_another_size_than_imported_for_is_refused(tmp_path: Path) -> None:
    file, _ = WRITE.mae(tmp_path)
    encoder = import_baseline("mae", file, size=48, grey=GREY).encoder
    with pytest.raises(ValueError, match=r"mae was imported for \(batch, 1, 48, 48\)"):
        encoder(torch.zeros(2, 1, 64, 64))
    with pytest.raises(
        ValueError, match="image of 50 pixels is not a whole number of patches of 16"
    ):
        import_baseline("mae", file, size=50, grey=GREY)


def test_the_namespace_of_a_training_is_read_and_nothing_else_of_it(tmp_path: Path) -> None:
    file, _ = WRITE.mae_training(tmp_path)
    imported = import_baseline("mae", file, size=48, grey=GREY)
    assert imported.container == "model"
    assert sorted(imported.dropped) == sorted(WRITE._decoder())
    assert argparse.Namespace not in torch.serialization.get_safe_globals()

"""Random checkpoints in the format of each method's authors, with timm's model of the weights."""

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

DIM, DEPTH, HEADS, SIZE = 128, 3, 2, 48
SMALL: dict[str, Any] = {
    "img_size": SIZE,
    "embed_dim": DIM,
    "depth": DEPTH,
    "num_heads": HEADS,
    "num_classes": 0,
}


class Fixture(NamedTuple):
    """A file, and the timm model with its weights, which reads normalised RGB images."""

    file: Path
    reference: nn.Module


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn at random, biases and scales too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        mean = 1.0 if re.search(r"norm\d?\.weight|gamma_", name) else 0.0
        nn.init.normal_(parameter, mean, 0.05, generator=generator)
    return module.eval()


def vit(**kwargs: Any) -> nn.Module:
    return randomised(timm.models.VisionTransformer(**(SMALL | {"patch_size": 16} | kwargs)))


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def _decoder() -> dict[str, Tensor]:
    """What MAE's own files have beside the encoder."""
    shapes = {
        "mask_token": (1, 1, 64),
        "decoder_embed.weight": (64, DIM),
        "decoder_pos_embed": (1, 10, 64),
        "decoder_blocks.0.attn.qkv.weight": (192, 64),
        "decoder_norm.weight": (64,),
        "decoder_pred.bias": (768,),
    }
    return {name: _drawn(*shape) for name, shape in shapes.items()}


def mae(folder: Path) -> Fixture:
    """The released encoder alone."""
    reference = vit()
    torch.save({"model": reference.state_dict()}, folder / "mae.pth")
    return Fixture(folder / "mae.pth", reference)


def mae_training(folder: Path) -> Fixture:
    """A checkpoint of the training script: decoder, optimiser and the command line's Namespace."""
    reference = vit()
    content = {
        "model": reference.state_dict() | _decoder(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "scaler": {"scale": 1.0},
        "args": argparse.Namespace(model="mae_vit_base_patch16", mask_ratio=0.75),
    }
    torch.save(content, folder / "mae_full.pth")
    return Fixture(folder / "mae_full.pth", reference)


def usf_mae(folder: Path) -> Fixture:
    """A bare state dictionary with decoder and mask token."""
    reference = vit()
    torch.save(reference.state_dict() | _decoder(), folder / "usf.pt")
    return Fixture(folder / "usf.pt", reference)


def moco_v3(folder: Path) -> Fixture:
    """Twelve heads, as in MoCo's ViT-S and ViT-B; the momentum encoder has other weights."""
    small = {"embed_dim": 96, "num_heads": 12}
    reference, momentum = (
        vit(**small),
        randomised(timm.models.VisionTransformer(**(SMALL | small)), seed=1),
    )
    state = {
        f"module.base_encoder.{name}": tensor for name, tensor in reference.state_dict().items()
    }
    state |= {
        f"module.momentum_encoder.{name}": tensor for name, tensor in momentum.state_dict().items()
    }
    state |= {
        "module.base_encoder.head.0.weight": _drawn(5, 96),
        "module.predictor.0.weight": _drawn(5, 7),
    }
    torch.save(
        {"epoch": 3, "arch": "vit_base", "state_dict": state, "optimizer": {}},
        folder / "vit-b.pth.tar",
    )
    return Fixture(folder / "vit-b.pth.tar", reference)


def dino(folder: Path) -> Fixture:
    reference = vit()
    torch.save(reference.state_dict(), folder / "dino.pth")
    return Fixture(folder / "dino.pth", reference)


def dino_training(folder: Path) -> Fixture:
    """Student and teacher of a training run; the teacher is the model."""
    reference, student = vit(), randomised(vit(), seed=1)
    head = {"head.mlp.0.weight": _drawn(5, DIM), "head.last_layer.weight_g": _drawn(5, 1)}
    teacher = {f"backbone.{name}": tensor for name, tensor in reference.state_dict().items()} | head
    learned = {f"module.backbone.{name}": tensor for name, tensor in student.state_dict().items()}
    torch.save({"student": learned, "teacher": teacher, "epoch": 3}, folder / "dino_full.pth")
    return Fixture(folder / "dino_full.pth", reference)


def ibot(folder: Path) -> Fixture:
    reference = vit()
    torch.save({"state_dict": reference.state_dict()}, folder / "checkpoint_teacher.pth")
    return Fixture(folder / "checkpoint_teacher.pth", reference)


def ibot_training(folder: Path) -> Fixture:
    reference = vit()
    teacher = {f"module.backbone.{name}": tensor for name, tensor in reference.state_dict().items()}
    teacher |= {
        "module.backbone.masked_embed": _drawn(1, DIM),
        "module.head.last_layer2.weight_v": _drawn(5, 7),
    }
    torch.save({"teacher": teacher, "epoch": 3}, folder / "checkpoint.pth")
    return Fixture(folder / "checkpoint.pth", reference)


def _dino_v3_reference(name: str) -> nn.Module:
    return randomised(timm.create_model(name, pretrained=False, **SMALL))


def dino_v3(folder: Path) -> Fixture:
    """Biases of queries, keys and values in one tensor; a mask of 0 and 1 drops the keys'."""
    reference = _dino_v3_reference("vit_base_patch16_dinov3_qkvb")
    state: dict[str, Tensor] = {"mask_token": _drawn(1, DIM), "rope_embed.periods": _drawn(16)}
    for name, tensor in reference.state_dict().items():
        new = name.replace("reg_token", "storage_tokens")
        new = re.sub(r"gamma_([12])", r"ls\1.gamma", new)
        if name.endswith("q_bias"):
            value = reference.state_dict()[name.replace("q_bias", "v_bias")]
            state[new.replace("q_bias", "qkv.bias")] = torch.cat([tensor, _drawn(DIM), value])
            state[new.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * DIM)
        elif not name.endswith("v_bias"):
            state[new] = tensor
    torch.save(state, folder / "dinov3.pth")
    return Fixture(folder / "dinov3.pth", reference)


def dino_v3_timm(folder: Path) -> Fixture:
    reference = _dino_v3_reference("vit_base_patch16_dinov3")
    save_file(reference.state_dict(), folder / "model.safetensors")
    return Fixture(folder / "model.safetensors", reference)


def dino_v3_hugging_face(folder: Path, old_names: bool = False) -> Fixture:
    reference = _dino_v3_reference("vit_base_patch16_dinov3_qkvb")
    weights = reference.state_dict()
    state = {"embeddings.mask_token": _drawn(1, 1, DIM)}
    names = (
        {"q": "query", "k": "key", "v": "value"}
        if old_names
        else {part: f"{part}_proj" for part in "qkv"}
    )
    for name, tensor in weights.items():
        new = name.replace("reg_token", "embeddings.register_tokens").replace(
            "patch_embed.proj", "PATCHES"
        )
        new = new.replace("PATCHES", "embeddings.patch_embeddings").replace(
            "cls_token", "embeddings.cls_token"
        )
        new = re.sub(r"^blocks\.", "layer.", new).replace("attn.proj", "attention.o_proj")
        new = re.sub(r"gamma_([12])", r"layer_scale\1.lambda1", new)
        new = new.replace("mlp.fc1", "mlp.up_proj").replace("mlp.fc2", "mlp.down_proj")
        if "attn.qkv.weight" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[new.replace("attn.qkv", f"attention.{names[part]}")] = piece.clone()
        elif name.endswith(("q_bias", "v_bias")):  # the keys have none
            part = name[-6]
            state[new.replace(f"attn.{part}_bias", f"attention.{names[part]}.bias")] = tensor
        else:
            state[new] = tensor
    save_file(state, folder / "model.safetensors")
    return Fixture(folder / "model.safetensors", reference)


def _siglip_reference() -> nn.Module:
    # the authors' activation
    tanh = partial(nn.GELU, approximate="tanh")
    return randomised(
        timm.create_model("vit_base_patch16_siglip_224", pretrained=False, act_layer=tanh, **SMALL)
    )


def siglip2_timm(folder: Path) -> Fixture:
    reference = _siglip_reference()
    save_file(reference.state_dict(), folder / "model.safetensors")
    return Fixture(folder / "model.safetensors", reference)


def siglip2_open_clip(folder: Path) -> Fixture:
    reference = _siglip_reference()
    state = {f"visual.trunk.{name}": tensor for name, tensor in reference.state_dict().items()}
    state |= {
        "text.token_embedding.weight": _drawn(11, 7),
        "logit_scale": _drawn(1),
        "logit_bias": _drawn(1),
    }
    save_file(state, folder / "open_clip.safetensors")
    return Fixture(folder / "open_clip.safetensors", reference)


def siglip2_hugging_face(folder: Path) -> Fixture:
    reference = _siglip_reference()
    state = {
        "text_model.embeddings.token_embedding.weight": _drawn(11, 7),
        "logit_scale": _drawn(1),
    }
    for name, tensor in reference.state_dict().items():
        if name.startswith("attn_pool."):
            continue
        new = name.replace("patch_embed.proj", "embeddings.patch_embedding")
        new = re.sub(
            r"^norm\.", "post_layernorm.", re.sub(r"\.norm([12])\.", r".layer_norm\1.", new)
        )
        new = "vision_model." + re.sub(r"^blocks\.", "encoder.layers.", new).replace(
            "attn.proj", "self_attn.out_proj"
        )
        if name == "pos_embed":
            state["vision_model.embeddings.position_embedding.weight"] = tensor[0].clone()
        elif "attn.qkv" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[new.replace("attn.qkv", f"self_attn.{part}_proj")] = piece.clone()
        else:
            state[new] = tensor
    state["vision_model.head.probe"] = _drawn(1, 1, DIM)
    save_file(state, folder / "model.safetensors")
    return Fixture(folder / "model.safetensors", reference)


def siglip2_big_vision(folder: Path, stacked: bool = False) -> Fixture:
    """Flax: outputs last, heads as an axis, blocks single or stacked; timm reads the reference."""
    weights = {name: tensor.numpy() for name, tensor in _siglip_reference().state_dict().items()}
    image: dict[str, Any] = {
        "embedding/kernel": weights["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": weights["patch_embed.proj.bias"],
        "pos_embedding": weights["pos_embed"],
        "Transformer/encoder_norm/scale": weights["norm.weight"],
        "Transformer/encoder_norm/bias": weights["norm.bias"],
    }
    blocks = [_flax_block(weights, f"blocks.{i}.") for i in range(DEPTH)]
    if stacked:
        image |= {
            f"Transformer/encoderblock/{name}": np.stack([b[name] for b in blocks])
            for name in blocks[0]
        }
    else:
        image |= {
            f"Transformer/encoderblock_{i}/{name}": b[name]
            for i, b in enumerate(blocks)
            for name in b
        }
    image |= _flax_head(weights)
    file = folder / "siglip2.npz"
    np.savez(
        file,
        **{f"params/img/{name}": value for name, value in image.items()},
        **{"params/t": np.ones(1)},
    )
    reference = _siglip_reference()
    for parameter in reference.parameters():
        nn.init.zeros_(parameter)
    reference.load_pretrained(str(file))
    return Fixture(file, reference.eval())


def _flax_block(weights: dict[str, np.ndarray], block: str) -> dict[str, np.ndarray]:
    attention = "MultiHeadDotProductAttention_0"
    flax = {
        "LayerNorm_0/scale": weights[f"{block}norm1.weight"],
        "LayerNorm_0/bias": weights[f"{block}norm1.bias"],
        "LayerNorm_1/scale": weights[f"{block}norm2.weight"],
        "LayerNorm_1/bias": weights[f"{block}norm2.bias"],
        f"{attention}/out/kernel": weights[f"{block}attn.proj.weight"].T.reshape(HEADS, -1, DIM),
        f"{attention}/out/bias": weights[f"{block}attn.proj.bias"],
    }
    for part, weight, bias in zip(
        ("query", "key", "value"),
        np.split(weights[f"{block}attn.qkv.weight"], 3),
        np.split(weights[f"{block}attn.qkv.bias"], 3),
        strict=True,
    ):
        flax[f"{attention}/{part}/kernel"] = weight.T.reshape(DIM, HEADS, -1)
        flax[f"{attention}/{part}/bias"] = bias.reshape(HEADS, -1)
    for index, layer in enumerate(("fc1", "fc2")):
        flax[f"MlpBlock_0/Dense_{index}/kernel"] = weights[f"{block}mlp.{layer}.weight"].T
        flax[f"MlpBlock_0/Dense_{index}/bias"] = weights[f"{block}mlp.{layer}.bias"]
    return flax


def _flax_head(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The attention pooling, which timm's reader wants and ARL leaves behind."""
    head = "MAPHead_0"
    kernels = [weights["attn_pool.q.weight"], *np.split(weights["attn_pool.kv.weight"], 2)]
    biases = [weights["attn_pool.q.bias"], *np.split(weights["attn_pool.kv.bias"], 2)]
    flax = {
        f"{head}/probe": weights["attn_pool.latent"],
        f"{head}/LayerNorm_0/scale": weights["attn_pool.norm.weight"],
        f"{head}/LayerNorm_0/bias": weights["attn_pool.norm.bias"],
        f"{head}/MultiHeadDotProductAttention_0/out/kernel": weights[
            "attn_pool.proj.weight"
        ].T.reshape(HEADS, -1, DIM),
        f"{head}/MultiHeadDotProductAttention_0/out/bias": weights["attn_pool.proj.bias"],
    }
    for part, weight, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
        flax[f"{head}/MultiHeadDotProductAttention_0/{part}/kernel"] = weight.T.reshape(
            DIM, HEADS, -1
        )
        flax[f"{head}/MultiHeadDotProductAttention_0/{part}/bias"] = bias.reshape(HEADS, -1)
    for index, layer in enumerate(("fc1", "fc2")):
        flax[f"{head}/MlpBlock_0/Dense_{index}/kernel"] = weights[f"attn_pool.mlp.{layer}.weight"].T
        flax[f"{head}/MlpBlock_0/Dense_{index}/bias"] = weights[f"attn_pool.mlp.{layer}.bias"]
    return flax


def usfm(folder: Path, final_norm: bool = False) -> Fixture:
    """One table of relative positions; the reference has a copy of it in each block."""
    reference = Beit(
        **SMALL,
        patch_size=16,
        global_pool="",
        use_fc_norm=False,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        init_values=0.1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    reference = randomised(reference)
    table = _drawn(25 + 3, HEADS)
    for block in reference.blocks:
        block.attn.relative_position_bias_table.data.copy_(table)
    if not final_norm:
        reference.norm = nn.Identity()
    state = {
        name: t
        for name, t in reference.state_dict().items()
        if "relative_position_bias_table" not in name
    }
    state |= {
        "rel_pos_bias.relative_position_bias_table": table,
        "rel_pos_bias.relative_position_index": torch.zeros(10, 10, dtype=torch.long),
        "mask_token": _drawn(1, 1, DIM),
        "lm_head.weight": _drawn(5, DIM),
    }
    torch.save(state, folder / "USFM_latest.pth")
    return Fixture(folder / "USFM_latest.pth", reference)


def lvm_med(folder: Path, size: int = 224) -> Fixture:
    """Windows of 14; the global second block has tables for 64 x 64 patches, which timm resizes."""
    reference = VisionTransformerSAM(
        **(SMALL | {"img_size": size}),
        patch_size=16,
        use_abs_pos=False,
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
        neck_chans=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    for name in ("rel_pos_h", "rel_pos_w"):
        setattr(reference.blocks[1].attn, name, nn.Parameter(torch.empty(127, DIM // HEADS)))
    reference = randomised(reference)
    reference.neck = nn.Identity()
    state = {
        re.sub(r"mlp\.fc([12])", r"mlp.lin\1", name): t
        for name, t in reference.state_dict().items()
    }
    state |= {"neck.0.weight": _drawn(7, DIM, 1, 1), "neck.1.bias": _drawn(7)}
    torch.save(state, folder / "lvmmed_vit.pth")
    return Fixture(folder / "lvmmed_vit.pth", reference)


LAYOUTS: dict[str, tuple[str, Callable[[Path], Fixture]]] = {
    "mae": ("mae", mae),
    "mae of a training": ("mae", mae_training),
    "usf-mae": ("usf_mae", usf_mae),
    "moco v3": ("moco_v3", moco_v3),
    "dino": ("dino", dino),
    "dino of a training": ("dino", dino_training),
    "ibot": ("ibot", ibot),
    "ibot of a training": ("ibot", ibot_training),
    "dino v3": ("dino_v3", dino_v3),
    "dino v3, timm": ("dino_v3", dino_v3_timm),
    "dino v3, hugging face": ("dino_v3", dino_v3_hugging_face),
    "dino v3, hugging face's older names": (
        "dino_v3",
        partial(dino_v3_hugging_face, old_names=True),
    ),
    "siglip2, timm": ("siglip2", siglip2_timm),
    "siglip2, open_clip": ("siglip2", siglip2_open_clip),
    "siglip2, hugging face": ("siglip2", siglip2_hugging_face),
    "siglip2, big_vision": ("siglip2", siglip2_big_vision),
    "siglip2, big_vision, stacked": ("siglip2", partial(siglip2_big_vision, stacked=True)),
    "usfm": ("usfm", usfm),
    "usfm with its norm": ("usfm", partial(usfm, final_norm=True)),
}

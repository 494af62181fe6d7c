"""Convert a published checkpoint into a `Baseline`; every tensor must fit."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from torch import Tensor

from arl.model_config import EncoderArguments
from arl.models.baselines.encoder import WINDOW, Baseline
from arl.models.baselines.files import describe, read_checkpoint, unwrap
from arl.models.baselines.layouts import METHODS, Layout, Method

_MAX_NAMES = 12  # in an error message
_REL_POS = re.compile(r"blocks\.(\d+)\.attn\.rel_pos_[hw]$")


@dataclass
class Imported:
    """An encoder, its arguments, and a report on the tensors of the file.

    Attributes:
        config: keyword arguments of `Baseline`.
        layout: name of the file's layout.
        container: entry of the file that held the tensors; None: the top level.
        dropped: names of the tensors that were not loaded.
        resampled: name -> shape in the file and in the encoder.
    """

    encoder: Baseline
    config: EncoderArguments
    layout: str
    container: str | None
    dropped: list[str] = field(default_factory=list)
    resampled: dict[str, list[list[int]]] = field(default_factory=dict)


def import_baseline(method: str, file: Path, *, size: int, grey: tuple[float, float]) -> Imported:
    """Load the encoder of an official file.

    Args:
        method: one of `METHODS`.
        size: side of the input images, pixels; positions are resampled to it.
        grey: mean and standard deviation of the normalisation of the input images.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the method is unknown, or a tensor of the file is; the message names both.
    """
    if method not in METHODS:
        raise ValueError(f"unknown baseline {method!r}: expected one of {', '.join(METHODS)}")
    spec = METHODS[method]
    layout, tensors, container = _recognise(method, spec, read_checkpoint(file), file)
    try:
        kept, dropped = _renamed(
            layout, _unstacked(tensors) if layout.name == "big_vision" else tensors
        )
        if layout.name == "big_vision":
            # Flax keeps outputs last and gives attention heads an axis of their own.
            kept = {name: _transposed(name, tensor) for name, tensor in kept.items()}
        state = _fused(kept)
        if "pos_embed" in state and state["pos_embed"].ndim == 2:
            # Hugging Face stores the positions as an embedding table.
            state["pos_embed"] = state["pos_embed"].unsqueeze(0)
        config = _config(method, spec, state, size, grey)
        encoder = Baseline(**config)
        resampled = _fit_positions(encoder, state)
        _load(encoder, state)
    except ValueError as error:
        raise ValueError(
            f"{file} is no whole {method} checkpoint ({layout.name} layout): {error}"
        ) from error
    return Imported(encoder, config, layout.name, container, dropped, resampled)


def _recognise(
    method: str, spec: Method, checkpoint: Mapping[str, object], file: Path
) -> tuple[Layout, dict[str, Tensor], str | None]:
    """Find the layout of a file, its tensors and their container."""
    for layout in spec.layouts:
        match = _match(layout, checkpoint)
        if match is not None:
            return layout, *match
    # A file of another method is the likely mistake, so the error names that method.
    others = [
        name
        for name, other in METHODS.items()
        if any(_match(layout, checkpoint) for layout in other.layouts)
    ]
    guess = f"; it looks like {' or '.join(others)}" if others else ""
    layouts = ", ".join(layout.name for layout in spec.layouts)
    raise ValueError(
        f"{file} is no {method} checkpoint ({layouts} layout). "
        f"It holds {describe(checkpoint)}{guess}"
    )


def _match(
    layout: Layout, checkpoint: Mapping[str, object]
) -> tuple[dict[str, Tensor], str | None] | None:
    """Return the tensors and their container if the file has this layout."""
    try:
        tensors, container = unwrap(checkpoint, layout.containers)
    except ValueError:
        return None
    marked = all(any(re.match(mark, name) for name in tensors) for mark in layout.marks)
    return (tensors, container) if marked else None


def _renamed(layout: Layout, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename tensors to timm's names; also return the names of those that are ignored."""
    kept: dict[str, Tensor] = {}
    dropped = []
    for name, tensor in tensors.items():
        new = layout.new_name(name)
        # Heads, decoders and momentum encoders are in the files, and the encoder needs none.
        if any(re.match(pattern, new) for pattern in layout.ignore):
            dropped.append(name)
        elif new in kept:
            raise ValueError(f"two tensors would be {new}, one of them {name}")
        else:
            kept[new] = tensor.float()
    return kept, dropped


def _unstacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split tensors that Flax stacks over the blocks; the rules expect one tensor per block."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if "/encoderblock/" in name:
            split |= {
                name.replace("/encoderblock/", f"/encoderblock_{i}/"): part
                for i, part in enumerate(tensor)
            }
        else:
            split[name] = tensor
    return split


def _transposed(name: str, tensor: Tensor) -> Tensor:
    # Flax's convolutions are (height, width, in, out), PyTorch's are (out, in, height, width).
    if name == "patch_embed.proj.weight":
        return tensor.permute(3, 2, 0, 1)
    if name.endswith("attn.proj.weight"):
        # from (heads, dim, C)
        return tensor.flatten(0, 1).t()
    if re.search(r"attn\.[qkv]\.(weight|bias)$", name):
        return tensor.flatten(-2).t() if name.endswith("weight") else tensor.flatten()
    return tensor.t() if tensor.ndim == 2 and name.endswith("weight") else tensor


def _fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate separate projections of queries, keys and values to timm's `qkv`.

    A missing key bias becomes zero: a bias of all keys changes no softmax, so BEiT and DINO v3
    train without it.
    """
    fused = {}
    for name, tensor in state.items():
        match = re.match(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)$", name)
        if match is None:
            fused[name] = tensor
        elif match[2] == "q":
            fused[f"{match[1]}qkv.{match[3]}"] = torch.cat(_parts(state, match[1], match[3]))
    return fused


def _parts(state: Mapping[str, Tensor], block: str, kind: str) -> list[Tensor]:
    query = state[f"{block}q.{kind}"]
    missing = [part for part in "kv" if f"{block}{part}.{kind}" not in state]
    if "v" in missing or (missing and kind == "weight"):
        raise ValueError(f"{block}{missing[0]}.{kind} is missing")
    return [
        query,
        state.get(f"{block}k.{kind}", torch.zeros_like(query)),
        state[f"{block}v.{kind}"],
    ]


def _config(
    method: str, spec: Method, state: dict[str, Tensor], size: int, grey: tuple[float, float]
) -> EncoderArguments:
    """Read the arguments of `Baseline` from the shapes of the tensors."""
    stem = _tensor(state, "patch_embed.proj.weight")
    if stem.ndim != 4 or stem.shape[1] != 3 or stem.shape[2] != stem.shape[3]:
        raise ValueError(
            f"patch_embed.proj.weight is {tuple(stem.shape)}, expected (width, 3, patch, patch)"
        )
    width = stem.shape[0]
    blocks = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    config = {
        "method": method,
        "family": spec.family,
        "img_size": size,
        "patch_size": stem.shape[2],
        "embed_dim": width,
        "depth": 1 + max(blocks, default=-1),
        "num_heads": spec.heads or max(1, width // 64),
        "mlp_ratio": _tensor(state, "blocks.0.mlp.fc1.weight").shape[0] / width,
        "grey_mean": grey[0],
        "grey_std": grey[1],
        "mean": list(spec.normalisation[0]),
        "std": list(spec.normalisation[1]),
        "blur": spec.blur,
        "prefix": spec.prefix,
        "tanh_gelu": spec.tanh_gelu,
    }
    special: dict[str, Callable[[dict[str, Tensor]], EncoderArguments]] = {
        "eva": _eva,
        "beit": _beit,
        "sam": _sam,
    }
    return config | (special[spec.family](state) if spec.family in special else {})


def _tensor(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"{name} is missing")
    return state[name]


def _eva(state: dict[str, Tensor]) -> EncoderArguments:
    """Read registers and biases; split the qkv bias as timm's `Eva` does.

    DINO v3's own code masks the bias of the keys, which has no effect on attention.
    """
    biased = [name for name in state if name.endswith("attn.qkv.bias")]
    for name in biased:
        query, _, value = state.pop(name).chunk(3)
        state[name.replace("qkv.bias", "q_bias")], state[name.replace("qkv.bias", "v_bias")] = (
            query,
            value,
        )
    has_bias = "blocks.0.attn.q_bias" in state
    return {"prefix": 1 + _tensor(state, "reg_token").shape[1], "qkv_bias": has_bias}


def _beit(state: dict[str, Tensor]) -> EncoderArguments:
    table = _tensor(state, "rel_pos_bias.relative_position_bias_table")
    return {"num_heads": table.shape[1], "final_norm": "norm.weight" in state}


def _sam(state: dict[str, Tensor]) -> EncoderArguments:
    """Read the heads and the global blocks: their tables are longer than a window's."""
    tables = {name: tensor for name, tensor in state.items() if _REL_POS.match(name)}
    width = _tensor(state, "patch_embed.proj.weight").shape[0]
    longer = {
        int(name.split(".")[1]) for name, table in tables.items() if len(table) > 2 * WINDOW - 1
    }
    return {
        "num_heads": width // _tensor(state, "blocks.0.attn.rel_pos_h").shape[1],
        "global_blocks": sorted(longer),
    }


def _fit_positions(encoder: Baseline, state: dict[str, Tensor]) -> dict[str, list[list[int]]]:
    """Resample the positions to the encoder's grid; return their shapes before and after."""
    own = encoder.net.state_dict()
    before = {
        name: state[name] for name in state if name in own and state[name].shape != own[name].shape
    }
    for name, tensor in before.items():
        if name == "pos_embed":
            state[name] = _resample_absolute(tensor, encoder)
        elif name.endswith("relative_position_bias_table"):
            state[name] = resize_rel_pos_bias_table_simple(
                tensor, encoder.grid_size, tuple(own[name].shape)
            )
        elif _REL_POS.match(name):
            # A table (2 g - 1, dim) is stretched to another grid, as SAM does at run time.
            length = len(own[name])
            stretched = F.interpolate(tensor.t().unsqueeze(0), size=length, mode="linear")
            state[name] = stretched.squeeze(0).t().contiguous()
    changed = {
        name: [list(tensor.shape), list(state[name].shape)] for name, tensor in before.items()
    }
    return {name: shapes for name, shapes in changed.items() if shapes[0] != shapes[1]}


def _resample_absolute(positions: Tensor, encoder: Baseline) -> Tensor:
    patches = positions.shape[1] - encoder.num_prefix_tokens
    # The grid of a file is not stored. It is a square in every published pretraining.
    if isqrt(patches) ** 2 != patches:
        raise ValueError(
            f"pos_embed has {patches} positions besides the prefix, which is no square"
        )
    resampled: Tensor = resample_abs_pos_embed(
        positions, new_size=list(encoder.grid_size), num_prefix_tokens=encoder.num_prefix_tokens
    )
    return resampled


def _load(encoder: Baseline, state: Mapping[str, Tensor]) -> None:
    # All mismatches at once: one at a time would cost the user a run for each.
    own = encoder.net.state_dict()
    problems = [f"{name} is missing" for name in sorted(own.keys() - state.keys())]
    problems += [
        f"{name} {tuple(state[name].shape)} is unknown"
        for name in sorted(state.keys() - own.keys())
    ]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    if problems:
        more = f"; and {len(problems) - _MAX_NAMES} more" if len(problems) > _MAX_NAMES else ""
        raise ValueError("; ".join(problems[:_MAX_NAMES]) + more)
    encoder.net.load_state_dict(dict(state))

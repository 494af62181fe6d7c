"""Strict loading of weights into an encoder: errors name every tensor that does not fit."""

from collections.abc import Mapping

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from arl.models.avit import AViT

_CONDITIONING = (".anatomy.", ".deform.", ".film.", ".lora_", ".cross_", ".norm_cross.")
_HEAD = ("head.", "fc_norm.")


def load_timm_vit(model: AViT, state_dict: Mapping[str, Tensor]) -> None:
    """Load a timm Vision Transformer of the same width, depth and patch.

    The classification head is left out. Positions are resampled to the model's grid. A
    three-channel stem is summed for a one-channel model, so that a grey image repeated three times
    gives the same tokens; a one-channel stem is repeated and divided by three. The conditioning
    keeps its initial values, so that A-ViT computes what the ViT computes.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape; the message names all.
    """
    state = {name: tensor for name, tensor in state_dict.items() if not name.startswith(_HEAD)}
    state = _adapt_positions(model, _adapt_channels(model, state))
    # A ViT has neither mask token nor conditioning. Both keep their initial values.
    expected = {
        name
        for name in model.state_dict()
        if name != "mask_token" and not any(part in name for part in _CONDITIONING)
    }
    _load(model, state, expected, "a timm ViT")


def load_avit(model: AViT, state_dict: Mapping[str, Tensor]) -> None:
    """Load an A-ViT of the same architecture; positions are resampled to the model's grid.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape; the message names all.
    """
    _load(model, _adapt_positions(model, dict(state_dict)), set(model.state_dict()), "an A-ViT")


def _load(model: AViT, state: dict[str, Tensor], expected: set[str], kind: str) -> None:
    own = model.state_dict()
    problems = [f"{name} is missing" for name in sorted(expected - state.keys())]
    problems += [f"{name} is unknown" for name in sorted(state.keys() - expected)]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(expected & state.keys())
        if state[name].shape != own[name].shape
    ]
    if problems:
        raise ValueError(
            f"the checkpoint is not {kind} of embed_dim {model.embed_dim} "
            f"and depth {len(model.blocks)}: {'; '.join(problems)}"
        )
    model.load_state_dict(own | state)


def _adapt_channels(model: AViT, state: dict[str, Tensor]) -> dict[str, Tensor]:
    name = "patch_embed.proj.weight"
    weight = state.get(name)
    if weight is None or weight.ndim != 4 or weight.shape[1] == model.in_chans:
        return state
    # A grey image repeated three times gives the sum of the three filters, and the other way round.
    if (weight.shape[1], model.in_chans) == (3, 1):
        return state | {name: weight.sum(1, keepdim=True)}
    if (weight.shape[1], model.in_chans) == (1, 3):
        return state | {name: weight.expand(-1, 3, -1, -1) / 3}
    return state


def _adapt_positions(model: AViT, state: dict[str, Tensor]) -> dict[str, Tensor]:
    positions = state.get("pos_embed")
    if (
        positions is None
        or positions.shape == model.pos_embed.shape
        or positions.shape[-1] != model.embed_dim
    ):
        return state
    # timm resamples with anti-aliasing, so a smaller grid does not pick single positions.
    with torch.no_grad():
        resampled = resample_abs_pos_embed(
            positions, new_size=list(model.grid_size), num_prefix_tokens=model.num_prefix_tokens
        )
    return state | {"pos_embed": resampled}

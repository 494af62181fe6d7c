"""Checkpoint files as named tensors: PyTorch's, safetensors and big_vision's npz. Nothing in them is executed."""

import argparse
import pickle
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_SHOWN = 8  # names in a message


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The file's top level: names of tensors, or of dictionaries of them and whatever else training left there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another format, or holds objects that would run code
            when loaded.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    try:
        found = _read(file)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors, so that loading it could run code: {_first_line(error)}"
        ) from error
    except (
        SafetensorError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{file} is damaged or no checkpoint: {_first_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{file} holds a {type(found).__name__}, not named tensors")
    return found


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix == ".npz":
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    # MAE and its descendants keep their command line in the file
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def unwrap(
    found: Mapping[str, Any], containers: tuple[str, ...]
) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, and under which of the `containers` they were found; None: at the top.

    Raises:
        ValueError: neither a container nor tensors alone at the top.
    """
    for name in containers:
        if isinstance(found.get(name), Mapping):
            return tensors_of(found[name], f"its {name!r}"), name
    return tensors_of(found, "it"), None


def tensors_of(found: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """The entries, all of which must be tensors."""
    others = {
        name: type(value).__name__ for name, value in found.items() if not isinstance(value, Tensor)
    }
    if others:
        listed = ", ".join(f"{name} ({kind})" for name, kind in list(others.items())[:_SHOWN])
        raise ValueError(f"{what} holds more than tensors: {listed}")
    return dict(found)


def describe(tensors: Mapping[str, Any]) -> str:
    """What there is, for a message: how many names begin with what, with the shape of those that stand alone."""
    counts = Counter(name.split(".")[0].split("/")[0] for name in tensors)
    parts = [
        f"{first} {tuple(tensors[first].shape)}"
        if isinstance(tensors.get(first), Tensor)
        else f"{first}... ({count})"
        for first, count in counts.most_common(_SHOWN)
    ]
    more = f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    return f"{len(tensors)} entries: {', '.join(parts)}{more}"

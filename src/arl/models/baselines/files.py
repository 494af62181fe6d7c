"""Read checkpoint files of PyTorch, safetensors and big_vision (npz) without running their code."""

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

_MAX_NAMES = 8  # in an error message


def read_checkpoint(file: Path) -> dict[str, object]:
    """Read the top level of a file: tensors, dictionaries of tensors, and other objects by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another format, or holds objects that would run code on
            loading.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    try:
        content = _read(file)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors, so that loading could run code: {_first_line(error)}"
        ) from error
    except (
        SafetensorError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        # A header of a few bytes may state an array of petabytes.
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{file} is damaged or no checkpoint: {_first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{file} holds a {type(content).__name__}, not named tensors")
    return content


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix == ".npz":
        # Object arrays are pickles, and a pickle runs code.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    # The files of MAE and its descendants contain the command line of the training.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def unwrap(
    checkpoint: Mapping[str, Any], containers: tuple[str, ...]
) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a checkpoint and the name of the container that holds them.

    The name is None if the tensors are at the top level.

    Raises:
        ValueError: neither a container nor tensors alone at the top.
    """
    for name in containers:
        if isinstance(checkpoint.get(name), Mapping):
            return tensors_of(checkpoint[name], f"its {name!r}"), name
    return tensors_of(checkpoint, "it"), None


def tensors_of(container: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """Return the entries of a container.

    Raises:
        ValueError: an entry is not a tensor.
    """
    others = {
        name: type(value).__name__
        for name, value in container.items()
        if not isinstance(value, Tensor)
    }
    if others:
        listed = ", ".join(f"{name} ({kind})" for name, kind in list(others.items())[:_MAX_NAMES])
        raise ValueError(f"{what} holds more than tensors: {listed}")
    return dict(container)


def describe(tensors: Mapping[str, Any]) -> str:
    """Summarise tensors for an error message: counts by prefix, and shapes of single tensors."""
    counts = Counter(name.split(".")[0].split("/")[0] for name in tensors)
    parts = [
        f"{first} {tuple(tensors[first].shape)}"
        if isinstance(tensors.get(first), Tensor)
        else f"{first}... ({count})"
        for first, count in counts.most_common(_MAX_NAMES)
    ]
    more = f", and {len(counts) - _MAX_NAMES} more" if len(counts) > _MAX_NAMES else ""
    return f"{len(tensors)} entries: {', '.join(parts)}{more}"

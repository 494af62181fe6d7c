"""Resumable training states and trained models, as safetensors and JSON.

A training state is a folder of `state.safetensors` and `history.json`. It appears atomically, and
its hashes must match. It does not depend on the number of ranks, so that another number of ranks
can resume it. A model is a folder of `model.safetensors` and `config.json`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from arl.files import atomic_directory, read_json, sha256, write_json
from arl.model_config import (
    EncoderConfig,
    ModelConfig,
    TaskHead,
    TaskModelConfig,
    read_config,
)
from arl.models.encoder import Encoder, build_encoder
from arl.models.heads import Classifier
from arl.models.upernet import Segmenter
from arl.training import distributed

_KEEP = 2  # training states: one stays complete while the next is written
_STATE, _HISTORY, _FILES = "state.safetensors", "history.json", "files.json"


def _is_complete(folder: Path) -> bool:
    listing = folder / _FILES
    if not listing.is_file():
        return False
    return all(
        (folder / name).is_file() and sha256(folder / name) == digest
        for name, digest in read_json(listing).items()
    )


def latest(state: Path) -> Path | None:
    """Return the newest training state whose files are complete and unchanged."""
    folders = sorted(state.glob("step-*"), reverse=True)
    return next((folder for folder in folders if _is_complete(folder)), None)


def save(engine: Any, state: Path, history: list[dict[str, float]]) -> None:
    """Write a training state: weights, optimiser, buffers and history.

    If the process dies, the older states stay complete.
    """
    tensors = distributed.training_state(engine)
    if distributed.rank() == 0:
        with atomic_directory(state / f"step-{len(history):08d}") as partial:
            save_file(tensors, partial / _STATE)
            # Terms may be NaN or infinite, which `write_json` refuses.
            (partial / _HISTORY).write_text(json.dumps(history), encoding="utf-8")
            write_json(
                partial / _FILES, {name: sha256(partial / name) for name in (_STATE, _HISTORY)}
            )
        for old in sorted(state.glob("step-*"))[:-_KEEP]:
            shutil.rmtree(old)
    distributed.barrier()


def resume(engine: Any, state: Path) -> list[dict[str, float]]:
    """Load the newest complete training state into the engine.

    Returns:
        The history of the state; empty if there is no state.

    Raises:
        ValueError: the state belongs to another module.
    """
    folder = latest(state)
    if folder is None:
        return []
    try:
        distributed.load_training_state(engine, load_file(folder / _STATE))
    except RuntimeError as error:
        raise ValueError(
            f"{folder} is the state of another module: {' '.join(str(error).split())}"
        ) from error
    history: list[dict[str, float]] = read_json(folder / _HISTORY)
    return history


def save_model(
    folder: Path,
    module: nn.Module,
    config: ModelConfig,
    *,
    documents: Mapping[str, Any] | None = None,
    beside: Mapping[str, nn.Module] | None = None,
) -> None:
    """Write a model's weights and config atomically.

    Args:
        documents: further JSON files, by name.
        beside: further weights, by file name; a release leaves them out.
    """
    with atomic_directory(folder) as partial:
        for name, other in {"model.safetensors": module, **(beside or {})}.items():
            save_file(_weights(other), partial / name)
        write_json(partial / "config.json", config.to_json())
        for name, content in (documents or {}).items():
            write_json(partial / name, content)


def _weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()
    }


def _load_weights(folder: Path) -> dict[str, torch.Tensor]:
    file = folder / "model.safetensors"
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or not safetensors: {error}") from error


def load_strictly(module: nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Load the weights of a folder into a module.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{folder} does not fit its own config.json: {' '.join(str(error).split())}"
        ) from error


def load_encoder(folder: Path) -> tuple[Encoder, EncoderConfig]:
    """Load the encoder of a checkpoint folder, and its config.

    Raises:
        ValueError: the folder holds another kind of model, or weights of another architecture.
    """
    config = read_config(folder)
    if isinstance(config, TaskModelConfig):
        raise ValueError(f"{folder} holds the model of task {config.name!r}, expected an encoder")
    encoder = build_encoder(config.encoder)
    load_strictly(encoder, _load_weights(folder), folder)
    return encoder, config


def build_task_model(
    encoder: Encoder, task: TaskHead, upernet_channels: int
) -> Classifier | Segmenter:
    """Put the head of a task on an encoder."""
    if task.kind == "segmentation":
        return Segmenter(encoder, channels=upernet_channels)
    return Classifier(encoder, num_classes=len(task.classes))


def load_task_model(folder: Path) -> tuple[Classifier | Segmenter, TaskModelConfig]:
    """Load the fine-tuned model of a task, and its config.

    Raises:
        ValueError: the folder holds another kind of model, or weights of another architecture.
    """
    config = read_config(folder)
    if not isinstance(config, TaskModelConfig):
        raise ValueError(f"{folder} holds an encoder, expected the model of a task")
    encoder = build_encoder(config.encoder)
    model = build_task_model(encoder, config.task, config.upernet_channels)
    load_strictly(model, _load_weights(folder), folder)
    return model, config

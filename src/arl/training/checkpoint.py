"""Resumable training states, and the models that training leaves behind.

A folder of states holds, for one run:

    history.jsonl       one JSON object a step, only ever appended
    step-00000100/      state.safetensors and files.json, which appear together
    lock                held by the process that trains

`files.json` has the hash of the state and the length and hash of the history up to that step. A
state counts only while these fit. It knows nothing of ranks, so another number of them may resume
from it. A model is a folder of `model.safetensors` and `config.json`. Nothing is a pickle.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
    TaskModelConfig,
    read_config,
)
from arl.models.encoder import Encoder, build_encoder
from arl.training import distributed

_KEEP = 2  # training states kept, so that one is whole while the next is written
_STATE, _HISTORY, _FILES = "state.safetensors", "history.jsonl", "files.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Listing:
    """`files.json` of a training state."""

    state_sha256: str
    history_bytes: int
    history_sha256: str

    @classmethod
    def read(cls, folder: Path) -> "Listing":
        """Read the listing of a state.

        Raises:
            ValueError: the file is missing, is not JSON, or lacks a field.
        """
        file = folder / _FILES
        try:
            return cls(**read_json(file))
        except (OSError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error


def damage(folder: Path) -> str:
    """Say what is wrong with a training state; empty if it is whole."""
    try:
        listing = Listing.read(folder)
        if sha256(folder / _STATE) != listing.state_sha256:
            return f"{_STATE} does not have the hash that {_FILES} names"
        with (folder.parent / _HISTORY).open("rb") as stream:
            content = stream.read(listing.history_bytes)
    except (ValueError, OSError) as error:
        return str(error)
    if hashlib.sha256(content).hexdigest() != listing.history_sha256:
        return f"{_HISTORY} does not have the hash that {_FILES} names"
    return ""


def latest(folder: Path) -> Path | None:
    """Return the newest training state that is whole."""
    whole = (state for state in sorted(folder.glob("step-*"), reverse=True) if not damage(state))
    return next(whole, None)


class States:
    """The training states of one run, for the process that trains it; without a folder it keeps
    none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._records = 0  # of the history, in the file
        self._bytes = 0
        self._digest = hashlib.sha256()

    def newest(self) -> Path | None:
        """Return the newest state that is whole."""
        return latest(self._folder) if self._folder else None

    def resume(self, engine: Any) -> list[dict[str, float]]:
        """Load the newest whole state into the engine; its history, empty if there is no state.

        Raises:
            ValueError: all states are damaged, or the state is that of another module.
        """
        if self._folder is None:
            return []
        state = _whole_state(self._folder)
        if state is None:
            return []
        try:
            distributed.load_training_state(engine, load_file(state / _STATE))
        except RuntimeError as error:
            raise ValueError(
                f"{state} is the state of another module: {' '.join(str(error).split())}"
            ) from error
        text = (self._folder / _HISTORY).read_bytes()[: Listing.read(state).history_bytes]
        history: list[dict[str, float]] = [json.loads(line) for line in text.splitlines()]
        self._records, self._bytes, self._digest = len(history), len(text), hashlib.sha256(text)
        return history

    def save(self, engine: Any, history: list[dict[str, float]]) -> None:
        """Write a state: weights, optimiser, buffers and history. A kill leaves the older ones
        whole.

        Raises:
            OSError: the disk has no room; the message names the newest state.
        """
        if self._folder is None:
            return
        tensors = distributed.training_state(engine)
        if distributed.rank() == 0:
            self._write(self._folder, tensors, history)
        # No rank may go on while the state is written: a kill would leave ranks in two steps.
        distributed.barrier()

    def _write(
        self, folder: Path, tensors: dict[str, torch.Tensor], history: list[dict[str, float]]
    ) -> None:
        try:
            self._write_once(folder, tensors, history)
        except (OSError, SafetensorError) as error:
            if not _is_full(error):
                raise
            good = latest(folder)
            # Room for two states is usual, for three while one is written.
            for state in folder.glob("step-*"):
                if state != good:
                    shutil.rmtree(state)
            try:
                self._write_once(folder, tensors, history)
            except (OSError, SafetensorError) as again:
                size = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
                raise OSError(
                    errno.ENOSPC,
                    f"no room for the training state of step {len(history)} ({size:,.0f} MiB) in "
                    f"{folder}; the newest one is {good or 'none'}. Free some space, or set "
                    f"ARL_RUNS "
                    "to a folder on another disk and move the states there, and start again",
                ) from again
        for old in sorted(folder.glob("step-*"))[:-_KEEP]:
            shutil.rmtree(old)

    def _write_once(
        self, folder: Path, tensors: dict[str, torch.Tensor], history: list[dict[str, float]]
    ) -> None:
        self._append(folder / _HISTORY, history)
        with atomic_directory(folder / f"step-{len(history):08d}") as partial:
            save_file(tensors, partial / _STATE)
            digests = sha256(partial / _STATE), self._digest.hexdigest()
            listing = Listing(digests[0], self._bytes, digests[1])
            write_json(partial / _FILES, vars(listing))

    def _append(self, file: Path, history: list[dict[str, float]]) -> None:
        # a number that is not finite may stand in a record, so it is not strict JSON
        lines = "".join(f"{json.dumps(record)}\n" for record in history[self._records :]).encode()
        with file.open("ab") as stream:
            # What a killed run wrote after its last state goes. The resumed run writes it again,
            # and the file must have the length and the hash that the next state names.
            stream.truncate(self._bytes)
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
        self._digest.update(lines)
        self._records, self._bytes = len(history), self._bytes + len(lines)


@contextmanager
def states(folder: Path | None) -> Iterator[States]:
    """Give the training states in a folder to this process alone, all its ranks together.

    Raises:
        ValueError: another process trains in the folder.
    """
    if folder is None or distributed.rank() != 0:
        yield States(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise ValueError(
                f"{owner} trains this run now, in {folder}: wait for it, or stop it first"
            ) from error
        # The kernel frees the lock of a killed process, so a stale file needs no repair.
        lock.truncate(0)
        lock.write(f"process {os.getpid()} of {os.uname().nodename}")
        lock.flush()
        yield States(folder)


def _whole_state(folder: Path) -> Path | None:
    """Return the newest whole state and report the damaged ones; None if there are no states.

    Raises:
        ValueError: all are damaged.
    """
    problems: list[str] = []
    for state in sorted(folder.glob("step-*"), reverse=True):
        problem = damage(state)
        if not problem:
            if problems and distributed.rank() == 0:
                print(f"{'; '.join(problems)}; resuming from {state}", file=sys.stderr)
            return state
        problems.append(f"training state {state} is damaged ({problem})")
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; no state is whole. Restore one from a backup, or remove "
            f"{folder} to train from the start"
        )
    return None


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    # safetensors' Rust code reports errors of the disk by text only.
    return any(f"os error {number}" in str(error) for number in _FULL)


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


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read `model.safetensors` of a model folder.

    Raises:
        ValueError: the file is truncated or not safetensors.
    """
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
    load_strictly(encoder, load_weights(folder), folder)
    return encoder, config

"""Released models, in a folder.

    registry/versions/<version>/encoder/{model.safetensors, config.json}
                                tasks/<task>/{model.safetensors, config.json}
                                decision.json, metrics.json, model_card.md, ...
                                manifest.json      SHA-256 of every other file, provenance
    registry/champion.json                         the version in use and those before it
    registry/.lock                                 held while anything changes

A version is named by the content of its weights and configurations, so releasing the same models twice is one
release. A version appears whole and is never changed; the champion changes only by compare-and-swap.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from arl.files import atomic_directory, read_json, sha256, write_json

_MODEL_FILES = ("config.json", "model.safetensors")
_VERSION_DIGITS = 12
_CHAMPION = "champion.json"
_MANIFEST = "manifest.json"


def _models(encoder: Path, tasks: Mapping[str, Path]) -> dict[str, Path]:
    """Relative name in a version -> file, of all weights and configurations.

    Raises:
        FileNotFoundError: a folder lacks one of its two files.
        ValueError: there is no task, a task's name is no folder name, or weights are not safetensors.
    """
    if not tasks:
        raise ValueError("a release needs the model of at least one task")
    for name in tasks:
        if PurePosixPath(name).name != name or name.startswith("."):
            raise ValueError(f"task {name!r} cannot name a folder of the registry")
    folders = {"encoder": encoder, **{f"tasks/{name}": folder for name, folder in tasks.items()}}
    files = {f"{place}/{name}": folder / name for place, folder in folders.items() for name in _MODEL_FILES}
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: a model is a folder of {' and '.join(_MODEL_FILES)}")
        if file.suffix == ".safetensors":
            _check_weights(file)
    return files


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="numpy") as weights:
            if not weights.keys():
                raise ValueError(f"{file} holds no weights")
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or not safetensors, the only form weights have here: {error}") from error


def _name(hashes: Mapping[str, str]) -> str:
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:_VERSION_DIGITS]


def version_of(encoder: Path, tasks: Mapping[str, Path]) -> str:
    """The name that a release of these model folders has: the first 12 hex digits of a hash of their files.

    Raises:
        FileNotFoundError, ValueError: see `Registry.add_version`.
    """
    return _name({name: sha256(file) for name, file in _models(encoder, tasks).items()})


class Registry:
    """The versions below a folder, and which of them is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Wait until no other process is changing the registry; a killed one lets go by itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def version_folder(self, version: str) -> Path:
        """Where a version lies.

        Raises:
            ValueError: there is no such version.
        """
        folder = self.folder / "versions" / version
        if version not in self.versions():
            raise ValueError(f"registry {self.folder} has no version {version!r}; it has {self.versions()}")
        return folder

    def versions(self) -> list[str]:
        """All versions, sorted by name."""
        found = self.folder.glob(f"versions/*/{_MANIFEST}")
        return sorted(file.parent.name for file in found if not file.parent.name.startswith("."))

    def tasks(self, version: str) -> list[str]:
        """The tasks a version has a model for."""
        return sorted(path.name for path in (self.version_folder(version) / "tasks").iterdir())

    def task_folder(self, version: str, task: str) -> Path:
        """The model folder of a task."""
        return self.version_folder(version) / "tasks" / task

    def add_version(
        self, encoder: Path, tasks: Mapping[str, Path], *, documents: Mapping[str, str], provenance: Mapping[str, Any]
    ) -> str:
        """Copy model folders into a new version and return its name; a version that is there already stays as it is.

        Args:
            documents: file name -> text, kept beside the models.
            provenance: anything that JSON can hold, kept in manifest.json.

        Raises:
            FileNotFoundError: a model folder is incomplete.
            ValueError: weights that are not safetensors, no task, or the version is there and has been changed.
        """
        files = _models(encoder, tasks)
        version = _name({name: sha256(file) for name, file in files.items()})
        with self._lock():
            if version in self.versions():
                self.verify(version)
                return version
            with atomic_directory(self.folder / "versions" / version) as folder:
                for name, file in files.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, folder / name)
                for name, text in documents.items():
                    (folder / name).write_text(text, encoding="utf-8")
                hashes = _hashes(folder)
                if _name(_of_models(hashes)) != version:
                    raise ValueError(f"a model file changed while version {version} was being copied: release again")
                write_json(folder / _MANIFEST, {"version": version, "files": hashes, **provenance})
        return version

    def verify(self, version: str) -> None:
        """Hold every file of a version against its manifest, and its name against its models.

        Raises:
            ValueError: a file is changed, missing or added, or there is no such version.
        """
        folder = self.version_folder(version)
        listed, found = read_json(folder / _MANIFEST)["files"], _hashes(folder)
        for name in sorted(listed.keys() | found.keys()):
            if listed.get(name) != found.get(name):
                state = "missing" if name not in found else "not listed" if name not in listed else "changed"
                raise ValueError(f"{folder / name} is {state}: version {version} is not what was released")
        if _name(_of_models(found)) != version:
            raise ValueError(f"{folder} does not hold the models its name says: it was changed with its manifest")

    def champion(self) -> str | None:
        """The version in use; None before the first release.

        Raises:
            ValueError: the pointer names a version that is not there.
        """
        history = self._history()
        if not history:
            return None
        self.version_folder(history[-1])
        return history[-1]

    def _history(self) -> list[str]:
        """Versions in the order they were promoted, without those rolled back; the last one is in use."""
        pointer = self.folder / _CHAMPION
        return [str(version) for version in read_json(pointer)["history"]] if pointer.is_file() else []

    def _point(self, history: list[str]) -> None:
        write_json(self.folder / _CHAMPION, {"version": history[-1], "history": history})

    def promote(self, version: str, expected: str | None) -> None:
        """Make a version the champion if `expected` still is; promoting the champion changes nothing.

        Raises:
            ValueError: another version has become champion since, the version is not there, or it was changed.
        """
        with self._lock():
            self.verify(version)
            champion = self.champion()
            if champion == version:
                return
            if champion != expected:
                raise ValueError(
                    f"version {version} was judged against champion {expected or 'none'}, but {champion or 'none'} is "
                    f"champion of registry {self.folder} now: run the gate again"
                )
            self._point([*self._history(), version])

    def rollback(self) -> str:
        """Make the champion before this one the champion again, and return it.

        Raises:
            ValueError: there is none, or its files were changed.
        """
        with self._lock():
            history = self._history()[:-1]
            if not history:
                raise ValueError(f"registry {self.folder} has no earlier champion to go back to")
            self.verify(history[-1])
            self._point(history)
            return history[-1]


def _hashes(folder: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of every file but the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _of_models(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in hashes.items() if name.startswith(("encoder/", "tasks/"))}

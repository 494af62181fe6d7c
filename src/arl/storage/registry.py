"""Released models, in a folder or a bucket of any S3 store (s3://bucket/prefix).

    versions/<version>/encoder/{model.safetensors, config.json}
                       tasks/<task>/{model.safetensors, config.json}
                       decision.json, metrics.json, model_card.md, licences.json, sbom.json
                       manifest.json      SHA-256 of every other file, provenance
                       model.sig          signature of every other file, where the registry is signed
    champion                              the version in use and those before it

A version is named by the content of its weights and configurations, so releasing the same models
twice is one release. A version appears whole, is never changed and is verified before it is used;
the champion changes only by compare-and-swap. See `places` for where the files are.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from arl.files import read_json, sha256, write_json
from arl.storage.backends import MANIFEST, BucketPlace, FolderPlace, Place, Pointer
from arl.storage.s3 import is_address
from arl.storage.signing import SIGNATURE, Keys, check_signature, sign

_MODEL_FILES = ("config.json", "model.safetensors")
_VERSION_DIGITS = 12


def _models(encoder: Path, tasks: Mapping[str, Path]) -> dict[str, Path]:
    """Relative name in a version -> file, of all weights and configurations.

    Raises:
        FileNotFoundError: a folder lacks one of its two files.
        ValueError: there is no task, a task's name is no folder name, or weights are not
            safetensors.
    """
    if not tasks:
        raise ValueError("a release needs the model of at least one task")
    for name in tasks:
        if PurePosixPath(name).name != name or name.startswith("."):
            raise ValueError(f"task {name!r} cannot name a folder of the registry")
    folders = {"encoder": encoder, **{f"tasks/{name}": folder for name, folder in tasks.items()}}
    files = {
        f"{place}/{name}": folder / name
        for place, folder in folders.items()
        for name in _MODEL_FILES
    }
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} does not exist: a model is a folder of {' and '.join(_MODEL_FILES)}"
            )
        if file.suffix == ".safetensors":
            _check_weights(file)
    return files


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="numpy") as weights:
            if not weights.keys():
                raise ValueError(f"{file} holds no weights")
    except SafetensorError as error:
        raise ValueError(
            f"{file} is truncated or not safetensors, the only form weights have here: {error}"
        ) from error


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
    """The versions at an address, and which of them is in use.

    Every method may raise what the place raises: `OSError` of a folder, and of a bucket the errors
    of `s3.Store`.
    """

    def __init__(self, address: str | Path, keys: Keys | None) -> None:
        """`keys` sign and verify every version; None: the registry is unsigned, and hashes alone are checked."""
        text = str(address)
        self._place: Place = BucketPlace(text) if is_address(text) else FolderPlace(Path(address))
        self._keys = keys
        self.address = self._place.address

    def versions(self) -> list[str]:
        """All versions, sorted by name."""
        return self._place.versions()

    def _known(self, version: str) -> None:
        if version not in self.versions():
            raise ValueError(
                f"registry {self.address} has no version {version!r}; it has {self.versions()}"
            )

    def manifest(self, version: str) -> dict[str, Any]:
        """What manifest.json says of a version, not verified: to list, not to load.

        Raises:
            ValueError: there is no such version.
        """
        self._known(version)
        content: dict[str, Any] = json.loads(self._place.read(version, MANIFEST))
        return content

    def fetch(self, version: str) -> Path:
        """The local folder of a version, after its files were held against their hashes, its name and its signature.

        Raises:
            ValueError: a file is changed, missing or added, the signature does not hold, or there
                is no such version.
        """
        self._known(version)
        folder = self._place.fetch(version)
        try:
            self._check(version, folder)
        except ValueError:
            self._place.forget(version)
            raise
        return folder

    def _check(self, version: str, folder: Path) -> None:
        listed, found = read_json(folder / MANIFEST)["files"], _hashes(folder)
        for name in sorted(listed.keys() | found.keys()):
            if listed.get(name) != found.get(name):
                state = (
                    "missing"
                    if name not in found
                    else "not listed"
                    if name not in listed
                    else "changed"
                )
                raise ValueError(
                    f"{folder / name} is {state}: version {version} is not what was released"
                )
        if _name(_of_models(found)) != version:
            raise ValueError(
                f"{folder} does not hold the models its name says: it was changed with its manifest"
            )
        if self._keys is not None:
            check_signature(folder, self._keys)

    def add_version(
        self,
        encoder: Path,
        tasks: Mapping[str, Path],
        *,
        documents: Mapping[str, str],
        provenance: Mapping[str, Any],
    ) -> str:
        """Copy model folders into a new version and return its name; a version that is there already stays as it is.

        Args:
            documents: file name -> text, kept beside the models.
            provenance: anything that JSON can hold, kept in manifest.json.

        Raises:
            FileNotFoundError: a model folder is incomplete.
            ValueError: weights that are not safetensors, no task, no key to sign with, or the
                version is there and
                has been changed.
        """
        files = _models(encoder, tasks)
        version = _name({name: sha256(file) for name, file in files.items()})
        if version not in self.versions():
            # FileExistsError: another run released the same models in the meantime
            with suppress(FileExistsError), self._place.new(version) as folder:
                self._assemble(version, folder, files, documents, provenance)
        self.fetch(version)
        return version

    def _assemble(
        self,
        version: str,
        folder: Path,
        files: Mapping[str, Path],
        documents: Mapping[str, str],
        provenance: Mapping[str, Any],
    ) -> None:
        """Write all files of a version into a folder."""
        for name, file in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        for name, text in documents.items():
            (folder / name).write_text(text, encoding="utf-8")
        hashes = _hashes(folder)
        if _name(_of_models(hashes)) != version:
            raise ValueError(
                f"a model file changed while version {version} was being copied: release again"
            )
        write_json(folder / MANIFEST, {"version": version, "files": hashes, **provenance})
        if self._keys is not None:
            sign(folder, self._keys)

    def champion(self) -> str | None:
        """The version in use; None before the first release.

        Raises:
            ValueError: the pointer names a version that is not there.
        """
        history = _history(self._place.pointer())
        if not history:
            return None
        self._known(history[-1])
        return history[-1]

    def promote(self, version: str, expected: str | None) -> None:
        """Make a version the champion if `expected` still is; promoting the champion changes nothing.

        Raises:
            ValueError: another version has become champion since, the version is not there, or it
                was changed.
        """
        self.fetch(version)
        pointer = self._place.pointer()
        history = _history(pointer)
        champion = history[-1] if history else None
        if champion == version:
            return
        if champion != expected:
            raise ValueError(
                f"version {version} was judged against champion {expected or 'none'}, but {champion or 'none'} is "
                f"champion of registry {self.address} now: run the gate again"
            )
        self._move([*history, version], pointer)

    def _move(self, history: list[str], seen: Pointer | None) -> None:
        try:
            self._place.move({"version": history[-1], "history": history}, seen)
        except FileExistsError as error:
            raise ValueError(
                f"another run changed the champion of registry {self.address} at the same moment, to "
                f"{self.champion()}, so {history[-1]} did not become champion: run the gate again"
            ) from error

    def rollback(self) -> str:
        """Make the champion before this one the champion again, and return it.

        Raises:
            ValueError: there is none, its files were changed, or another run moved the champion at
                the same moment.
        """
        pointer = self._place.pointer()
        history = _history(pointer)[:-1]
        if not history:
            raise ValueError(f"registry {self.address} has no earlier champion to go back to")
        self.fetch(history[-1])
        self._move(history, pointer)
        return history[-1]


def tasks_of(version: Path) -> dict[str, Path]:
    """Task -> model folder in the local folder of a version."""
    return {path.name: path for path in sorted((version / "tasks").iterdir())}


def _history(pointer: Pointer | None) -> list[str]:
    """Versions in the order they were promoted, without those rolled back; the last one is in use."""
    return [str(version) for version in pointer.content["history"]] if pointer else []


def _hashes(folder: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of every file but the manifest and the signature."""
    rest = {folder / MANIFEST, folder / SIGNATURE}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in rest)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _of_models(hashes: Mapping[str, str]) -> dict[str, str]:
    return {
        name: digest for name, digest in hashes.items() if name.startswith(("encoder/", "tasks/"))
    }

"""Released models, in a folder or a bucket of any S3 store (s3://bucket/prefix).

    versions/<version>/encoder/{model.safetensors, config.json}
                       tasks/<task>/{model.safetensors, config.json, input_check.safetensors}
                       decision.json, metrics.json, params.json, model_card.md, licences.json,
                       sbom.json
                       manifest.json      SHA-256 of every other file, provenance
                       model.sig          signature of every other file, where the registry is
                       signed
    signatures/<version>/<key>.sig        further signatures, after a rotation of keys
    champion                              the version in use and those before it, signed

A version is named by the content of its weights and configurations: the same models released twice
are one release. A version appears whole, is never changed, and is verified before use. The champion
changes only by compare-and-swap. `backends` stores the files.

The champion pointer is numbered, dated and signed. A machine that has read a pointer of a signed
registry refuses one with a lower number, so that whoever can write to the store cannot bring back
an older pointer.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from arl.files import read_json, sha256, write_json
from arl.storage.backends import MANIFEST, Backend, BucketBackend, FolderBackend, Pointer, cache
from arl.storage.metadata import Bar, ChampionPointer, PointerAction, Provenance, VersionManifest
from arl.storage.s3 import is_address
from arl.storage.signing import (
    SIGNATURE,
    Keys,
    SignatureError,
    payload_of,
    sign_document,
    sign_folder,
    signing_key_id,
    verify_document,
    verify_folder,
)

POINTER_TYPE = "application/vnd.arl.champion+json"
_MODEL_FILES = ("config.json", "model.safetensors")
_INPUT_CHECK = "input_check.safetensors"  # of task models; imported ones have none
_VERSION_DIGITS = 12


@dataclass(frozen=True)
class Verification:
    """The checks that a version passed.

    Attributes:
        files: number of files whose SHA-256 is that of the manifest.
        key: id of the key whose signature holds; None in an unsigned registry.
    """

    version: str
    folder: Path
    files: int
    key: str | None


def _model_files(encoder: Path, tasks: Mapping[str, Path]) -> dict[str, Path]:
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
        f"{prefix}/{name}": folder / name
        for prefix, folder in folders.items()
        for name in _MODEL_FILES
    }
    for prefix, folder in folders.items():
        if (folder / _INPUT_CHECK).is_file():
            files[f"{prefix}/{_INPUT_CHECK}"] = folder / _INPUT_CHECK
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
    """The name of a release of these model folders: 12 hex digits of a hash of their files.

    Raises:
        FileNotFoundError, ValueError: see `Registry.add_version`.
    """
    return _name({name: sha256(file) for name, file in _model_files(encoder, tasks).items()})


class Registry:
    """The versions at an address, and the champion among them.

    Every method may raise what the backend raises: `OSError` of a folder, and of a bucket the
    errors of `s3.Store`.
    """

    def __init__(self, address: str | Path, keys: Keys | None) -> None:
        """`keys` sign and verify versions and pointer; None: the registry is unsigned."""
        text = str(address)
        self._backend: Backend = (
            BucketBackend(text) if is_address(text) else FolderBackend(Path(address))
        )
        self._keys = keys
        self.address = self._backend.address

    def versions(self) -> list[str]:
        """All versions, sorted by name."""
        return self._backend.versions()

    def _require(self, version: str) -> None:
        if version not in self.versions():
            raise ValueError(
                f"registry {self.address} has no version {version!r}; it has {self.versions()}"
            )

    def manifest(self, version: str) -> VersionManifest:
        """The manifest of a version, not verified: to list, not to load.

        Raises:
            ValueError: there is no such version.
        """
        self._require(version)
        content = json.loads(self._backend.read(version, MANIFEST))
        return VersionManifest.from_json(content, f"{MANIFEST} of version {version}")

    def fetch(self, version: str) -> Path:
        """The local folder of a version, after `verify`.

        Raises:
            ValueError: see `verify`.
        """
        return self.verify(version).folder

    def verify(self, version: str) -> Verification:
        """Check the files of a version against its manifest, its name and its signatures.

        Raises:
            ValueError: a file is changed, missing or added, no signature holds, or there is no such
                version.
        """
        self._require(version)
        folder = self._backend.fetch(version)
        try:
            return self._verify(version, folder)
        except ValueError:
            self._backend.discard_copy(version)
            raise

    def _verify(self, version: str, folder: Path) -> Verification:
        listed = VersionManifest.read(folder / MANIFEST).files
        actual = _hashes(folder)
        for name in sorted(listed.keys() | actual.keys()):
            if listed.get(name) != actual.get(name):
                state = (
                    "missing"
                    if name not in actual
                    else "not listed"
                    if name not in listed
                    else "changed"
                )
                raise ValueError(
                    f"{folder / name} is {state}: version {version} is not what was released"
                )
        # A forger may rewrite the manifest with the files. The name is a hash of the models, and
        # stands in the signed pointer.
        if _name(_hashes_of_models(actual)) != version:
            raise ValueError(
                f"{folder} does not hold the models its name says: it was changed with its manifest"
            )
        key = None
        if self._keys is not None:
            key = verify_folder(folder, self._keys, self._backend.signatures(version))
        return Verification(version, folder, len(actual), key)

    def add_version(
        self,
        encoder: Path,
        tasks: Mapping[str, Path],
        *,
        documents: Mapping[str, str],
        provenance: Provenance,
    ) -> str:
        """Copy model folders into a new version and return its name; an existing one stays.

        Args:
            encoder: model folder of the encoder.
            tasks: task -> model folder.
            documents: file name -> text, kept beside the models.
            provenance: kept in manifest.json.

        Raises:
            FileNotFoundError: a model folder is incomplete.
            ValueError: weights that are not safetensors, no task, no key to sign with, or an
                existing version that was changed.
        """
        files = _model_files(encoder, tasks)
        version = _name({name: sha256(file) for name, file in files.items()})
        if version not in self.versions():
            # FileExistsError: another run released the same models in the meantime.
            with suppress(FileExistsError), self._backend.new(version) as folder:
                self._assemble(version, folder, files, documents, provenance)
        self.fetch(version)
        return version

    def _assemble(
        self,
        version: str,
        folder: Path,
        files: Mapping[str, Path],
        documents: Mapping[str, str],
        provenance: Provenance,
    ) -> None:
        """Write all files of a version into a folder."""
        for name, file in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        for name, text in documents.items():
            (folder / name).write_text(text, encoding="utf-8")
        hashes = _hashes(folder)
        # A training that still writes would release a mixture of two models.
        if _name(_hashes_of_models(hashes)) != version:
            raise ValueError(
                f"a model file changed while version {version} was being copied: release again"
            )
        VersionManifest(version, hashes, provenance).write(folder / MANIFEST)
        if self._keys is not None:
            sign_folder(folder, self._keys)

    def sign(self, version: str) -> str:
        """Add a signature by the current key to a version; return the id of the key.

        The files are checked against the manifest and the version's name, not against a signature:
        its key may be revoked. Whoever signs vouches for the version.

        Raises:
            ValueError: the registry is unsigned, there is no private key, or a file was changed.
        """
        if self._keys is None:
            raise ValueError("an unsigned registry has no signatures: set release.signed=true")
        self._require(version)
        folder = self._backend.fetch(version)
        # Without keys, as the old signature may be of a revoked one.
        Registry(self.address, None)._verify(version, folder)
        key = signing_key_id(self._keys)
        with tempfile.TemporaryDirectory(prefix="arl-sign-") as name:
            signature = Path(name, SIGNATURE)
            sign_folder(folder, self._keys, signature)
            self._backend.add_signature(version, key, signature)
        return key

    def pointer(self) -> ChampionPointer | None:
        """The champion pointer, after a check of its signature and its number.

        Raises:
            ValueError: it is damaged, is not signed by a trusted key, or has a lower number than
                one that this machine has read.
        """
        return self._read_pointer(self._backend.pointer())

    def _read_pointer(self, stored: Pointer | None) -> ChampionPointer | None:
        if stored is None:
            self._check_number(None)
            return None
        origin = f"the champion pointer of registry {self.address}"
        # A registry that is read without keys may still hold a signed pointer.
        is_signed = isinstance(stored.content, dict) and "payload" in stored.content
        if self._keys is not None:
            if not is_signed:
                raise SignatureError(
                    f"{origin} is not signed, and the registry is (release.signed)"
                )
            payload, _ = verify_document(stored.content, POINTER_TYPE, self._keys, origin)
            content = json.loads(payload)
        else:
            content = (
                json.loads(payload_of(stored.content, origin)) if is_signed else stored.content
            )
        pointer = ChampionPointer.from_json(content, origin)
        if pointer.history[-1:] != [pointer.version]:
            raise ValueError(f"{origin} contradicts itself: its version is not its latest")
        self._check_number(pointer)
        return pointer

    def _check_number(self, pointer: ChampionPointer | None) -> None:
        """Refuse a pointer that is older than one that this machine has read."""
        if self._keys is None:
            return
        # The highest number lies on this machine, where a forger of the store cannot lower it.
        file = self._highest_file()
        highest = int(read_json(file)["number"]) if file.is_file() else 0
        number = pointer.number if pointer else 0
        if number < highest:
            raise SignatureError(
                f"the champion pointer of registry {self.address} has number {number}, and this "
                f"machine has read number {highest}: someone brought back an older one. If the "
                f"registry was made anew, remove {file}"
            )
        if pointer is not None and number > highest:
            write_json(file, {"number": number, "registry": self.address})

    def _highest_file(self) -> Path:
        """The number of the newest pointer that this machine has read."""
        address = self.address if is_address(self.address) else str(Path(self.address).resolve())
        digest = hashlib.sha256(address.encode()).hexdigest()
        return cache() / "pointers" / f"{digest[:32]}.json"

    def champion(self) -> str | None:
        """The version in use; None before the first release.

        Raises:
            ValueError: the pointer names a missing version, or see `pointer`.
        """
        pointer = self.pointer()
        if pointer is None:
            return None
        self._require(pointer.version)
        return pointer.version

    def history(self) -> list[str]:
        """Versions in the order of their promotion, without those rolled back."""
        pointer = self.pointer()
        return list(pointer.history) if pointer else []

    def promote(self, version: str, expected: str | None, person: str = "") -> None:
        """Make a version the champion if `expected` still is; the champion itself stays as it is.

        Raises:
            ValueError: another version has become champion since, the version is missing, was
                changed, or was rolled back before.
        """
        self.fetch(version)
        stored = self._backend.pointer()
        pointer = self._read_pointer(stored)
        champion = pointer.version if pointer else None
        # The same models released twice are one release.
        if champion == version:
            return
        if champion != expected:
            raise ValueError(
                f"version {version} was judged against champion {expected or 'none'}, but "
                f"{champion or 'none'} is champion of registry {self.address} now: "
                "run the gate again"
            )
        for bar in pointer.barred if pointer else []:
            if bar.version == version:
                raise ValueError(
                    f"version {version} was rolled back by {bar.person} at {bar.at} "
                    f"({bar.reason}) and cannot be promoted again: train another model"
                )
        history = [*(pointer.history if pointer else []), version]
        self._move("promote", history, stored, pointer, person=person)

    def _move(
        self,
        action: PointerAction,
        history: list[str],
        stored: Pointer | None,
        pointer: ChampionPointer | None,
        *,
        person: str = "",
        reason: str = "",
        bar: bool = False,
    ) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        barred = list(pointer.barred) if pointer else []
        if bar and pointer is not None:
            barred.append(Bar(pointer.version, at, person, reason))
        moved = ChampionPointer(
            number=pointer.number + 1 if pointer else 1,
            at=at,
            action=action,
            version=history[-1],
            history=history,
            # Chains the pointers, so that a removed one leaves a gap.
            previous=_digest(stored.content) if stored else "",
            person=person,
            reason=reason,
            barred=barred,
        )
        content: dict[str, Any] = dict(moved.to_json())
        if self._keys is not None:
            content = sign_document(moved.to_text().encode(), POINTER_TYPE, self._keys)
        try:
            self._backend.move(content, stored)
        except FileExistsError as error:
            raise ValueError(
                f"another run changed the champion of registry {self.address} at the same moment, "
                f"to {self.champion()}, so {history[-1]} did not become champion: "
                "run the gate again"
            ) from error
        self._check_number(moved)

    def rollback(self, person: str, reason: str) -> str:
        """Make the champion before this one the champion again, and return it.

        The version that is left is barred: it is never promoted again.

        Raises:
            ValueError: there is no earlier champion, its files were changed, no person or reason is
                named, or another run moved the champion at the same moment.
        """
        if not person.strip() or not reason.strip():
            raise ValueError("a rollback needs the name of a person and a reason")
        stored = self._backend.pointer()
        pointer = self._read_pointer(stored)
        history = pointer.history[:-1] if pointer else []
        if not history:
            raise ValueError(f"registry {self.address} has no earlier champion to go back to")
        # Verified first: a rollback to a damaged version would leave no usable champion.
        self.fetch(history[-1])
        self._move("rollback", history, stored, pointer, person=person, reason=reason, bar=True)
        return history[-1]

    def sign_pointer(self, person: str, reason: str) -> ChampionPointer | None:
        """Sign the pointer again with the current key, whatever key signed it; None without one.

        Raises:
            ValueError: the registry is unsigned, or there is no private key.
        """
        if self._keys is None:
            raise ValueError("an unsigned registry has no signatures: set release.signed=true")
        stored = self._backend.pointer()
        pointer = Registry(self.address, None)._read_pointer(stored)
        if pointer is None:
            return None
        self._move("sign", pointer.history, stored, pointer, person=person, reason=reason)
        return replace(pointer, number=pointer.number + 1)


def tasks_of(version: Path) -> dict[str, Path]:
    """Task -> model folder in the local folder of a version."""
    return {path.name: path for path in sorted((version / "tasks").iterdir())}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of every file but the manifest and the signature."""
    excluded = {folder / MANIFEST, folder / SIGNATURE}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in excluded)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _hashes_of_models(hashes: Mapping[str, str]) -> dict[str, str]:
    return {
        name: digest for name, digest in hashes.items() if name.startswith(("encoder/", "tasks/"))
    }

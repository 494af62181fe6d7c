"""Storage of a registry's versions: a folder, or a bucket of any S3 store, with the same promises.

A version appears whole or not at all, and is never changed. Signatures are added beside it. The
champion pointer is a small JSON text that moves only by compare-and-swap: of two writers that read
the same value, one moves it and the other gets a `FileExistsError`.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from arl.files import atomic_directory, atomic_file, read_json, write_json
from arl.storage.s3 import Listed, Revision, Store

MANIFEST = "manifest.json"  # of every version
_CHAMPION = "champion.json"
# Object that a version has once all of its files are there; holds the name of their folder.
_COMPLETE = "upload"
_SIGNATURE_SUFFIX = ".sig"
_ABANDONED = timedelta(days=7)  # an upload without a write for this long was killed


@dataclass(frozen=True)
class Pointer:
    """The champion pointer as it was read."""

    content: Any  # JSON
    revision: Revision | None = None  # in a bucket


class Backend(Protocol):
    """The storage operations of a registry."""

    address: str

    def versions(self) -> list[str]:
        """Complete versions, sorted by name."""

    def read(self, version: str, name: str) -> bytes:
        """A small file of a complete version, not verified."""

    def new(self, version: str) -> AbstractContextManager[Path]:
        """Yield an empty folder that becomes the version when the block ends without an error.

        Raises:
            FileExistsError: another writer was first.
        """

    def fetch(self, version: str) -> Path:
        """A local folder with the files of a complete version, not verified."""

    def discard_copy(self, version: str) -> None:
        """Remove a copy that `fetch` made and that proved wrong."""

    def signatures(self, version: str) -> dict[str, Path]:
        """Key id -> local file of every signature that was added to a version."""

    def add_signature(self, version: str, key: str, signature: Path) -> None:
        """Keep a further signature of a version; one of the same key stays as it is."""

    def pointer(self) -> Pointer | None:
        """The champion pointer; None before the first promotion."""

    def move(self, content: Any, after: Pointer | None) -> None:
        """Replace the pointer where it is still the one that was read.

        Raises:
            FileExistsError: another writer has moved it since.
        """


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the folder's lock; a killed one lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class FolderBackend:
    """versions/<version>/..., signatures/<version>/..., champion.json and .lock below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def versions(self) -> list[str]:
        """The folders that no process is writing."""
        # A folder without a manifest is a copy that a killed process left.
        entries = self.folder.glob(f"versions/*/{MANIFEST}")
        return sorted(file.parent.name for file in entries if not file.parent.name.startswith("."))

    def read(self, version: str, name: str) -> bytes:
        """The bytes of the file."""
        return (self.folder / "versions" / version / name).read_bytes()

    @contextmanager
    def new(self, version: str) -> Iterator[Path]:
        """Written beside its place, then renamed, under the lock."""
        target = self.folder / "versions" / version
        with locked(self.folder):
            if (target / MANIFEST).exists():
                raise FileExistsError(f"{target} is there already, and is written only once")
            with atomic_directory(target) as partial:
                yield partial

    def fetch(self, version: str) -> Path:
        """The folder itself."""
        return self.folder / "versions" / version

    def discard_copy(self, version: str) -> None:
        """There is no copy."""

    def signatures(self, version: str) -> dict[str, Path]:
        """The files of signatures/<version>/."""
        entries = sorted((self.folder / "signatures" / version).glob(f"*{_SIGNATURE_SUFFIX}"))
        return {path.name.removesuffix(_SIGNATURE_SUFFIX): path for path in entries}

    def add_signature(self, version: str, key: str, signature: Path) -> None:
        """Copy the file, under the lock."""
        target = self.folder / "signatures" / version / f"{key}{_SIGNATURE_SUFFIX}"
        with locked(self.folder):
            if not target.exists():
                with atomic_file(target) as partial:
                    shutil.copyfile(signature, partial)

    def pointer(self) -> Pointer | None:
        """What champion.json holds."""
        file = self.folder / _CHAMPION
        return Pointer(read_json(file)) if file.is_file() else None

    def move(self, content: Any, after: Pointer | None) -> None:
        """Compare and replace the file, under the lock."""
        with locked(self.folder):
            # Read again under the lock: another process may have moved it since the caller read it.
            if self.pointer() != after:
                raise FileExistsError(f"{self.folder / _CHAMPION} was moved by another writer")
            write_json(self.folder / _CHAMPION, content)


class BucketBackend:
    """Objects below s3://bucket/prefix.

    versions/<version>/<upload>/...   the files, of each attempt in a folder of its own
    versions/<version>/upload         the attempt that counts, written once and last
    signatures/<version>/...          further signatures, one per key
    champion/00000001, ...            the pointer, a row of objects that are written once; the last
    one counts
    """

    def __init__(self, address: str) -> None:
        self._store = Store(address)
        self.address = self._store.address

    def versions(self) -> list[str]:
        """Those whose last object is there."""
        keys = [item.key.split("/") for item in self._store.objects("versions/")]
        return [key[1] for key in keys if key[2:] == [_COMPLETE]]

    def _files_of(self, version: str) -> str:
        return f"versions/{version}/{self._store.get(f'versions/{version}/{_COMPLETE}').decode()}/"

    def read(self, version: str, name: str) -> bytes:
        """The bytes of the object."""
        return self._store.get(self._files_of(version) + name)

    @contextmanager
    def new(self, version: str) -> Iterator[Path]:
        """Written to a temporary folder ($TMPDIR), then uploaded.

        An attempt that fails is removed at once, and one that was killed after a week, by the next
        one that succeeds.
        """
        with tempfile.TemporaryDirectory(prefix="arl-release-") as name:
            yield Path(name)
            self._upload(version, Path(name))
        with suppress(OSError):  # the version is there
            self._prune()

    def _upload(self, version: str, folder: Path) -> None:
        """Upload the files, compare their sizes, and write the object that makes them a version."""
        self._store.check_create_once()
        upload = uuid4().hex
        prefix = f"versions/{version}/{upload}/"
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        try:
            for name, path in files.items():
                self._store.upload(prefix + name, path)
            # Some stores accept a cut upload without an error.
            self._check_sizes(prefix, {name: path.stat().st_size for name, path in files.items()})
            self._store.put_if_absent(f"versions/{version}/{_COMPLETE}", upload.encode())
        except OSError:
            self._remove(prefix)
            raise

    def _check_sizes(self, prefix: str, sizes: dict[str, int]) -> None:
        entries = {item.key.removeprefix(prefix): item.size for item in self._store.objects(prefix)}
        for name, size in sizes.items():
            if entries.get(name) != size:
                raise OSError(
                    f"{self.address}/{prefix}{name} has {entries.get(name)} of {size} bytes: "
                    "upload again"
                )

    def _remove(self, prefix: str) -> None:
        """Remove what the store lets us; an object that stays belongs to no version."""
        with suppress(OSError):
            for item in self._store.objects(prefix):
                self._store.remove(item.key)

    def _prune(self) -> None:
        """Remove attempts that are no version and will not become one."""
        attempts: dict[tuple[str, str], list[Listed]] = {}
        for item in self._store.objects("versions/"):
            _, version, attempt, *rest = item.key.split("/")
            if rest:
                attempts.setdefault((version, attempt), []).append(item)
        for (version, attempt), items in attempts.items():
            silent = datetime.now(UTC) - max(item.modified for item in items)
            # An upload of another process may still be under way, so only old ones are removed.
            if silent >= _ABANDONED and self._attempt_of(version) != attempt:
                self._remove(f"versions/{version}/{attempt}/")

    def _attempt_of(self, version: str) -> str | None:
        """The upload that counts, None where no attempt was finished."""
        try:
            return self._store.get(f"versions/{version}/{_COMPLETE}").decode()
        except FileNotFoundError:
            return None

    def fetch(self, version: str) -> Path:
        """Download into the user's cache, where a version is not there yet; $ARL_CACHE moves the
        cache.

        The registry verifies the copy: a download of another length, or a change in the cache, is
        an error there.
        """
        prefix, target = self._copy(version)
        with locked(target.parent):
            if not target.exists():
                with atomic_directory(target) as partial:
                    for item in self._store.objects(prefix):
                        self._store.download(
                            item.key, _inside(partial, item.key.removeprefix(prefix))
                        )
        return target

    def _copy(self, version: str) -> tuple[str, Path]:
        """Prefix of a version's files in the bucket, and their folder in the cache."""
        prefix = self._files_of(version)
        upload = prefix.split("/")[2]
        return prefix, cache() / "registry" / self.address.removeprefix("s3://").replace(
            "/", "-"
        ) / f"{version}-{upload}"

    def signatures(self, version: str) -> dict[str, Path]:
        """The objects of signatures/<version>/, downloaded into the cache."""
        _, target = self._copy(version)
        folder = target.with_name(f"{target.name}-signatures")
        entries = {}
        for item in self._store.objects(f"signatures/{version}/"):
            name = item.key.rsplit("/", 1)[1]
            self._store.download(item.key, _inside(folder, name))
            entries[name.removesuffix(_SIGNATURE_SUFFIX)] = folder / name
        return entries

    def add_signature(self, version: str, key: str, signature: Path) -> None:
        """Write the object, once."""
        with suppress(FileExistsError):
            self._store.put_if_absent(
                f"signatures/{version}/{key}{_SIGNATURE_SUFFIX}", signature.read_bytes()
            )

    def discard_copy(self, version: str) -> None:
        """Remove it from the cache."""
        target = self._copy(version)[1]
        with locked(target.parent):
            shutil.rmtree(target, ignore_errors=True)

    def pointer(self) -> Pointer | None:
        """The newest revision."""
        revision = self._store.pointer("champion")
        return Pointer(json.loads(revision.data), revision) if revision else None

    def move(self, content: Any, after: Pointer | None) -> None:
        """Write the next revision, if nobody has."""
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        self._store.move("champion", text.encode(), after.revision if after else None)


def _inside(folder: Path, name: str) -> Path:
    """A file below a folder, whatever a key says.

    Raises:
        ValueError: the name leads out of it.
    """
    path = folder / name
    # A key of the store is not trusted: `../` in it would write outside of the cache.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"an object of the registry is named {name!r}, which leads out of its version"
        )
    return path


def cache() -> Path:
    """The folder for copies of objects of a store: $ARL_CACHE, or the user's cache folder."""
    chosen = os.environ.get("ARL_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "arl"

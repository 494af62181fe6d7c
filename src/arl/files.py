"""Files that are either whole or absent, and content hashes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20  # bytes read at a time when hashing


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an error.

    An interrupted or failed block leaves whatever was at `path` untouched.
    """
    partial = _partial(path)
    _remove(partial)
    # A name beside the target is on the same file system, so the rename is atomic.
    partial.mkdir(parents=True)
    try:
        yield partial
        # A rename may reach the disk before the contents do. Then a power cut leaves empty files.
        for file in partial.rglob("*"):
            if file.is_file() or file.is_dir():
                _fsync(file)
        _fsync(partial)
        # rename() replaces no folder that has files.
        _remove(path)
        partial.rename(path)
        # without this, a power cut could undo the rename
        _fsync(path.parent)
    finally:
        _remove(partial)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a file name beside `path` that replaces it when the block ends without an error."""
    partial = _partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _fsync(partial)
        partial.replace(path)
        _fsync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (a NaN is a `ValueError`), atomically, with sorted keys."""
    # NaN is no JSON: other readers fail on it, or read it as null.
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; a `ValueError` names a file that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_hash(root: Path, pattern: str = "*") -> str:
    """Hex SHA-256 over the sorted relative names and contents of the files under `root`."""
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob(pattern) if p.is_file()):
        # The zero byte separates name and hash, so no two trees give the same text.
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()

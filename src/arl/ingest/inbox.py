"""Batches that arrive in a folder or an S3 store, and which of them are complete.

    <inbox>/<site>/<batch>/...         the files of a batch, in any folders
                   <batch>.complete    beside it, written last by whoever sends it: empty, or the number of files

A sender that writes no marker can be served in a folder, not in S3: a batch is complete as well
once nothing in it has changed for a while. That goes by the time of the last change of the inodes,
which no copying tool sets back. Nothing here ever writes into an inbox.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from arl.files import atomic_directory
from arl.progress import progress
from arl.storage.s3 import Store, is_address

MARKER = ".complete"
_SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Drop:
    """One batch in an inbox."""

    name: str  # "<site>/<batch>"
    files: int
    size: int  # bytes
    fingerprint: str  # of its name, its files' names, sizes and, in a folder, times: whether it has changed, unread
    waiting_for: str = ""  # why it is not complete; empty: it is

    @property
    def site(self) -> str:
        return self.name.partition("/")[0]


def look(inbox: str, quiet: float, now: float) -> list[Drop]:
    """Every batch of an inbox, in the order of their names.

    Args:
        inbox: a folder, or s3://bucket/prefix.
        quiet: seconds without a change after which a batch of a folder needs no marker; 0: it
            always does.
        now: seconds since the epoch.

    Raises:
        FileNotFoundError: there is no such folder or bucket.
        OSError: it cannot be read; see `arl.storage.s3.Store` for what S3 raises.
    """
    if is_address(inbox):
        return _look_in_store(Store(inbox))
    root = Path(inbox)
    if not root.is_dir():
        raise FileNotFoundError(
            f"inbox {inbox} is not a folder; an inbox is a folder or s3://bucket/prefix"
        )
    return [
        _drop_in_folder(site.name, batch, quiet, now)
        for site in _folders(root)
        for batch in _folders(site)
        if not batch.name.startswith(".")
    ]


def _folders(root: Path) -> list[Path]:
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _drop_in_folder(site: str, batch: Path, quiet: float, now: float) -> Drop:
    marker = batch.with_name(batch.name + MARKER)
    claim = (
        marker.read_text(encoding="utf-8", errors="replace").strip() if marker.is_file() else None
    )
    entries = sorted(_entries(batch))
    changed = max((changed for *_, changed in entries), default=batch.stat().st_ctime)
    settled = bool(quiet) and now - changed >= quiet
    text = "".join(f"{name}\0{size}\0{time}\n" for name, size, time, _ in entries)
    return _drop(site, batch.name, [size for _, size, *_ in entries], text, claim, settled)


def _entries(batch: Path) -> Iterator[tuple[str, int, int, float]]:
    """Relative name, bytes, time of the content in ns and time of the last change in s of every file."""
    for folder, _, names in os.walk(batch):
        for name in names:
            file = Path(folder, name)
            about = file.stat()
            yield (
                file.relative_to(batch).as_posix(),
                about.st_size,
                about.st_mtime_ns,
                about.st_ctime,
            )


def _look_in_store(store: Store) -> list[Drop]:
    objects = {item.key: item.size for item in store.objects()}
    batches: dict[tuple[str, str], dict[str, int]] = {}
    for key, size in objects.items():
        site, _, rest = key.partition("/")
        batch, slash, name = rest.partition("/")
        if slash and name:
            batches.setdefault((site, batch), {})[name] = size
    return [
        _drop_in_store(store, objects, *place, files) for place, files in sorted(batches.items())
    ]


def _drop_in_store(
    store: Store, objects: dict[str, int], site: str, batch: str, files: dict[str, int]
) -> Drop:
    marker = f"{site}/{batch}{MARKER}"
    claim = store.get(marker).decode("utf-8", "replace").strip() if marker in objects else None
    text = "".join(f"{name}\0{size}\n" for name, size in sorted(files.items()))
    return _drop(site, batch, files.values(), text, claim, settled=False)


def _drop(
    site: str, batch: str, sizes: Iterable[int], text: str, claim: str | None, settled: bool
) -> Drop:
    """`claim`: what the marker says, None where there is none; `text`: what the fingerprint is made of."""
    sizes = list(sizes)
    fingerprint = hashlib.sha256(
        f"{site}/{batch}\n{text}".encode("utf-8", "surrogateescape")
    ).hexdigest()
    missing = _missing(site, batch, len(sizes), claim, settled)
    return Drop(f"{site}/{batch}", len(sizes), sum(sizes), fingerprint, missing)


def _missing(site: str, batch: str, files: int, claim: str | None, settled: bool) -> str:
    if not _SITE.fullmatch(site):
        return f"a name of its site: {site!r} is not a short name of lower-case letters, digits and dashes"
    if not files:
        return "its files: there is none"
    if claim is None:
        return "" if settled else f"the marker {batch}{MARKER}, which its sender writes last"
    if claim and not claim.isdigit():
        return f"a marker that is empty or the number of its files, not {claim[:32]!r}"
    if claim and int(claim) != files:
        return f"the {claim} files that its marker tells of: there are {files}"
    return ""


def fetch(inbox: str, drop: Drop, folder: Path) -> Path:
    """Where the files of a drop can be read: its place in the inbox, or `folder`, which then holds copies.

    Raises:
        OSError: an object is gone or was replaced by one of another size.
    """
    if not is_address(inbox):
        return Path(inbox, drop.name)
    if folder.is_dir():
        return folder
    store = Store(inbox)
    objects = store.objects(f"{drop.name}/")
    with atomic_directory(folder) as partial, progress(len(objects), "fetching", "file") as bar:
        for item in objects:
            _download(store, item.key, item.size, partial, item.key.removeprefix(f"{drop.name}/"))
            bar.update()
    return folder


def _download(store: Store, key: str, size: int, folder: Path, name: str) -> None:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise OSError(f"{store.address}/{key}: its name leads out of the batch's folder")
    store.download(key, file)
    if file.stat().st_size != size:
        raise OSError(
            f"{store.address}/{key} has {file.stat().st_size} bytes, {size} were listed: it has changed"
        )

"""Batches that arrive in a folder or an S3 store, and which of them are complete.

    <inbox>/<site>/<batch>/...         the files of a batch, in any folders
                   <batch>.complete    marker; its sender writes it last: empty, or the number of
                   files

A folder can also serve a sender that writes no marker: a batch is complete once none of its files
has changed for a while. The time is that of the last change of the inode, which no copying tool
sets back. Nothing here writes into an inbox.

An entry that cannot be read as a batch (a link, a FIFO, a name that is not UTF-8, a marker that is
no number, a folder without read permission) is a batch with a `problem`. The loop refuses that
batch and goes on with the others.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from arl.files import atomic_directory
from arl.progress import progress
from arl.storage.s3 import Store, is_address

MARKER = ".complete"
_SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
# int() refuses more than 4,300 digits, and a batch never has that many files.
_COUNT = re.compile(r"[0-9]{1,12}", re.ASCII)
_ALIAS_DIGITS = 12
# Opening one of these may wait for ever, or lead out of the inbox.
_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
# Read of a marker: enough for every valid one.
_MARKER_BYTES = 64


@dataclass(frozen=True)
class IncomingBatch:
    """One batch of an inbox.

    Attributes:
        name: "<site>/<batch>"; bytes that are not UTF-8 are written as \\xNN.
        fingerprint: SHA-256 over the batch's name and its files' names, sizes and, in a folder,
            times. Another fingerprint means that the batch has changed.
        incomplete_reason: why the batch is not complete yet; empty: the batch is complete.
        problem: why the batch can never be read as it is; empty: it can.
    """

    name: str
    num_files: int
    num_bytes: int
    fingerprint: str
    incomplete_reason: str = ""
    problem: str = ""

    @property
    def site(self) -> str:
        """The folder that the sending site owns."""
        return self.name.partition("/")[0]

    @property
    def alias(self) -> str:
        """A name for logs and pages: the folder's own name is the sender's choice, and may be a
        patient's. `arl inbox` lists both."""
        site = self.site if _SITE.fullmatch(self.site) else "unnamed-site"
        return f"{site}/{self.fingerprint[:_ALIAS_DIGITS]}"


class _OddEntryError(Exception):
    """An entry of a batch that is not a readable file or folder."""


def list_batches(inbox: str, settle_seconds: float, now: float) -> list[IncomingBatch]:
    """List every batch of an inbox, in the order of their names.

    Args:
        inbox: a folder, or s3://bucket/prefix.
        settle_seconds: seconds without a change after which a batch of a folder needs no marker;
            0: a batch always needs one.
        now: seconds since the epoch.

    Raises:
        FileNotFoundError: there is no such folder or bucket.
        OSError: the inbox itself cannot be read; `arl.storage.s3.Store` lists the errors of S3.
    """
    if is_address(inbox):
        return _list_store(Store(inbox))
    root = Path(inbox)
    if not root.is_dir():
        raise FileNotFoundError(f"inbox {inbox} is not a folder and no s3://bucket/prefix")
    return [
        _batch_in_folder(site.name, batch, settle_seconds, now)
        for site in _entries_of(root)
        if site.is_dir()
        for batch in _batches_of(site)
    ]


def find_batch(inbox: str, name: str, settle_seconds: float, now: float) -> IncomingBatch | None:
    """Look at one batch by its name; None where it is gone.

    Raises:
        OSError: as `list_batches`.
    """
    if is_address(inbox):
        store = Store(inbox)
        objects = _list_store(store, prefix=name)
        return next((batch for batch in objects if batch.name == name), None)
    site, _, batch = name.partition("/")
    folder = Path(inbox, site, batch)
    if not folder.is_dir():
        return None
    return _batch_in_folder(site, folder, settle_seconds, now)


def _entries_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _batches_of(site: Path) -> list[Path]:
    """List folders of a site, and links, which are refused by name."""
    try:
        entries = _entries_of(site)
    except PermissionError:
        return [site / "*"]
    return [path for path in entries if path.is_symlink() or path.is_dir()]


def _batch_in_folder(site: str, batch: Path, settle_seconds: float, now: float) -> IncomingBatch:
    name, marker = f"{_printable(site)}/{_printable(batch.name)}", None
    try:
        for text, what in ((site, "the site's name"), (batch.name, "the batch's name")):
            if _printable(text) != text:
                raise _OddEntryError(f"{what} is not UTF-8")
        marker = _read_marker(batch.with_name(batch.name + MARKER))
        files = sorted(_walk(batch))
        changed = max((file[3] for file in files), default=batch.stat().st_ctime)
    except FileNotFoundError:
        return IncomingBatch(name, 0, 0, "", incomplete_reason="its files are being changed")
    except (_OddEntryError, OSError) as error:
        problem = str(error)
        if isinstance(error, OSError):
            # The system's words without the path, which may name a patient.
            words = error.strerror or type(error).__name__
            problem = f"one of its entries cannot be read: {words}"
        return _refused(name, marker, problem, batch)
    text = "".join(f"{name}\0{size}\0{time}\n" for name, size, time, _ in files)
    settled = bool(settle_seconds) and now - changed >= settle_seconds
    return _batch(site, batch.name, [size for _, size, *_ in files], text, marker, settled)


def _refused(name: str, marker: str | None, problem: str, batch: Path) -> IncomingBatch:
    """A batch with a problem; a change of its folder or marker gives it another fingerprint."""
    changed = [
        path.lstat().st_ctime_ns
        for path in (batch, batch.with_name(batch.name + MARKER))
        if os.path.lexists(path)
    ]
    text = f"{name}\n{marker}\n{problem}\n{changed}"
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return IncomingBatch(name, 0, 0, digest, problem=problem)


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _read_marker(marker: Path) -> str | None:
    """The text of a marker; None where there is none."""
    if not os.path.lexists(marker):
        return None
    if not stat.S_ISREG(marker.lstat().st_mode):
        raise _OddEntryError("its marker is not a plain file")
    with marker.open("rb") as stream:
        return stream.read(_MARKER_BYTES).decode("utf-8", "replace").strip()


def _walk(batch: Path) -> Iterator[tuple[str, int, int, float]]:
    """Relative name, bytes, content time in ns and change time in s of every file.

    Raises:
        _OddEntryError: an entry is neither a file nor a folder, or its name is not UTF-8.
        OSError: an entry cannot be read.
    """
    folders = [batch]
    if batch.is_symlink():
        raise _OddEntryError("it is a link, and a batch holds plain files and folders")
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as scanned:
            entries = list(scanned)
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            name = Path(entry.path).relative_to(batch).as_posix()
            if _printable(name) != name:
                raise _OddEntryError("the name of one of its files is not UTF-8")
            if stat.S_ISDIR(status.st_mode):
                folders.append(Path(entry.path))
            elif stat.S_ISREG(status.st_mode):
                if not os.access(entry.path, os.R_OK):
                    raise PermissionError(13, "Permission denied")
                yield name, status.st_size, status.st_mtime_ns, status.st_ctime
            else:
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
                raise _OddEntryError(f"one of its entries is {kind}")


def _list_store(store: Store, prefix: str = "") -> list[IncomingBatch]:
    objects = {item.key: item.size for item in store.objects(prefix)}
    batches: dict[tuple[str, str], dict[str, int]] = {}
    for key, size in objects.items():
        site, _, rest = key.partition("/")
        batch, slash, name = rest.partition("/")
        if slash and name:
            batches.setdefault((site, batch), {})[name] = size
    return [
        _batch_in_store(store, objects, site, batch, files)
        for (site, batch), files in sorted(batches.items())
    ]


def _batch_in_store(
    store: Store, objects: Mapping[str, int], site: str, batch: str, files: dict[str, int]
) -> IncomingBatch:
    key = f"{site}/{batch}{MARKER}"
    marker = None
    if key in objects:
        marker = store.get(key)[:_MARKER_BYTES].decode("utf-8", "replace").strip()
    text = "".join(f"{name}\0{size}\n" for name, size in sorted(files.items()))
    return _batch(site, batch, list(files.values()), text, marker, settled=False)


def _batch(
    site: str, batch: str, sizes: list[int], text: str, marker: str | None, settled: bool
) -> IncomingBatch:
    """`marker`: its text, None where there is none; `text`: what the fingerprint is made of."""
    problem = _problem(site, marker)
    # A sender mends a wrong name or marker without touching the files.
    mended = f"{marker}\n" if problem else ""
    fingerprint = hashlib.sha256(
        f"{site}/{batch}\n{mended}{text}".encode("utf-8", "surrogateescape")
    ).hexdigest()
    reason = "" if problem else _incomplete_reason(len(sizes), marker, settled)
    return IncomingBatch(
        f"{_printable(site)}/{batch}", len(sizes), sum(sizes), fingerprint, reason, problem
    )


def _problem(site: str, marker: str | None) -> str:
    if not _SITE.fullmatch(site):
        return "the name of its site is not a short name of lower-case letters, digits and dashes"
    if marker and not _COUNT.fullmatch(marker):
        return "its marker is neither empty nor the number of its files"
    return ""


def _incomplete_reason(num_files: int, marker: str | None, settled: bool) -> str:
    if not num_files:
        return "it has no files yet"
    if marker is None:
        return "" if settled else "its sender has not written its marker yet"
    if marker and int(marker) != num_files:
        return f"its marker announces {int(marker)} files and there are {num_files}"
    return ""


def fetch(inbox: str, batch: IncomingBatch, folder: Path) -> Path:
    """Return a folder with the files of a batch: its folder in the inbox, or a copy in `folder`.

    Copies of hospital files are readable by their owner only; `discard` removes them.

    Raises:
        OSError: an object is gone or was replaced by one of another size.
    """
    if not is_address(inbox):
        return Path(inbox, batch.name)
    if folder.is_dir():
        return folder
    store = Store(inbox)
    objects = store.objects(f"{batch.name}/")
    with atomic_directory(folder) as partial, progress(len(objects), "fetching", "file") as bar:
        partial.chmod(0o700)
        for item in objects:
            file = partial / item.key.removeprefix(f"{batch.name}/")
            # The sender chooses the keys, so one may hold "..".
            if not file.resolve().is_relative_to(partial.resolve()):
                raise OSError("the name of an object leads out of the folder of its batch")
            store.download(item.key, file)
            if (size := file.stat().st_size) != item.size:
                raise OSError(
                    f"an object has {size} bytes, {item.size} were listed: it has changed"
                )
            bar.update()
    return folder

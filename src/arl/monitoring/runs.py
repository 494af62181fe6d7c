"""The monitoring run that is under way, kept on disk so that it survives whoever carries it out.

    <monitor>/lock                  held by the process that works; the kernel lets go of it when that dies
              open.json             the run under way, if any: what it looks at, and who began it
              log.jsonl             see `journal`
              runs/<run>/           what each step left there; a step whose result is there is not done again
              index.html            all runs

A run is named by the time it began and its data's hash, and so is the batch it adds to the corpus.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arl.files import atomic_directory, read_json, write_json
from arl.ingest.inbox import Drop

_DIGITS = 8


@dataclass(frozen=True)
class Run:
    """What a run looks at."""

    name: str
    monitor: Path
    batches: list[str]  # "source/batch" of everything it tests, waiting ones first
    hash: str = ""  # of the drop's files; empty: it only tests waiting batches again
    drop: Drop | None = None
    owner: str = ""

    @property
    def folder(self) -> Path:
        return self.monitor / "runs" / self.name

    @property
    def corpus(self) -> Path:
        """The corpus as it would be with the new batch."""
        return self.folder / "corpus"

    @property
    def new(self) -> str | None:
        """The batch that it brings, "source/batch"."""
        return self.batches[-1] if self.drop else None


def run_name(digest: str) -> str:
    """A name for a run that begins now; names sort by time.

    To the microsecond: the same files may be sent again within the second in which their first run
        was given up, and a run of the same name would take that one's results for its own.
    """
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{digest[:_DIGITS]}"


def begin(run: Run) -> None:
    """Make a run the one under way."""
    about = asdict(run)
    write_json(_file(run.monitor), {key: value for key, value in about.items() if key != "monitor"})


def current(monitor: Path) -> Run | None:
    """The run under way, in this process or left by one that died."""
    file = _file(monitor)
    if not file.is_file():
        return None
    about: dict[str, Any] = read_json(file)
    drop = about.pop("drop")
    return Run(**about, monitor=monitor, drop=Drop(**drop) if drop else None)


def end(run: Run) -> None:
    """Close a run, whose results stay; what it has copied goes."""
    for name in ("corpus", "reference", "files"):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    _file(run.monitor).unlink(missing_ok=True)


def forget(run: Run) -> None:
    """Close a run as if it had never begun."""
    shutil.rmtree(run.folder, ignore_errors=True)
    _file(run.monitor).unlink(missing_ok=True)


def _file(monitor: Path) -> Path:
    return monitor / "open.json"


def leased_by(run: Run, owner: str, hours: float) -> bool:
    """Whether another owner began the run and may still be at work: its last sign is younger than `hours`."""
    age = time.time() - _file(run.monitor).stat().st_mtime
    return run.owner not in ("", owner) and age < 3600 * hours


@contextmanager
def lock(monitor: Path) -> Iterator[int | None]:
    """Hold the loop's lock, as a file descriptor, or None where a living process holds it.

    Hand the descriptor to child processes (pass_fds): then it is held until the last of them has
    ended, so that a training that has outlived its killed parent is not started a second time.
    """
    monitor.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(monitor / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} of {os.uname().nodename}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def holder(monitor: Path) -> str:
    """Who took the lock last, in words."""
    return (monitor / "lock").read_text(encoding="utf-8") or "another process"


def link_batches(corpus: Path, batches: Iterable[str], view: Path) -> None:
    """Make `view` a corpus of links to these batches ("source/batch") of `corpus`.

    Raises:
        FileNotFoundError: the corpus lacks one of them.
    """
    for batch in batches:
        link, target = view / batch, corpus / batch
        if not (target / "batch.json").is_file():
            raise FileNotFoundError(
                f"batch {batch} is not in corpus {corpus}: `dvc checkout` brings it back"
            )
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))


def adopt(run: Run, corpus: Path) -> None:
    """Move the run's new batch into the corpus, whole or not at all; one that is there already stays."""
    if run.new is None or (corpus / run.new).exists():
        return
    source, target = run.corpus / run.new, corpus / run.new
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.stat().st_dev == target.parent.stat().st_dev:
        source.rename(target)
        return
    with atomic_directory(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)

"""The state of the monitoring run under way, on disk so that it survives its process.

    <monitor>/lock              held by the working process; the kernel releases it with the process
              open.json         the run under way, if there is one
              queue.json        complete batches of the last listing of the inbox
              log.jsonl         see `journal`
              runs/<run>/       one file or folder per finished step; a finished step is not
              repeated
                         run.json   the same as open.json, from which a damaged open.json is
                         restored
              index.html        all runs

A run has the name of the batch that it adds to the corpus: its start time and the hash of its data.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from arl.documents import Document, DocumentError
from arl.files import atomic_directory
from arl.ingest.inbox import IncomingBatch
from arl.monitoring.journal import BatchCounts, BatchDecision

_DIGITS = 8
_CLOCK_SLACK = 60.0  # seconds that the clocks of two machines may differ
_COPIES = ("corpus", "reference", "files")  # of a run's folder; not kept


@dataclass(frozen=True, kw_only=True)
class RunState(Document):
    """The content of open.json.

    Attributes:
        batches: "source/batch" of all batches that the run tests, waiting ones first.
        hash: SHA-256 over the files of the incoming batch; empty where it tests waiting ones only.
        owner: the Kubeflow run that works on it; empty: the process that holds the lock.
    """

    FORMAT: ClassVar[str] = "arl.monitoring-run"
    VERSION: ClassVar[int] = 1

    name: str
    batches: list[str]
    hash: str = ""
    incoming: IncomingBatch | None = None
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class Run(RunState):
    """A monitoring run and the folder of the loop that it belongs to."""

    monitor: Path

    @property
    def folder(self) -> Path:
        """The folder of the run's results."""
        return self.monitor / "runs" / self.name

    @property
    def corpus(self) -> Path:
        """A corpus of links that holds the new batch too."""
        return self.folder / "corpus"

    @property
    def new(self) -> str | None:
        """The batch that the run adds, "source/batch"."""
        return self.batches[-1] if self.incoming else None

    @property
    def state(self) -> RunState:
        """The part that is written to disk."""
        return RunState(**{item.name: getattr(self, item.name) for item in fields(RunState)})


@dataclass(frozen=True)
class Intake(Document):
    """intake.json: whether the new batch may enter the corpus."""

    FORMAT: ClassVar[str] = "arl.intake"
    VERSION: ClassVar[int] = 1

    accepted: bool
    reasons: list[str] = field(default_factory=list)
    counts: BatchCounts | None = None


@dataclass(frozen=True)
class Reference(Document):
    """reference.json: the champion that the run's batches are compared with."""

    FORMAT: ClassVar[str] = "arl.reference"
    VERSION: ClassVar[int] = 1

    champion: str


@dataclass(frozen=True)
class RunDecision(Document):
    """decision.json: the run's decision and its reasons, as the log has them."""

    FORMAT: ClassVar[str] = "arl.run-decision"
    VERSION: ClassVar[int] = 1

    words: list[str]
    decision: BatchDecision


@dataclass(frozen=True)
class Queue(Document):
    """queue.json: complete batches of one listing of the inbox that no run has taken yet."""

    FORMAT: ClassVar[str] = "arl.queue"
    VERSION: ClassVar[int] = 1

    inbox: str
    batches: list[IncomingBatch] = field(default_factory=list)


def run_name(digest: str) -> str:
    """A name for a run that begins now; names sort by time.

    The name holds microseconds: a sender may send the same files again within a second, and a
    second run of the same name would take over the results of the first.
    """
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{digest[:_DIGITS]}"


def begin(run: Run) -> None:
    """Make a run the one under way."""
    for file in (run.folder / "run.json", _state_file(run.monitor)):
        run.state.write(file)
        # The name of the incoming folder is the sender's choice and may be a patient's.
        file.chmod(0o600)


def current(monitor: Path) -> Run | None:
    """The run under way, in this process or left by one that died.

    A damaged open.json is moved aside, and the run is restored from its copy in the run's folder.
    """
    file = _state_file(monitor)
    if not file.is_file():
        return None
    try:
        return _with_monitor(RunState.read(file), monitor)
    except (DocumentError, UnicodeDecodeError):
        # Kept beside, since it may say how the damage came about.
        file.replace(file.with_name(f"open.json.damaged-{time.time_ns()}"))
    restored = _unfinished(monitor)
    if restored is not None:
        begin(restored)
    return restored


def read_run(monitor: Path, name: str) -> Run:
    """A run that has begun and not ended, by its name.

    Raises:
        FileNotFoundError: there is no such run, or it has ended.
        DocumentError: its state is damaged.
    """
    return _with_monitor(RunState.read(monitor / "runs" / name / "run.json"), monitor)


def _with_monitor(state: RunState, monitor: Path) -> Run:
    values = {item.name: getattr(state, item.name) for item in fields(RunState)}
    return Run(monitor=monitor, **values)


def _unfinished(monitor: Path) -> Run | None:
    """The newest run that began and neither ended nor is parked."""
    for file in sorted(monitor.glob("runs/*/run.json"), reverse=True):
        # A parked run waits for a person; restoring it would resume it without one.
        if not (file.parent / "parked").exists():
            try:
                return _with_monitor(RunState.read(file), monitor)
            except (DocumentError, UnicodeDecodeError):
                continue
    return None


def end(run: Run) -> None:
    """Close a run: its results stay, its copies of the corpus and of raw files go."""
    for name in _COPIES:
        shutil.rmtree(run.folder / name, ignore_errors=True)
    # In this order: a process that dies between the two leaves a run under way, not a lost one.
    (run.folder / "run.json").unlink(missing_ok=True)
    _state_file(run.monitor).unlink(missing_ok=True)


def park(run: Run) -> None:
    """Set a run aside with everything that it has done, so that the loop can take other batches."""
    # Before the state file goes: a process that dies between the two must not leave a lost run.
    (run.folder / "parked").touch()
    _state_file(run.monitor).unlink(missing_ok=True)


def unpark(run: Run) -> None:
    """Make a parked run the one under way again."""
    begin(run)
    (run.folder / "parked").unlink(missing_ok=True)


def discard(run: Run) -> None:
    """Remove a run as if it had never begun."""
    _state_file(run.monitor).unlink(missing_ok=True)
    shutil.rmtree(run.folder, ignore_errors=True)


def _state_file(monitor: Path) -> Path:
    return monitor / "open.json"


def leased_by_other(run: Run, owner: str, hours: float) -> bool:
    """Whether another owner began the run and may still work on it.

    An owner gives a sign of life by writing open.json; after `hours` without one it counts as
    dead. A sign from the future comes from a wrong clock: it is set to now, so that the lease ends.
    """
    if run.owner in ("", owner):
        return False
    file = _state_file(run.monitor)
    age = time.time() - file.stat().st_mtime
    if age < -_CLOCK_SLACK:
        os.utime(file)
        age = 0.0
    return age < 3600 * hours


@contextmanager
def lock(monitor: Path) -> Iterator[int | None]:
    """Hold the loop's lock, as a file descriptor; None where a living process holds it.

    Hand the descriptor to child processes (pass_fds). The lock is then held until the last of them
    has ended, so that a training that outlives its killed parent is not started a second time.
    """
    monitor.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(monitor / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # The text is for people alone. The lock itself is the kernel's, and ends with the process.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} of {os.uname().nodename}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def lock_holder(monitor: Path) -> str:
    """The process that took the lock last, e.g. "process 12 of host"."""
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
            # A relative link survives a move of the project, and costs nothing for terabytes of
            # images.
            link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))


def adopt(run: Run, corpus: Path) -> None:
    """Move the run's new batch into the corpus, whole or not at all; do nothing if it is there."""
    if run.new is None or (corpus / run.new).exists():
        return
    source, target = run.corpus / run.new, corpus / run.new
    target.parent.mkdir(parents=True, exist_ok=True)
    # A rename is atomic within one file system only.
    if source.stat().st_dev == target.parent.stat().st_dev:
        source.rename(target)
        return
    with atomic_directory(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)

"""The log of the loop: one JSON line per decision or event, appended and never changed.

The loop keeps no other memory: the log says which batches were decided on, which of them wait,
when the last training began, and what the champion was trained on.

The log is a hash chain. Each line holds the SHA-256 of the line before it, and `log.head` holds the
number and the hash of the last line. `Journal.problems` names a line that was edited, removed or
damaged. The loop reads past such a line and goes on.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

from arl.documents import Document, DocumentError
from arl.files import write_json
from arl.monitoring.drift_result import SiteShift

DecisionWord = Literal[
    "retrain",
    "no-drift",
    "too-few",
    "cooling-down",
    "held",
    "already-running",
    "refused",
    "duplicate",
]  # a pipeline branches on these
Event = Literal[
    "baseline",
    "decision",
    "outcome",
    "failed",
    "outage",
    "stuck",
    "retry",
    "approved",
    "rejected",
    "damaged",
    "rollback",
]

WAITING = ("too-few", "cooling-down")  # decisions after which a batch is tested again
_LOG, _HEAD = "log.jsonl", "log.head"
_START = "0" * 64  # the hash before the first line


def now() -> str:
    """The current second in UTC, as the log writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class BatchCounts:
    """Inputs and images of an ingested batch."""

    inputs: int
    accepted: int
    refused: int
    images: int


@dataclass(frozen=True, kw_only=True)
class BatchDecision:
    """A decision on one or more batches, and the numbers behind it.

    Attributes:
        word: the decision.
        why: its first reason, one sentence.
        incoming: "<site>/<batch>" of the batch in the inbox; None where no new batch arrived.
        hash: SHA-256 over the batch's files.
        fingerprint: see `arl.ingest.inbox.IncomingBatch`.
        batches: "source/batch" in the corpus that the decision is about.
        champion: the release that the batches were compared with.
        shifts: the embedding test of each site.
        active: the run that was under way, of an already-running decision.
    """

    word: DecisionWord
    why: str = ""
    incoming: str | None = None
    num_files: int = 0
    num_bytes: int = 0
    hash: str = ""
    fingerprint: str = ""
    counts: BatchCounts | None = None
    batches: list[str] = field(default_factory=list)
    champion: str | None = None
    images: int = 0
    patients: int = 0
    shifts: list[SiteShift] = field(default_factory=list)
    active: str | None = None


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training: the gate's verdict, and the champions before and after."""

    verdict: str
    before: str
    champion: str


@dataclass(frozen=True, kw_only=True)
class LogEntry(Document):
    """One line of the log.

    Attributes:
        sequence: 1, 2, ...
        previous: SHA-256 of the line before, without its line feed.
        words: what happened and why, in sentences.
        run: the monitoring run; empty where the entry is about no run.
        trained_on: "source/batch" of all batches that the release `champion` was trained on.
        person: who approved, rejected or retried.
    """

    FORMAT: ClassVar[str] = "arl.log"
    VERSION: ClassVar[int] = 1

    sequence: int
    previous: str
    at: str
    event: Event
    words: list[str]
    run: str = ""
    decision: BatchDecision | None = None
    outcome: TrainingOutcome | None = None
    champion: str | None = None
    trained_on: list[str] | None = None
    fingerprint: str = ""
    person: str = ""

    @property
    def label(self) -> str:
        """The decision, else the verdict, else the event, as one word."""
        if self.decision is not None:
            return self.decision.word
        return self.event if self.outcome is None else self.outcome.verdict

    def line(self) -> str:
        """The text of the line, without fields that have their default."""
        return json.dumps(_compact(self.to_json(), type(self)), ensure_ascii=False)


def _compact(content: Any, record: type) -> dict[str, Any]:
    """Leave out the fields of `record` that have their default."""
    kept = dict(content)
    for item in fields(record):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if item.name in kept and default is not MISSING and kept[item.name] == default:
            del kept[item.name]
    return kept


class Journal:
    """The log below a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / _LOG
        self._head = folder / _HEAD

    def append(self, event: Event, words: Sequence[str], **details: Any) -> LogEntry:
        """Add a line and return it; `details` are further fields of `LogEntry`.

        Raises:
            OSError: the line could not be written whole; the log is as it was before.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # Another poll may write at the same time.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _end_of_last_line(descriptor)
            # Read under the lock: the number and the hash of the last line must be those of this
            # moment.
            lines = os.pread(descriptor, end, 0).splitlines()
            entry = LogEntry(
                sequence=len(lines) + 1,
                previous=_digest(lines[-1]) if lines else _START,
                at=now(),
                event=event,
                words=list(words),
                **details,
            )
            line = entry.line().encode()
            _append_whole(descriptor, end, line + b"\n")
            write_json(self._head, {"sequence": entry.sequence, "hash": _digest(line)})
        finally:
            os.close(descriptor)
        return entry

    def entries(self) -> list[LogEntry]:
        """All lines that can be read, oldest first; `problems` names the others."""
        return [entry for entry in self._parsed() if isinstance(entry, LogEntry)]

    def of_run(self, run: str, event: Event) -> list[LogEntry]:
        """The entries of one event of one run."""
        return [entry for entry in self.entries() if (entry.run, entry.event) == (run, event)]

    def problems(self) -> list[str]:
        """Every sign that the log was edited, cut or damaged, as sentences; empty: it is whole."""
        problems_, previous = [], _START
        for number, (line, entry) in enumerate(
            zip(self._lines(), self._parsed(), strict=True), start=1
        ):
            if isinstance(entry, str):
                problems_.append(f"line {number} of {self.file} {entry}")
            elif (entry.sequence, entry.previous) != (number, previous):
                problems_.append(
                    f"line {number} of {self.file} does not follow the line before it: "
                    "a line was edited, added or removed"
                )
            # The chain goes on from the line as it is, so that one edit is one problem, not one per
            # later line.
            previous = _digest(line)
        return problems_ + self._head_problems()

    def _head_problems(self) -> list[str]:
        """The head may lag by one line, where the writer was killed between its two writes."""
        lines = self._lines()
        try:
            head = json.loads(self._head.read_text(encoding="utf-8"))
            sequence, digest = int(head["sequence"]), str(head["hash"])
        except FileNotFoundError:
            return [f"{self._head} is missing"] if len(lines) > 1 else []
        except (ValueError, KeyError, TypeError):
            return [f"{self._head} is damaged"]
        # A chain alone does not show that its last lines were cut off. The head does.
        if not 0 < sequence <= len(lines):
            return [f"{self.file} has {len(lines)} lines and had {sequence}: it was cut"]
        if _digest(lines[sequence - 1]) != digest or len(lines) > sequence + 1:
            return [f"the last line of {self.file} is not the one that the loop wrote last"]
        return []

    def _lines(self) -> list[bytes]:
        """The whole lines: what a power failure left of one does not count."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return []
        return content[: content.rfind(b"\n") + 1].splitlines()

    def _parsed(self) -> list[LogEntry | str]:
        return [self._parse(number, line) for number, line in enumerate(self._lines(), start=1)]

    def _parse(self, number: int, line: bytes) -> LogEntry | str:
        """The entry, or what is wrong with its line."""
        try:
            return LogEntry.from_json(json.loads(line), f"{self.file}:{number}")
        except DocumentError as error:
            return f"is no entry of the log: {error}"
        except ValueError:  # not JSON, or not UTF-8
            return "is damaged"


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _append_whole(descriptor: int, end: int, line: bytes) -> None:
    """Write a whole line at `end`, or nothing."""
    os.ftruncate(descriptor, end)
    try:
        if os.write(descriptor, line) < len(line):
            raise OSError("the log's line could not be written whole: is the disk full?")
        # A decision is acted on at once: the line must outlive a power failure.
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _end_of_last_line(descriptor: int) -> int:
    """A power failure may leave half a line after it."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


def handled_hashes(entries: Sequence[LogEntry]) -> set[str]:
    """Hashes of all batches that were decided on."""
    return {entry.decision.hash for entry in entries if entry.decision and entry.decision.hash}


def handled_fingerprints(entries: Sequence[LogEntry]) -> set[str]:
    """Fingerprints of all batches that were decided on, or whose run is stuck."""
    decided = {entry.decision.fingerprint for entry in entries if entry.decision}
    stuck = {entry.fingerprint for entry in entries if entry.event == "stuck"}
    return (decided | stuck) - {""}


def waiting(entries: Sequence[LogEntry]) -> dict[str, DecisionWord]:
    """Batches ("source/batch") of the corpus that are to be tested again, and the decision."""
    left: dict[str, DecisionWord] = {}
    for entry in entries:
        if entry.decision is not None:
            for batch in entry.decision.batches:
                # The latest decision on a batch counts.
                left.pop(batch, None)
                if entry.decision.word in WAITING:
                    left[batch] = entry.decision.word
    return left


def cooldown_end(entries: Sequence[LogEntry], hours: float) -> datetime | None:
    """When the next training may start: `hours` after the last one; None before the first.

    A start in the future comes from a clock that was set back, and it counts as long ago: the
    loop must not wait for a date that may be years away.
    """
    current = datetime.now(UTC)
    starts = [
        datetime.fromisoformat(entry.at)
        for entry in entries
        if entry.decision is not None and entry.decision.word == "retrain"
    ]
    past = [start for start in starts if start <= current]
    return max(past) + timedelta(hours=hours) if past else None


def trained_on(entries: Sequence[LogEntry], champion: str) -> list[str] | None:
    """The batches that a release was trained on; None where the log does not say."""
    stated = [
        entry.trained_on
        for entry in entries
        if entry.champion == champion and entry.trained_on is not None
    ]
    # The latest entry counts: a release may come into use again after a rollback.
    return list(stated[-1]) if stated else None


def stuck_runs(entries: Sequence[LogEntry]) -> list[str]:
    """Runs that failed too often and that nobody has retried since, oldest first."""
    stuck: dict[str, None] = {}
    for entry in entries:
        if entry.event == "stuck":
            stuck[entry.run] = None
        elif entry.event in ("retry", "outcome", "rejected"):
            stuck.pop(entry.run, None)
    return list(stuck)


def held_runs(entries: Sequence[LogEntry]) -> list[str]:
    """Runs whose batch waits for a person, oldest first."""
    held: dict[str, None] = {}
    for entry in entries:
        if entry.decision is not None and entry.decision.word == "held":
            held[entry.run] = None
        elif entry.event in ("approved", "rejected") or entry.decision is not None:
            held.pop(entry.run, None)
    return list(held)


def answered_runs(entries: Sequence[LogEntry]) -> list[str]:
    """Parked runs that a person retried, approved or rejected and that have not gone on since."""
    answered: dict[str, None] = {}
    for entry in entries:
        if entry.event in ("retry", "approved", "rejected"):
            answered[entry.run] = None
        elif entry.event in ("stuck", "outcome", "decision"):
            answered.pop(entry.run, None)
    return list(answered)

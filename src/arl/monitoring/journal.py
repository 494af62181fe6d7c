"""The log of the loop: one line of JSON a decision or event, only ever appended, each explained in words.

What the loop must remember follows from it: which batches it has dealt with, which of them wait for
more, when it last started a training, and what the champion was trained on.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Decision = Literal[
    "retrain", "no-drift", "too-few", "cooling-down", "already-running", "refused", "duplicate"
]  # short words, which a pipeline can branch on
Event = Literal["baseline", "decision", "outcome", "failed", "given-up"]
Entry = dict[str, Any]

WAITING = ("too-few", "cooling-down")  # decisions that leave their batches for the next run
_LOG = "log.jsonl"


def now() -> str:
    """This second in UTC, as the log writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Journal:
    """The log below a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / _LOG

    def append(self, event: Event, words: Sequence[str], **details: Any) -> Entry:
        """Add a line: when, what happened, why in sentences, and the numbers behind them.

        Raises:
            OSError: the line could not be written whole; nothing of it is left.
        """
        entry = {"at": now(), "event": event, "words": list(words), **details}
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a second trigger writes too
            _append_whole(descriptor, line)
        finally:
            os.close(descriptor)
        return entry

    def entries(self) -> list[Entry]:
        """All lines, oldest first.

        Raises:
            ValueError: a line is no entry.
        """
        if not self.file.is_file():
            return []
        return [
            self._entry(*numbered)
            for numbered in enumerate(self.file.read_text("utf-8").splitlines(), start=1)
        ]

    def _entry(self, number: int, line: str) -> Entry:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{self.file}:{number} is not JSON: {error}; the log is append-only"
            ) from error
        if not isinstance(entry, dict) or not {"at", "event", "words"} <= entry.keys():
            raise ValueError(
                f"{self.file}:{number} lacks at, event or words; the log is append-only"
            )
        return entry

    def of_run(self, run: str, event: Event) -> list[Entry]:
        """The entries of one kind of one run."""
        return [
            entry for entry in self.entries() if entry["event"] == event and entry.get("run") == run
        ]


def _append_whole(descriptor: int, line: bytes) -> None:
    """Write all of a line or nothing, after whatever a power failure may have left of the one before it."""
    end = os.fstat(descriptor).st_size
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        end = _end_of_last_line(descriptor, end)
        os.ftruncate(descriptor, end)
    try:
        if os.write(descriptor, line) < len(line):
            raise OSError("the log's line could not be written whole: is the disk full?")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _end_of_last_line(descriptor: int, size: int) -> int:
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


def handled(entries: Sequence[Entry], key: str) -> set[str]:
    """Values of `key` (hash, fingerprint) of all drops that have been decided on, or given up."""
    events = ("decision", "given-up")
    return {entry[key] for entry in entries if entry["event"] in events and entry.get(key)}


def waiting(entries: Sequence[Entry]) -> dict[str, Decision]:
    """Batches ("source/batch") that are in the corpus and wait to be tested again, with the decision that left them."""
    left: dict[str, Decision] = {}
    for entry in entries:
        if entry["event"] == "decision":
            for batch in entry.get("batches", []):
                left.pop(batch, None)
                if entry["decision"] in WAITING:
                    left[batch] = entry["decision"]
    return left


def cools_until(entries: Sequence[Entry], hours: float) -> datetime | None:
    """When a training may start again, `hours` after the last one was started; None before the first."""
    starts = [entry["at"] for entry in entries if entry.get("decision") == "retrain"]
    if not starts:
        return None
    return datetime.fromtimestamp(
        datetime.fromisoformat(starts[-1]).timestamp() + 3600 * hours, UTC
    )


def trained_on(entries: Sequence[Entry], champion: str) -> list[str] | None:
    """The batches a release was trained on; None where the log does not tell."""
    known = [
        entry["trained_on"]
        for entry in entries
        if entry.get("champion") == champion and "trained_on" in entry
    ]
    return list(known[-1]) if known else None

"""The log: whole lines only, and what follows from them."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arl.monitoring.journal import Journal, cools_until, handled, trained_on, waiting


def decision(word: str, *batches: str, **more: object) -> dict[str, object]:
    return {
        "at": "2026-11-24T10:00:00+00:00",
        "event": "decision",
        "decision": word,
        "batches": batches,
        **more,
    }


def test_lines_are_added_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "monitor")
    assert journal.entries() == []
    first = journal.append("baseline", ["Größe: 3 µm."], champion="a")
    before = journal.file.read_bytes()
    second = journal.append("decision", ["Why."], decision="no-drift", run="r")
    assert journal.file.read_bytes().startswith(before)
    assert journal.entries() == [first, second]
    assert datetime.now(UTC) - datetime.fromisoformat(str(first["at"])) < timedelta(minutes=1)
    assert journal.of_run("r", "decision") == [second]
    assert journal.of_run("r", "outcome") == []


def test_what_a_power_failure_left_of_a_line_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["whole"])
    with journal.file.open("a") as stream:
        stream.write('{"at": "2026-11-24T1')
    journal.append("decision", ["next"], decision="no-drift")
    assert [entry["words"] for entry in journal.entries()] == [["whole"], ["next"]]


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["whole"])
    before = journal.file.read_bytes()
    program = (
        "import resource, signal, sys; from pathlib import Path; from arl.monitoring.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 50},) * 2)\n"
        f"Journal(Path({str(tmp_path)!r})).append('decision', ['x' * 500])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "is the disk full?" in done.stderr
    assert journal.file.read_bytes() == before


@pytest.mark.parametrize("line", ["no json", "[]", '{"at": "now", "event": "decision"}'])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["whole"])
    journal.file.write_text(journal.file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"log\.jsonl:2 "):
        journal.entries()


def test_many_writers_lose_no_line(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from arl.monitoring.journal import Journal\n"
        f"for n in range(40): Journal(Path({str(tmp_path)!r})).append('decision', [sys.argv[1] + str(n) * 99])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    words = [entry["words"][0] for entry in Journal(tmp_path).entries()]
    assert len(words) == len(set(words)) == 120


def test_what_was_handled() -> None:
    entries = [
        decision("no-drift", hash="h1", fingerprint="f1"),
        decision("refused", hash="h2", fingerprint="f2"),
        decision("already-running"),
        {"at": "", "event": "given-up", "words": [], "fingerprint": "f3"},
        {"at": "", "event": "failed", "words": [], "hash": "h4"},
    ]
    assert handled(entries, "hash") == {"h1", "h2"}
    assert handled(entries, "fingerprint") == {"f1", "f2", "f3"}


def test_batches_wait_until_a_run_takes_them() -> None:
    entries = [
        decision("too-few", "s/1"),
        decision("cooling-down", "s/1", "s/2"),
        decision("refused"),
        decision("already-running", active="r"),
        decision("too-few", "s/3"),
    ]
    assert waiting(entries) == {"s/1": "cooling-down", "s/2": "cooling-down", "s/3": "too-few"}
    assert waiting([*entries, decision("retrain", "s/1", "s/2", "s/3", "s/4")]) == {}
    assert list(waiting([*entries, decision("no-drift", "s/3")])) == ["s/1", "s/2"]


def test_the_cool_down_counts_from_the_last_training() -> None:
    old = {**decision("retrain"), "at": "2026-11-20T00:00:00+00:00"}
    new = {**decision("retrain"), "at": "2026-11-24T22:30:00+00:00"}
    assert cools_until([decision("no-drift")], 24) is None
    assert cools_until([old, new, decision("no-drift")], 2.5) == datetime(
        2026, 11, 25, 1, tzinfo=UTC
    )


def test_what_a_champion_was_trained_on() -> None:
    entries = [
        {"champion": "a", "trained_on": ["s/0"]},
        {"champion": "b", "trained_on": ["s/0", "s/1"]},
        {"champion": "b"},  # a decision that compared with it
    ]
    assert trained_on(entries, "b") == ["s/0", "s/1"]
    assert trained_on(entries, "c") is None


def test_values_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal(tmp_path).append("decision", ["x"], effect=float("nan"))
    assert json.dumps(Journal(tmp_path).entries()) == "[]"

"""The log: whole lines only, a hash chain, and the state that follows from it."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arl.monitoring.journal import (
    BatchDecision,
    DecisionWord,
    Event,
    Journal,
    LogEntry,
    answered_runs,
    cooldown_end,
    handled_fingerprints,
    handled_hashes,
    stuck_runs,
    trained_on,
    waiting,
)


def entry(event: Event, at: str = "2026-11-24T10:00:00+00:00", **details: object) -> LogEntry:
    # type: ignore[arg-type]
    return LogEntry(sequence=1, previous="", at=at, event=event, words=[], **details)


def decision(word: DecisionWord, *batches: str, at: str = "2026-11-24T10:00:00+00:00") -> LogEntry:
    return entry("decision", at, decision=BatchDecision(word=word, batches=list(batches)))


def test_lines_are_added_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "monitor")
    assert journal.entries() == []
    assert journal.problems() == []
    first = journal.append("baseline", ["Größe: 3 µm."], champion="a")
    before = journal.file.read_bytes()
    second = journal.append(
        "decision", ["Why."], decision=BatchDecision(word="no-drift", why="Why."), run="r"
    )
    assert journal.file.read_bytes().startswith(before)
    assert journal.entries() == [first, second]
    assert (first.sequence, second.sequence) == (1, 2)
    assert datetime.now(UTC) - datetime.fromisoformat(first.at) < timedelta(minutes=1)
    assert journal.of_run("r", "decision") == [second]
    assert journal.of_run("r", "outcome") == []
    assert journal.problems() == []


def test_half_a_line_is_not_read_and_the_next_one_replaces_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["whole"])
    with journal.file.open("a") as stream:
        stream.write('{"at": "2026-11-24T1')
    assert [line.words for line in journal.entries()] == [["whole"]]
    journal.append("baseline", ["next"])
    assert [line.words for line in journal.entries()] == [["whole"], ["next"]]
    assert journal.problems() == []


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["whole"])
    before = journal.file.read_bytes()
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from arl.monitoring.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 50},) * 2)\n"
        f"Journal(Path({str(tmp_path)!r})).append('decision', ['x' * 500])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "is the disk full?" in done.stderr
    assert journal.file.read_bytes() == before


@pytest.mark.parametrize("line", [b"no json", b"[]", b'{"at": "now"}', b"\xff\xfe", b""])
def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path: Path, line: bytes) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["first"])
    journal.file.write_bytes(journal.file.read_bytes() + line + b"\n")
    journal.append("baseline", ["last"])
    assert [read.words for read in journal.entries()] == [["first"], ["last"]]
    assert any(problem.startswith("line 2 of ") for problem in journal.problems())


def lines(journal: Journal) -> list[bytes]:
    return journal.file.read_bytes().splitlines(keepends=True)


def test_every_edit_of_the_log_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for word in ("first", "second", "third", "fourth"):
        journal.append("baseline", [word])
    whole = lines(journal)
    edits = {
        "a word": [whole[0], whole[1].replace(b"second", b"decond"), *whole[2:]],
        "a word of the last line": [*whole[:3], whole[3].replace(b"fourth", b"forth")],
        "a line removed": [whole[0], *whole[2:]],
        "the first line removed": whole[1:],
        "the last line removed": whole[:3],
        "two lines swapped": [whole[1], whole[0], *whole[2:]],
        "a line twice": [whole[0], *whole],
        "all lines removed": [],
    }
    for name, edited in edits.items():
        journal.file.write_bytes(b"".join(edited))
        assert journal.problems(), name
    journal.file.write_bytes(b"".join(whole))
    assert journal.problems() == []


def test_a_writer_killed_before_the_head_leaves_a_whole_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("baseline", ["first"])
    head = (tmp_path / "log.head").read_bytes()
    journal.append("baseline", ["second"])
    (tmp_path / "log.head").write_bytes(head)
    assert journal.problems() == []
    journal.append("baseline", ["third"])
    (tmp_path / "log.head").write_bytes(head)
    assert journal.problems() != []


def test_many_writers_lose_no_line(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from arl.monitoring.journal import Journal\n"
        f"journal = Journal(Path({str(tmp_path)!r}))\n"
        "for n in range(40): journal.append('baseline', [sys.argv[1] + str(n) * 99])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    words = [entry.words[0] for entry in Journal(tmp_path).entries()]
    assert len(words) == len(set(words)) == 120
    assert Journal(tmp_path).problems() == []


def test_handled_batches() -> None:
    def decided(word: DecisionWord, digest: str, fingerprint: str) -> LogEntry:
        return entry(
            "decision", decision=BatchDecision(word=word, hash=digest, fingerprint=fingerprint)
        )

    entries = [
        decided("no-drift", "h1", "f1"),
        decided("refused", "h2", "f2"),
        decision("already-running"),
        entry("stuck", fingerprint="f3", run="r3"),
        entry("failed", run="r4"),
    ]
    assert handled_hashes(entries) == {"h1", "h2"}
    assert handled_fingerprints(entries) == {"f1", "f2", "f3"}


def test_batches_wait_until_a_run_takes_them() -> None:
    entries = [
        decision("too-few", "s/1"),
        decision("cooling-down", "s/1", "s/2"),
        decision("refused"),
        decision("already-running"),
        decision("too-few", "s/3"),
    ]
    assert waiting(entries) == {"s/1": "cooling-down", "s/2": "cooling-down", "s/3": "too-few"}
    assert waiting([*entries, decision("retrain", "s/1", "s/2", "s/3", "s/4")]) == {}
    assert list(waiting([*entries, decision("no-drift", "s/3")])) == ["s/1", "s/2"]


def test_the_cool_down_counts_from_the_last_training() -> None:
    old = decision("retrain", at="2026-01-20T00:00:00+00:00")
    new = decision("retrain", at="2026-01-24T22:30:00+00:00")
    assert cooldown_end([decision("no-drift")], 24) is None
    assert cooldown_end([old, new, decision("no-drift")], 2.5) == datetime(
        2026, 1, 25, 1, tzinfo=UTC
    )


def test_a_training_in_the_future_does_not_stop_the_loop_for_years() -> None:
    future = decision("retrain", at="2099-01-01T00:00:00+00:00")
    old = decision("retrain", at="2026-01-20T00:00:00+00:00")
    assert cooldown_end([future], 24) is None
    assert cooldown_end([old, future], 24) == datetime(2026, 1, 21, tzinfo=UTC)


def test_a_stuck_run_waits_for_a_person() -> None:
    stuck, retry = entry("stuck", run="r1"), entry("retry", run="r1", person="eve")
    assert stuck_runs([stuck]) == ["r1"]
    assert answered_runs([stuck]) == []
    assert stuck_runs([stuck, retry]) == []
    assert answered_runs([stuck, retry]) == ["r1"]
    assert answered_runs([stuck, retry, entry("outcome", run="r1")]) == []
    assert stuck_runs([stuck, retry, stuck]) == ["r1"]
    assert answered_runs([stuck, retry, stuck]) == []


def test_the_batches_that_a_champion_was_trained_on() -> None:
    entries = [
        entry("baseline", champion="a", trained_on=["s/0"]),
        entry("outcome", champion="b", trained_on=["s/0", "s/1"]),
        entry("decision", champion="b"),
    ]
    assert trained_on(entries, "b") == ["s/0", "s/1"]
    assert trained_on(entries, "c") is None


def test_a_line_leaves_out_what_is_not_set(tmp_path: Path) -> None:
    Journal(tmp_path).append("baseline", ["x"], champion="a")
    content = json.loads((tmp_path / "log.jsonl").read_text())
    assert content.keys() == {
        "format",
        "sequence",
        "previous",
        "at",
        "event",
        "words",
        "champion",
    }

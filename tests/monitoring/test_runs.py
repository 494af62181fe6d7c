"""The run under way: kept on disk, locked by the living, and moved into the corpus whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arl.files import tree_hash
from arl.ingest.inbox import IncomingBatch
from arl.monitoring.runs import (
    Run,
    adopt,
    begin,
    current,
    discard,
    end,
    leased_by_other,
    link_batches,
    lock,
    lock_holder,
    park,
    read_run,
    run_name,
    unpark,
)

BATCH = IncomingBatch("clinic/week-1", 3, 60, "f" * 64)


def a_run(monitor: Path, **changes: object) -> Run:
    about = {"name": "r1", "batches": ["s/r0", "s/r1"], "hash": "h", "incoming": BATCH, **changes}
    return Run(monitor=monitor, **about)


def write_batch(corpus: Path, batch: str) -> None:
    (corpus / batch).mkdir(parents=True)
    (corpus / batch / "batch.json").write_text(f'"{batch}"')


def test_a_run_outlives_its_process(tmp_path: Path) -> None:
    assert current(tmp_path) is None
    for run in (
        a_run(tmp_path),
        a_run(tmp_path, incoming=None, hash="", batches=["s/r0"], owner="job"),
    ):
        begin(run)
        assert current(tmp_path) == run
    assert a_run(tmp_path).new == "s/r1"
    assert a_run(tmp_path, incoming=None).new is None


def test_the_end_of_a_run_keeps_its_results(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    begin(run)
    for name in ("corpus/s/r1/x", "reference/s/r0/x", "files/x", "drift/drift.json"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text("")
    end(run)
    assert current(tmp_path) is None
    assert [path.name for path in run.folder.iterdir()] == ["drift"]
    begin(run)
    discard(run)
    assert current(tmp_path) is None
    assert not run.folder.exists()


def test_names_sort_by_time() -> None:
    assert run_name("a" * 64).endswith("-aaaaaaaa")
    assert run_name("f") < run_name("a")


def test_the_same_files_sent_again_within_a_second_are_another_run() -> None:
    names = [run_name("a" * 64) for _ in range(5)]
    assert len(set(names)) == 5
    assert names == sorted(names)


def test_one_process_holds_the_lock(tmp_path: Path) -> None:
    with lock(tmp_path / "monitor") as first, lock(tmp_path / "monitor") as second:
        assert first is not None
        assert second is None
        assert f"process {os.getpid()} of" in lock_holder(tmp_path / "monitor")
    with lock(tmp_path / "monitor") as again:
        assert again is not None


def test_the_lock_of_a_killed_process_is_free_when_its_last_child_has_ended(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time; from pathlib import Path; from arl.monitoring.runs import "
        "lock\n"
        f"with lock(Path({str(tmp_path)!r})) as held:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=[held])\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with lock(tmp_path) as held:
        assert held is None  # a training that has outlived its parent
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with lock(tmp_path) as held:
            if held is not None:
                return
        time.sleep(0.05)
    pytest.fail("the lock of the dead was never free")


def test_a_lease_ends(tmp_path: Path) -> None:
    run = a_run(tmp_path, owner="job-1")
    begin(run)
    assert leased_by_other(run, "job-2", hours=1)
    assert not leased_by_other(run, "job-1", hours=1)
    assert not leased_by_other(a_run(tmp_path, owner=""), "job-2", hours=1)
    os.utime(tmp_path / "open.json", (time.time() - 7200,) * 2)
    assert not leased_by_other(run, "job-2", hours=1)


def test_a_lease_from_the_future_ends_too(tmp_path: Path) -> None:
    run = a_run(tmp_path, owner="job-1")
    begin(run)
    os.utime(tmp_path / "open.json", (time.time() + 1e8,) * 2)
    assert leased_by_other(run, "job-2", hours=1)  # job-1 may live; its clock was wrong
    assert abs((tmp_path / "open.json").stat().st_mtime - time.time()) < 60


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff", b'{"format": "arl.monitoring-run/9"}']
)
def test_a_damaged_state_is_restored_from_its_copy(tmp_path: Path, damage: bytes) -> None:
    run = a_run(tmp_path)
    begin(run)
    (tmp_path / "open.json").write_bytes(damage)
    assert current(tmp_path) == run
    assert current(tmp_path) == run
    assert len(list(tmp_path.glob("open.json.damaged-*"))) == 1
    (tmp_path / "open.json").write_bytes(damage)
    (run.folder / "run.json").write_bytes(damage)
    assert current(tmp_path) is None  # and the loop begins anew


def test_the_state_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    begin(a_run(tmp_path))
    assert (tmp_path / "open.json").stat().st_mode & 0o077 == 0


def test_a_run_that_is_set_aside_comes_back_as_it_was(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    begin(run)
    (run.folder / "intake.json").write_text("{}")
    park(run)
    assert current(tmp_path) is None
    begin(a_run(tmp_path, name="r2"))
    (tmp_path / "open.json").write_text("damaged")
    restored = current(tmp_path)
    assert restored is not None
    assert restored.name == "r2"  # not the parked one
    end(restored)
    assert read_run(tmp_path, "r1") == run
    unpark(run)
    assert current(tmp_path) == run
    assert (run.folder / "intake.json").exists()


def test_a_view_is_made_of_links_that_may_move(tmp_path: Path) -> None:
    write_batch(tmp_path / "project/data", "s/0")
    view = tmp_path / "project/monitor/view"
    for _ in range(2):  # a second time after a kill
        link_batches(tmp_path / "project/data", ["s/0"], view)
    (tmp_path / "project").rename(tmp_path / "moved")
    assert (tmp_path / "moved/monitor/view/s/0/batch.json").read_text() == '"s/0"'
    with pytest.raises(FileNotFoundError, match="batch s/7 is not in corpus"):
        link_batches(tmp_path / "moved/data", ["s/7"], tmp_path / "moved/monitor/view")


def test_a_view_of_a_view_shows_the_same_batch(tmp_path: Path) -> None:
    write_batch(tmp_path / "data", "s/0")
    link_batches(tmp_path / "data", ["s/0"], tmp_path / "a/view")
    link_batches(tmp_path / "a/view", ["s/0"], tmp_path / "b/c/view")
    assert (tmp_path / "b/c/view/s/0/batch.json").is_file()


def test_a_batch_is_adopted_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "monitor")
    write_batch(run.corpus, "s/r1")
    write_batch(tmp_path / "data", "s/0")
    adopt(run, tmp_path / "data")
    before = tree_hash(tmp_path / "data")
    assert (tmp_path / "data/s/r1/batch.json").is_file()
    adopt(run, tmp_path / "data")
    assert tree_hash(tmp_path / "data") == before
    adopt(a_run(tmp_path / "monitor", incoming=None), tmp_path / "data")
    assert tree_hash(tmp_path / "data") == before


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir(), reason="no second file system to move a batch to"
)
def test_a_batch_is_adopted_across_file_systems(tmp_path: Path) -> None:
    corpus = Path("/dev/shm") / f"arl-test-{os.getpid()}"
    run = a_run(tmp_path)
    write_batch(run.corpus, "s/r1")
    try:
        adopt(run, corpus)
        assert (corpus / "s/r1/batch.json").read_text() == '"s/r1"'
        assert [path.name for path in (corpus / "s").iterdir()] == ["r1"]
    finally:
        subprocess.run(["rm", "-r", str(corpus)], check=True)

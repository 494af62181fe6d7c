"""What arrives in a folder or a bucket, and when it is complete."""

import os
import time
from pathlib import Path

import pytest

from arl.ingest.inbox import fetch, list_batches
from arl.storage.s3 import Store

SETTLE = 30.0


def deliver(
    inbox: Path, name: str = "clinic/week-1", files: int = 3, marker: str | None = ""
) -> Path:
    batch = inbox / name
    (batch / "deep").mkdir(parents=True)
    for number in range(files):
        (batch / "deep" / f"{number}.dcm").write_bytes(bytes([number]) * (number + 1))
    if marker is not None:
        batch.with_name(batch.name + ".complete").write_text(marker)
    return batch


def incomplete_reason(inbox: Path, settle: float = 0, later: float = 0) -> str:
    [batch] = list_batches(str(inbox), settle, time.time() + later)
    return batch.incomplete_reason


def test_a_marked_batch_is_complete(tmp_path: Path) -> None:
    deliver(tmp_path)
    (tmp_path / "clinic/notes.txt").write_text("of no batch")
    (tmp_path / "clinic/.hidden").mkdir()
    [batch] = list_batches(str(tmp_path), 0, time.time())
    assert (batch.name, batch.site, batch.num_files, batch.num_bytes, batch.incomplete_reason) == (
        "clinic/week-1",
        "clinic",
        3,
        6,
        "",
    )
    assert fetch(str(tmp_path), batch, tmp_path / "copy") == tmp_path / "clinic/week-1"
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        (None, "its sender has not written its marker yet"),
        ("4", "its marker announces 4 files and there are 3"),
        ("2", "its marker announces 2 files and there are 3"),
        ("3", ""),
        (" 3\n", ""),
    ],
)
def test_a_half_uploaded_batch_waits(tmp_path: Path, marker: str | None, reason: str) -> None:
    deliver(tmp_path, marker=marker)
    assert incomplete_reason(tmp_path) == reason


def test_a_batch_without_a_file_waits(tmp_path: Path) -> None:
    deliver(tmp_path, files=0)
    assert incomplete_reason(tmp_path, SETTLE, later=2 * SETTLE) == "it has no files yet"


@pytest.mark.parametrize("site", ["St Mary", "-x", "a" * 33])
def test_a_site_must_have_a_plain_name(tmp_path: Path, site: str) -> None:
    deliver(tmp_path, f"{site}/week-1")
    [batch] = list_batches(str(tmp_path), 0, time.time())
    assert batch.problem.startswith("the name of its site is not a short name")
    assert site not in batch.alias


def test_a_batch_that_is_quiet_needs_no_marker(tmp_path: Path) -> None:
    deliver(tmp_path, marker=None)
    assert incomplete_reason(tmp_path, SETTLE, later=SETTLE - 5) != ""
    assert incomplete_reason(tmp_path, SETTLE, later=SETTLE + 5) == ""


def test_old_times_that_a_copying_tool_sets_do_not_make_a_batch_quiet(tmp_path: Path) -> None:
    batch = deliver(tmp_path, marker=None)
    for file in batch.rglob("*"):
        os.utime(file, (0, 0))
    assert incomplete_reason(tmp_path, SETTLE, later=SETTLE - 5) != ""


def test_a_marker_that_is_wrong_counts_however_quiet_it_is(tmp_path: Path) -> None:
    deliver(tmp_path, marker="7")
    assert incomplete_reason(tmp_path, SETTLE, later=2 * SETTLE).startswith(
        "its marker announces 7 files"
    )


def test_the_fingerprint_tells_of_a_change_in_size_name_or_time(tmp_path: Path) -> None:
    batch = deliver(tmp_path)

    def fingerprint() -> str:
        [batch] = list_batches(str(tmp_path), 0, time.time())
        return batch.fingerprint

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    (batch / "deep/2.dcm").write_bytes(b"longer than before")
    seen.append(fingerprint())
    (batch / "deep/2.dcm").rename(batch / "deep/3.dcm")
    seen.append(fingerprint())
    os.utime(batch / "deep/0.dcm", (1, 1))
    seen.append(fingerprint())
    assert len(set(seen)) == 4


def test_batches_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2", "a/9", "b/1"):
        deliver(tmp_path, name)
    assert [batch.name for batch in list_batches(str(tmp_path), 0, time.time())] == [
        "a/9",
        "b/1",
        "b/2",
    ]


def test_an_inbox_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        list_batches(str(tmp_path / "nowhere"), 0, 0)


@pytest.mark.slow
def test_a_bucket_is_an_inbox_too(s3_bucket: str, tmp_path: Path) -> None:
    store, inbox = Store(f"s3://{s3_bucket}/in"), f"s3://{s3_bucket}/in"
    assert list_batches(inbox, SETTLE, time.time()) == []
    for number in range(3):
        store.put(f"clinic/week-1/deep/{number}.dcm", bytes([number]) * (number + 1))
    [batch] = list_batches(inbox, SETTLE, time.time() + 2 * SETTLE)
    assert (
        batch.incomplete_reason == "its sender has not written its marker yet"
    )  # S3 batches need one
    store.put("clinic/week-1.complete", b"4")
    assert (
        list_batches(inbox, 0, time.time())[0].incomplete_reason
        == "its marker announces 4 files and there are 3"
    )
    store.put("clinic/week-1.complete", b"3")
    [batch] = list_batches(inbox, 0, time.time())
    assert (batch.name, batch.num_files, batch.num_bytes, batch.incomplete_reason) == (
        "clinic/week-1",
        3,
        6,
        "",
    )
    folder = fetch(inbox, batch, tmp_path / "copy")
    assert {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.dcm")
    } == {f"deep/{number}.dcm": bytes([number]) * (number + 1) for number in range(3)}
    store.remove("clinic/week-1/deep/0.dcm")
    assert fetch(inbox, batch, folder) == folder  # not fetched twice
    store.put("clinic/week-1/deep/2.dcm", b"of another size")
    assert list_batches(inbox, 0, time.time())[0].fingerprint != batch.fingerprint


@pytest.mark.slow
def test_an_object_whose_name_leads_elsewhere_is_not_fetched(
    s3_bucket: str, tmp_path: Path
) -> None:
    inbox = f"s3://{s3_bucket}/evil"
    Store(inbox).put(
        f"clinic/week-1/{tmp_path}/escaped", b"x"
    )  # an absolute path once its batch is cut off
    Store(inbox).put("clinic/week-1.complete", b"")
    [batch] = list_batches(inbox, 0, time.time())
    with pytest.raises(OSError, match="leads out of"):
        fetch(inbox, batch, tmp_path / "in" / "copy")
    assert not list(tmp_path.rglob("escaped"))

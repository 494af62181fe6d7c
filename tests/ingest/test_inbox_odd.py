"""Entries of an inbox that are no batch: each refuses its own batch, and the others are listed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arl.ingest.inbox import IncomingBatch, list_batches


def deliver(inbox: Path, name: str, marker: bytes | None = b"") -> Path:
    batch = inbox / name
    (batch / "deep").mkdir(parents=True)
    (batch / "deep/0.dcm").write_bytes(b"x")
    if marker is not None:
        Path(f"{batch}.complete").write_bytes(marker)
    return batch


def broken_link(batch: Path) -> None:
    (batch / "deep/1.dcm").symlink_to(batch / "nowhere")


def link_loop(batch: Path) -> None:
    (batch / "deep/1").symlink_to(batch / "deep/2")
    (batch / "deep/2").symlink_to(batch / "deep/1")


def link_to_itself(batch: Path) -> None:
    (batch / "deep/again").symlink_to(batch)


def link_outside(batch: Path) -> None:
    (batch / "passwd").symlink_to("/etc/passwd")


def fifo(batch: Path) -> None:
    os.mkfifo(batch / "deep/pipe")


def unix_socket(batch: Path) -> None:
    here = os.getcwd()
    os.chdir(batch)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
    finally:
        os.chdir(here)


def name_not_utf8(batch: Path) -> None:
    (Path(os.fsdecode(os.fsencode(batch) + b"/\xff\xfe.dcm"))).write_bytes(b"x")


def marker_of(content: bytes) -> Callable[[Path], None]:
    def write(batch: Path) -> None:
        Path(f"{batch}.complete").write_bytes(content)

    return write


def marker_is_a_folder(batch: Path) -> None:
    Path(f"{batch}.complete").unlink()
    Path(f"{batch}.complete").mkdir()


def marker_is_a_broken_link(batch: Path) -> None:
    Path(f"{batch}.complete").unlink()
    Path(f"{batch}.complete").symlink_to("nowhere")


def marker_is_a_fifo(batch: Path) -> None:
    Path(f"{batch}.complete").unlink()
    os.mkfifo(f"{batch}.complete")


def batch_is_a_link(batch: Path) -> None:
    batch.rename(batch.with_name("elsewhere"))
    batch.symlink_to(batch.with_name("elsewhere"))


def batch_is_a_broken_link(batch: Path) -> None:
    batch.rename(batch.with_name(".elsewhere"))
    batch.symlink_to(batch.with_name("nowhere"))


ODD = {
    "broken link": (broken_link, "is a link"),
    "link loop": (link_loop, "is a link"),
    "link to itself": (link_to_itself, "is a link"),
    "link outside": (link_outside, "is a link"),
    "fifo": (fifo, "is a FIFO"),
    "socket": (unix_socket, "is a socket"),
    "name": (name_not_utf8, "not UTF-8"),
    "marker superscript": (marker_of("³".encode()), "neither empty nor the number"),
    "marker arabic digits": (marker_of("٣".encode()), "neither empty nor the number"),
    "marker of 5,000 digits": (marker_of(b"9" * 5000), "neither empty nor the number"),
    "marker negative": (marker_of(b"-1"), "neither empty nor the number"),
    "marker not UTF-8": (marker_of(b"\xff"), "neither empty nor the number"),
    "marker folder": (marker_is_a_folder, "not a plain file"),
    "marker broken link": (marker_is_a_broken_link, "not a plain file"),
    "marker fifo": (marker_is_a_fifo, "not a plain file"),
    "batch link": (batch_is_a_link, "it is a link"),
    "batch broken link": (batch_is_a_broken_link, "it is a link"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_entry_refuses_its_own_batch(tmp_path: Path, kind: str) -> None:
    make, problem = ODD[kind]
    deliver(tmp_path, "clinic/a-good")
    make(deliver(tmp_path, "clinic/b-odd"))
    deliver(tmp_path, "clinic/c-good")
    deliver(tmp_path, "other-site/good")
    listed = {batch.name: batch for batch in list_batches(str(tmp_path), 0, time.time())}
    good = ("clinic/a-good", "clinic/c-good", "other-site/good")
    assert all(not listed[name].problem + listed[name].incomplete_reason for name in good)
    odd = listed["clinic/b-odd"]
    assert problem in odd.problem
    assert "b-odd" not in odd.alias


def test_the_names_of_sites_and_batches_may_be_odd(tmp_path: Path) -> None:
    for name in (b"clinic/\xff", b"\xfe-site/week-1", "St Mary/Müller, Anna".encode()):
        deliver(tmp_path, os.fsdecode(name))
    deliver(tmp_path, "clinic/good")
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    listed = list_batches(str(tmp_path), 0, time.time())
    assert sorted(bool(batch.problem) for batch in listed) == [False, True, True, True]
    for batch in listed:
        batch.name.encode()  # a log line can hold it
        assert "Müller" not in batch.alias
        assert "Müller" not in batch.problem


def test_a_mended_batch_is_looked_at_again(tmp_path: Path) -> None:
    def only() -> IncomingBatch:
        [batch] = list_batches(str(tmp_path), 0, time.time())
        return batch

    batch = deliver(tmp_path, "clinic/odd")
    broken_link(batch)
    refused = only()
    assert refused.problem
    assert only().fingerprint == refused.fingerprint  # refused once
    (batch / "deep/1.dcm").unlink()
    assert not only().problem
    assert only().fingerprint != refused.fingerprint
    marker_of(b"one")(batch)
    refused = only()
    assert refused.problem
    marker_of(b"1")(batch)
    assert not only().problem
    assert only().fingerprint != refused.fingerprint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_batch_without_rights_is_refused(tmp_path: Path) -> None:
    deliver(tmp_path, "clinic/good")
    deliver(tmp_path, "clinic/closed").joinpath("deep").chmod(0)
    deliver(tmp_path, "clinic/unreadable").joinpath("deep/0.dcm").chmod(0)
    program = (
        "import os, sys; from arl.ingest.inbox import list_batches\n"
        "os.setuid(65534)\n"
        "for batch in list_batches(sys.argv[1], 0, 1e12): print(batch.name, batch.problem)\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path(folder.anchor) and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines["clinic/good"] == ""
    assert "Permission denied" in lines["clinic/closed"]
    assert "Permission denied" in lines["clinic/unreadable"]

"""The object store, against a real S3 server."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from arl.storage.s3 import Revision, Store, is_address


@pytest.fixture
def store(s3_bucket: str) -> Store:
    return Store(f"s3://{s3_bucket}/some/prefix")


@pytest.mark.parametrize(
    "address", ["bucket", "s3://", "s3://Ab/x", "s3://a", "http://bucket/x", "s3://-bad-/x"]
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not s3://bucket"):
        Store(address)


def test_addresses_are_told_from_folders() -> None:
    assert is_address("s3://bucket/prefix")
    assert not is_address("registry")


@pytest.mark.parametrize("endpoint", ["localhost:9000", "ftp://host", "http://host/path"])
def test_a_malformed_endpoint_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL is"):
        Store("s3://bucket")


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PermissionError, match="set AWS_ACCESS_KEY_ID"):
        Store("s3://bucket").get("x")


@pytest.mark.parametrize("write", [False, True])
def test_an_endpoint_that_does_not_answer_is_named(
    write: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses connections
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        store = Store("s3://bucket")
        with pytest.raises(ConnectionError, match=endpoint) as caught:
            store.put_if_absent("x", b"") if write else store.get("x")
    assert "a-secret" not in str(caught.value)


class Overloaded(BaseHTTPRequestHandler):
    """A store that asks three times to be left alone before it takes an object."""

    asked = 0
    taken = b""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        busy = self.asked <= 3
        if not busy:
            type(self).taken = body
        self.send_response(503 if busy else 200)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def overloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Overloaded]]:
    handler = type("Handler", (Overloaded,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield handler
        server.shutdown()


def test_a_busy_store_is_asked_again(overloaded: type[Overloaded], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"13 bytes long")
    Store("s3://bucket").upload("x", tmp_path / "file")
    assert overloaded.asked == 4
    assert b"13 bytes long" in overloaded.taken


def test_a_busy_store_is_not_asked_again_to_create(overloaded: type[Overloaded]) -> None:
    with pytest.raises(ConnectionError, match="answered 503"):
        Store("s3://bucket").put_if_absent("x", b"once")  # whether it was written is not known
    assert overloaded.asked == 1


def test_links_of_an_hour_to_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(ValueError, match="1 to 168 hours, not 169"):
        Store("s3://bucket").link("x", 169)


@pytest.mark.slow
def test_bytes_come_back(store: Store) -> None:
    store.put("a/b c ü", b"one")
    store.put("a/b c ü", b"two")
    assert store.get("a/b c ü") == b"two"
    assert store.exists("a/b c ü")
    assert not store.exists("a")


@pytest.mark.slow
def test_a_file_comes_back(store: Store, tmp_path: Path) -> None:
    # larger than the 5 MiB above which the SDK writes in parts
    content = bytes(range(251)) * 29_000
    (tmp_path / "weights").write_bytes(content)
    store.upload("weights", tmp_path / "weights")
    store.download("weights", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.slow
def test_a_failed_download_leaves_the_file_as_it_was(store: Store, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("earlier")
    with pytest.raises(FileNotFoundError, match="nothing: it does not exist"):
        store.download("nothing", tmp_path / "copy")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("copy", "earlier")]


@pytest.mark.slow
def test_a_write_once_object_is_written_once(store: Store) -> None:
    store.put_if_absent("once", b"first")
    with pytest.raises(FileExistsError, match="some/prefix/once is there already"):
        store.put_if_absent("once", b"second")
    assert store.get("once") == b"first"
    store.check_create_once()
    assert [item.key for item in store.objects()] == ["once"]


@pytest.mark.slow
def test_a_list_is_sorted_and_below_the_prefix(store: Store, s3_bucket: str) -> None:
    Store(f"s3://{s3_bucket}/some").put("else", b"")
    for key, size in (("b/2", 3), ("a", 2), ("b/10", 5)):
        store.put(key, bytes(size))
    assert [(item.key, item.size) for item in store.objects()] == [
        ("a", 2),
        ("b/10", 5),
        ("b/2", 3),
    ]
    assert [item.key for item in store.objects("b/")] == ["b/10", "b/2"]
    store.remove("a")
    store.remove("a")
    assert not store.exists("a")


@pytest.mark.slow
def test_a_link_reads_one_object_without_credentials(store: Store) -> None:
    store.put("page", b"content")
    link = store.link("page", 2)
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"content"
    for broken in (link.split("?")[0], link.replace("some/prefix/page", "some/prefix/other")):
        with pytest.raises(urllib.error.HTTPError, match=r"40[03]"):
            urllib.request.urlopen(broken)


@pytest.mark.slow
def test_versions_are_kept(store: Store) -> None:
    store.keep_versions()
    for content in (b"one", b"two"):
        store.put("page", content)
    store.remove("page")
    assert not store.exists("page")
    newest, oldest = store.versions("page")
    assert (store.get("page", newest), store.get("page", oldest)) == (b"two", b"one")


@pytest.mark.slow
def test_a_pointer_moves_by_compare_and_swap(store: Store) -> None:
    assert store.pointer("champion") is None
    first = store.move("champion", b"a", None)
    second = store.move("champion", b"b", first)
    with pytest.raises(FileExistsError):
        store.move("champion", b"c", first)
    with pytest.raises(FileExistsError):
        store.move("champion", b"c", None)
    assert store.pointer("champion") == second == Revision(2, b"b")
    assert [revision.data for revision in store.history("champion")] == [b"a", b"b"]


@pytest.mark.slow
def test_of_writers_at_once_one_moves_a_pointer(store: Store) -> None:
    first = store.move("champion", b"start", None)
    won: list[bytes] = []
    gate = threading.Barrier(5)

    def write(name: bytes) -> None:
        rival = Store(store.address)
        gate.wait()
        try:
            rival.move("champion", name, first)
        except FileExistsError:
            return
        won.append(name)

    threads = [threading.Thread(target=write, args=(f"w{k}".encode(),)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.pointer("champion") == Revision(2, won[0])


@pytest.mark.slow
def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    absent = Store(f"s3://{s3_bucket}-x")
    for attempt in (
        lambda: absent.get("a"),
        lambda: absent.put_if_absent("a", b""),
        lambda: absent.objects(),
    ):
        with pytest.raises(FileNotFoundError, match="the bucket does not exist"):
            attempt()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value"), [("SECRET_ACCESS_KEY", "wrong"), ("ACCESS_KEY_ID", "arl:reader")]
)
def test_refused_credentials_are_said(
    s3_bucket: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AWS_{variable}", value)
    refused = Store(f"s3://{s3_bucket}")
    for attempt in (
        lambda: refused.get("a"),
        lambda: refused.put_if_absent("a", b""),
        lambda: refused.objects(),
    ):
        with pytest.raises(PermissionError, match="check the"):
            attempt()

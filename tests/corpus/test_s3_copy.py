"""A corpus in a bucket of a real S3 server: what stages read from it and add to it."""

import subprocess
import sys
from pathlib import Path

import pytest

from arl.cli import call
from arl.corpus.s3_copy import local_copy
from arl.files import tree_hash, write_json
from arl.storage.s3 import Store


def test_a_folder_is_itself(tmp_path: Path) -> None:
    with local_copy(str(tmp_path)) as folder:
        assert folder == str(tmp_path)


@pytest.fixture
def address(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    return f"s3://{s3_bucket}/corpus"


def add(address: str, tiny_corpus: Path, batch: str = "0000") -> None:
    with local_copy(address, "append") as folder:
        target = Path(folder) / "clinic" / batch
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", tiny_corpus / "clinic/0000", target], check=True)


@pytest.mark.slow
def test_what_is_sent_is_what_is_fetched(address: str, tiny_corpus: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"corpus s3://.*/corpus holds no complete batch"),
        local_copy(address),
    ):
        pass
    add(address, tiny_corpus)
    with local_copy(address) as folder:
        assert not list(
            Path(folder).rglob("shard-*.parquet")
        )  # they are read by row group: see test_streamed
    with local_copy(address, "full") as folder:
        assert tree_hash(Path(folder) / "clinic") == tree_hash(tiny_corpus / "clinic")
    shard = next(Path(folder).rglob("shard-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])  # as a full disk might leave it
    times = {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.*")}
    with local_copy(address) as again:
        assert tree_hash(Path(again) / "clinic") == tree_hash(tiny_corpus / "clinic")
    assert [path.name for path, time in times.items() if path.stat().st_mtime_ns != time] == [
        shard.name
    ]
    with local_copy(address, "append") as heads:
        assert [path.name for path in Path(heads).rglob("*") if path.is_file()] == ["batch.json"]
    assert not list(
        (tmp_path / "cache/corpus").glob("tmp*")
    )  # nothing heavy stays where batches were added


@pytest.mark.slow
def test_a_half_sent_batch_is_none_and_is_sent_again(
    address: str, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(address, tiny_corpus)
    whole = Store.upload

    def dies(store: Store, key: str, file: Path) -> None:
        if "shard" in key:
            raise ConnectionError("the network is gone")
        whole(store, key, file)

    monkeypatch.setattr(Store, "upload", dies)
    with pytest.raises(ConnectionError):
        add(address, tiny_corpus, "0001")
    monkeypatch.setattr(Store, "upload", whole)
    assert [item.key for item in Store(address).objects("clinic/0001/")] != []
    with local_copy(address) as folder:
        assert [path.name for path in (Path(folder) / "clinic").iterdir()] == ["0000"]
    add(address, tiny_corpus, "0001")
    with local_copy(address, "full") as folder:
        assert tree_hash(Path(folder) / "clinic/0001") == tree_hash(tiny_corpus / "clinic/0000")


@pytest.mark.slow
def test_two_who_send_one_batch(address: str, tiny_corpus: Path) -> None:
    """Two tries of one step agree; another batch of that name is refused."""
    with local_copy(address, "append") as late:
        add(address, tiny_corpus)
        subprocess.run(["cp", "-r", tiny_corpus / "clinic", late], check=True)
    before = contents(address)
    with pytest.raises(FileExistsError, match="another process has added"):
        sent_late(address, tiny_corpus)
    assert contents(address) == before


def contents(address: str) -> dict[str, bytes]:
    return {item.key: Store(address).get(item.key) for item in Store(address).objects()}


def sent_late(address: str, tiny_corpus: Path) -> None:
    """A batch of a name that was not there when it was begun, and is when it is sent."""
    Store(address).remove("clinic/0000/batch.json")
    with local_copy(address, "append") as late:
        add(address, tiny_corpus)
        subprocess.run(["cp", "-r", tiny_corpus / "clinic", late], check=True)
        write_json(Path(late) / "clinic/0000/batch.json", {"num_inputs": 1})
        next(Path(late).rglob("shard-*.parquet")).write_bytes(b"other images")


@pytest.mark.slow
def test_stages_read_and_write_it_as_components_call_them(
    address: str, tiny_corpus: Path, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    add(address, tiny_corpus)
    call("validate", tiny_overrides, corpus=address, validation=str(tmp_path / "validation"))
    assert (tmp_path / "validation/result.json").is_file()
    assert sys.modules["arl.corpus.s3_copy"]

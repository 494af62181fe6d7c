"""Training from shards in a real S3 server gives the images of the folder, also after a kill."""

import io
import os
import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from arl.corpus.manifest import read_manifest
from arl.corpus.remote_shards import (
    ADDRESS,
    RemoteShards,
    _extent,
    _PartialFile,
    _shrink,
    open_remote,
)
from arl.corpus.s3_copy import local_copy
from arl.corpus.shard_reader import read_images, read_masks
from arl.loading.loader import Examples, TrainingOrder, training_batches
from arl.storage.s3 import Store

CONFTEST = runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))


def test_a_row_group_is_read_from_its_bytes_alone(tiny_corpus: Path) -> None:
    shard = next(tiny_corpus.rglob("shard-*.parquet"))
    content, footer = shard.read_bytes(), pq.read_metadata(shard)
    assert footer.num_row_groups == 2
    for number in range(2):
        first, count = _extent(footer, number)
        part = _PartialFile(content[first : first + count], first, len(content))
        found = pq.ParquetFile(pa.PythonFile(part, "r"), metadata=footer).read_row_group(number)
        assert found.equals(pq.ParquetFile(shard).read_row_group(number))
    part.seek(first - 1)
    with pytest.raises(OSError, match="are not part of the row group"):
        part.read(2)
    assert part.seek(-1, io.SEEK_END) == len(content) - 1
    with pytest.raises(IndexError, match="there are 2 row groups"):
        _extent(footer, 2)


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    for age, name in enumerate(("d", "b", "c", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0").write_bytes(bytes(7))
        os.utime(tmp_path / name / "0", ns=(0, 10**9 * (10 - age)))
    _shrink(tmp_path, 15)
    assert sorted(file.parent.name for file in tmp_path.rglob("0")) == ["b", "d"]


def test_a_limit_is_a_positive_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_remote(tmp_path / "folder") is None
    (tmp_path / ADDRESS).write_text("s3://bucket/corpus")
    for wrong in ("much", "0"):
        monkeypatch.setenv("ARL_CACHE_GIB", wrong)
        with pytest.raises(ValueError, match=f"ARL_CACHE_GIB is '{wrong}', not a positive number"):
            open_remote(tmp_path)


@pytest.fixture
def address(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with the images of two hospitals, 240 of them in 8 row groups."""
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    for source in ("clinic", "hospital"):
        CONFTEST["write_batch"](tmp_path / "given", source, patients=60, seed=len(source))
    store = Store(f"s3://{s3_bucket}/corpus")
    for file in sorted((tmp_path / "given").rglob("*")):
        if file.is_file():
            store.upload(file.relative_to(tmp_path / "given").as_posix(), file)
    return store.address


@pytest.mark.slow
def test_training_reads_the_store_as_it_reads_a_folder(address: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    rows = read_manifest(given)
    with local_copy(address) as name:
        corpus = Path(name)
    assert not list(corpus.rglob("shard-*.parquet"))
    assert read_manifest(corpus).equals(rows)

    def batches(folder: Path, start: int) -> list[tuple[int, torch.Tensor]]:
        examples = Examples(folder, rows, 40, memory=40 * 40 * 64)  # so that an epoch reads again
        order = TrainingOrder(examples.layout, 16, seed=0)
        return [
            (batch.step, batch.batch.image)
            for batch in training_batches(examples, order, start, 40)
        ]

    whole = batches(given, 0)
    for start in (0, 23):  # from the beginning, and where a killed run goes on
        for (step, image), (other, streamed_image) in zip(
            whole[start:], batches(corpus, start), strict=True
        ):
            assert step == other
            assert torch.equal(image, streamed_image)
    kept = [file for file in (corpus / ".row-groups").rglob("*") if file.is_file()]
    assert len(kept) == 8
    masked = rows[rows["mask"].notna()].reset_index(drop=True)
    pairs = [*zip(read_images(given, rows), read_images(corpus, rows), strict=True)]
    pairs += zip(read_masks(given, masked), read_masks(corpus, masked), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_the_folder_stays_within_its_limit_and_damage_is_read_anew(
    address: str, tmp_path: Path
) -> None:
    with local_copy(address) as name:
        corpus = Path(name)
    rows = read_manifest(corpus)
    sizes = [
        _extent(pq.read_metadata(file), number)[1]
        for file in (tmp_path / "given").rglob("shard-*.parquet")
        for number in range(4)
    ]
    small = RemoteShards(Store(address), tmp_path / "small", 3 * max(sizes))
    shards = sorted({f"{row.source}/{row.batch}/{row.shard}" for row in rows.itertuples()})
    for _ in range(2):
        for shard in shards:
            for number in range(4):
                assert small.read(shard, number, ["id"]).num_rows in (24, 32)
                kept = sum(
                    file.stat().st_size
                    for file in (tmp_path / "small").rglob("*")
                    if file.is_file()
                )
                assert kept <= 4 * max(sizes)
    with pytest.raises(IndexError, match="there are 4 row groups"):
        small.read(shards[0], 4, ["id"])

    # a byte of what is kept turns: told, forgotten, and right the next time
    images = read_images(corpus, rows)
    victim = next(file for file in sorted((corpus / ".row-groups").rglob("*")) if file.is_file())
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ValueError, match=r"row group \d is not readable"):
        read_images(corpus, rows)
    assert all(np.array_equal(a, b) for a, b in zip(images, read_images(corpus, rows), strict=True))

    Store(address).remove(shards[0])
    open_remote.cache_clear()
    with pytest.raises(FileNotFoundError, match="the manifest of its batch names it"):
        read_images(corpus, rows)

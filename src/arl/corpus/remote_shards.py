"""Shards in an S3 store, read a row group at a time through a cache folder of bounded size.

An epoch reads each row group once, in an order that jumps between shards (`loader.TrainingOrder`).
So the unit of reading is the row group: one request of a few megabytes. The cache serves later
epochs, restarts and the other processes of a node.
"""

import io
import os
from functools import lru_cache
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from arl.files import atomic_file
from arl.storage.s3 import Store

# File in the folder of a corpus whose shards are in a store; it holds s3://bucket/prefix.
ADDRESS = ".store"
# Environment variable: size of the cache.
LIMIT = "ARL_CACHE_GIB"
_DEFAULT_GIB = 50.0
# Bytes at the end of a shard that normally hold its footer.
_TAIL = 1 << 18
# Bytes of the footer's length and of "PAR1".
_MAGIC = 8
# Fraction of the limit that is written between two cleanups, and that a cleanup frees.
_HEADROOM = 0.05


@lru_cache
def open_remote(corpus: Path) -> "RemoteShards | None":
    """The shards in the store that a corpus folder names, or None if it names no store.

    Raises:
        ValueError: $ARL_CACHE_GIB is not a positive number.
    """
    address_file = corpus / ADDRESS
    if not address_file.is_file():
        return None
    limit = os.environ.get(LIMIT) or str(_DEFAULT_GIB)
    try:
        size = int(float(limit) * (1 << 30))
    except ValueError:
        size = 0
    if size <= 0:
        raise ValueError(f"{LIMIT} is {limit!r}, not a positive number of GiB")
    store = Store(address_file.read_text(encoding="utf-8").strip())
    return RemoteShards(store, corpus / ".row-groups", size)


class RemoteShards:
    """Row groups of the shards below a store's address. Safe for several threads and processes."""

    def __init__(self, store: Store, cache: Path, limit: int) -> None:
        """`limit`: bytes of row groups that the folder `cache` keeps."""
        self._store, self._cache, self._limit = store, cache, limit
        self._footers: dict[str, tuple[pq.FileMetaData, int]] = {}
        self._lock = Lock()
        # Written since the last cleanup; the start value makes the first write clean up.
        self._written = int(limit * _HEADROOM)

    def read(self, shard: str, number: int, columns: list[str]) -> pa.Table:
        """Columns of a row group.

        Raises:
            FileNotFoundError: The store has no such shard.
            ArrowInvalid: The row group is damaged; the cache does not keep it.
            IndexError: The shard has no such row group.
            OSError: The store fails; see `Store`.
        """
        footer, size = self._footer(shard)
        first, count = _extent(footer, number)
        cached = self._cache / shard / str(number)
        part = _PartialFile(self._bytes(shard, cached, first, count), first, size)
        try:
            with pq.ParquetFile(
                pa.PythonFile(part, "r"), metadata=footer, page_checksum_verification=True
            ) as file:
                return file.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            cached.unlink(missing_ok=True)
            raise pa.ArrowInvalid(str(error)) from error

    def _footer(self, shard: str) -> tuple[pq.FileMetaData, int]:
        """Metadata of the shard's row groups, and the shard's length."""
        if shard not in self._footers:
            size = self._store.size(shard)
            count = min(_TAIL, size)
            tail = self._store.read(shard, size - count, count)
            needed = int.from_bytes(tail[-_MAGIC:-4], "little") + _MAGIC
            if count < needed <= size:
                count, tail = needed, self._store.read(shard, size - needed, needed)
            self._footers[shard] = (
                pq.read_metadata(pa.PythonFile(_PartialFile(tail, size - count, size), "r")),
                size,
            )
        return self._footers[shard]

    def _bytes(self, shard: str, cached: Path, first: int, count: int) -> bytes:
        try:
            content = cached.read_bytes()
        except FileNotFoundError:
            content = b""
        if len(content) == count:
            # The cleanup deletes the least recently used files.
            os.utime(cached)
            return content
        content = self._store.read(shard, first, count)
        self._make_room(count)
        with atomic_file(cached) as partial:
            partial.write_bytes(content)
        return content

    def _make_room(self, count: int) -> None:
        with self._lock:
            self._written += count
            if self._written < self._limit * _HEADROOM:
                return
            self._written = 0
            _shrink(self._cache, int(self._limit * (1 - _HEADROOM)))


def _shrink(folder: Path, limit: int) -> None:
    """Delete the least recently used files until `limit` bytes remain.

    Other processes may clean up the same folder.
    """
    files = []
    for file in folder.rglob("*"):
        try:
            if file.is_file():
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        except FileNotFoundError:
            continue
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= limit:
            return
        file.unlink(missing_ok=True)
        total -= size


def _extent(footer: pq.FileMetaData, number: int) -> tuple[int, int]:
    """Offset and length of a row group in its shard, bytes."""
    if not 0 <= number < footer.num_row_groups:
        raise IndexError(f"there are {footer.num_row_groups} row groups")
    group = footer.row_group(number)
    columns = [group.column(i) for i in range(group.num_columns)]
    first = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    last = max(
        (c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in columns
    )
    return first, last - first


class _PartialFile(io.RawIOBase):
    """A file of which only the bytes from `first` on are present."""

    def __init__(self, data: bytes, first: int, size: int) -> None:
        self._data, self._first, self._size, self._position = data, first, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        begin = self._position - self._first
        wanted = (
            self._size - self._position if count < 0 else min(count, self._size - self._position)
        )
        if begin < 0 or begin + wanted > len(self._data):
            raise OSError(
                f"bytes {self._position} to {self._position + wanted} are not part of the row group"
            )
        self._position += wanted
        return self._data[begin : begin + wanted]

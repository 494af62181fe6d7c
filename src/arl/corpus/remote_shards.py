"""Shards in an S3 store, read a row group at a time and kept in a folder of bounded size.

An epoch reads each row group once, in an order that jumps between shards (`loader.TrainingOrder`).
So the unit of reading is the row group, one request of a few megabytes, and what is kept of it
serves later epochs, restarts, and the other processes of a node.
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

ADDRESS = ".store"  # in the folder of a corpus whose shards are elsewhere: s3://bucket/prefix
LIMIT = "ARL_CACHE_GIB"  # how much of a corpus' shards is kept
_DEFAULT_GIB = 50.0
_TAIL = 1 << 18  # bytes at the end of a shard, which hold its footer
_MAGIC = 8  # bytes: length of the footer, "PAR1"
_ROOM = 0.05  # share of the limit that is written between two looks at the folder, and then freed


@lru_cache
def streamed(corpus: Path) -> "Streamed | None":
    """The shards of the store that a corpus folder names; None: it names none.

    Raises:
        ValueError: $ARL_CACHE_GIB is no positive number.
    """
    named = corpus / ADDRESS
    if not named.is_file():
        return None
    limit = os.environ.get(LIMIT) or str(_DEFAULT_GIB)
    try:
        size = int(float(limit) * (1 << 30))
    except ValueError:
        size = 0
    if size <= 0:
        raise ValueError(f"{LIMIT} is {limit!r}, which is not a positive number of GiB")
    return Streamed(Store(named.read_text(encoding="utf-8").strip()), corpus / ".row-groups", size)


class Streamed:
    """Row groups of the shards below a store's address. May be used from several threads and processes."""

    def __init__(self, store: Store, cache: Path, limit: int) -> None:
        """`limit`: bytes of row groups that stay in the folder `cache`."""
        self._store, self._cache, self._limit = store, cache, limit
        self._footers: dict[str, tuple[pq.FileMetaData, int]] = {}
        self._lock = Lock()
        self._written = int(limit * _ROOM)  # since the last look, so that there is one at the start

    def read(self, shard: str, number: int, columns: list[str]) -> pa.Table:
        """Columns of a row group.

        Raises:
            FileNotFoundError: the store has no such shard.
            ArrowInvalid, IndexError: it holds no such row group, or a damaged one, which is not
                kept.
            OSError: see `Store`.
        """
        footer, size = self._footer(shard)
        first, count = _extent(footer, number)
        place = self._cache / shard / str(number)
        part = _Part(self._bytes(shard, place, first, count), first, size)
        try:
            with pq.ParquetFile(
                pa.PythonFile(part, "r"), metadata=footer, page_checksum_verification=True
            ) as file:
                return file.read_row_group(number, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            place.unlink(missing_ok=True)
            raise pa.ArrowInvalid(str(error)) from error

    def _footer(self, shard: str) -> tuple[pq.FileMetaData, int]:
        """What the shard says of its row groups, and its length."""
        if shard not in self._footers:
            size = self._store.size(shard)
            count = min(_TAIL, size)
            tail = self._store.read(shard, size - count, count)
            needed = int.from_bytes(tail[-_MAGIC:-4], "little") + _MAGIC
            if count < needed <= size:
                count, tail = needed, self._store.read(shard, size - needed, needed)
            self._footers[shard] = (
                pq.read_metadata(pa.PythonFile(_Part(tail, size - count, size), "r")),
                size,
            )
        return self._footers[shard]

    def _bytes(self, shard: str, place: Path, first: int, count: int) -> bytes:
        try:
            found = place.read_bytes()
        except FileNotFoundError:
            found = b""
        if len(found) == count:
            os.utime(place)  # the folder forgets what was not used for longest
            return found
        found = self._store.read(shard, first, count)
        self._make_room(count)
        with atomic_file(place) as partial:
            partial.write_bytes(found)
        return found

    def _make_room(self, count: int) -> None:
        with self._lock:
            self._written += count
            if self._written < self._limit * _ROOM:
                return
            self._written = 0
            _shrink(self._cache, int(self._limit * (1 - _ROOM)))


def _shrink(folder: Path, limit: int) -> None:
    """Delete the files used longest ago until the others have `limit` bytes; other processes may do so too."""
    found = []
    for file in folder.rglob("*"):
        try:
            if file.is_file():
                told = file.stat()
                found.append((told.st_mtime_ns, told.st_size, file))
        except FileNotFoundError:
            continue
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= limit:
            return
        file.unlink(missing_ok=True)
        total -= size


def _extent(footer: pq.FileMetaData, number: int) -> tuple[int, int]:
    """Where a row group begins in its shard, and its length, bytes."""
    if not 0 <= number < footer.num_row_groups:
        raise IndexError(f"there are {footer.num_row_groups} row groups")
    group = footer.row_group(number)
    columns = [group.column(place) for place in range(group.num_columns)]
    first = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    last = max(
        (c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in columns
    )
    return first, last - first


class _Part(io.RawIOBase):
    """A file of which only the bytes from `first` on are known."""

    def __init__(self, data: bytes, first: int, size: int) -> None:
        self._data, self._first, self._size, self._place = data, first, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        )
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, count: int = -1) -> bytes:
        begin = self._place - self._first
        wanted = self._size - self._place if count < 0 else min(count, self._size - self._place)
        if begin < 0 or begin + wanted > len(self._data):
            raise OSError(
                f"bytes {self._place} to {self._place + wanted} are not those of the row group"
            )
        self._place += wanted
        return self._data[begin : begin + wanted]

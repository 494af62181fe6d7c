"""Read images and masks from the parquet shards of a corpus.

A shard holds row groups of `ROWS_PER_GROUP` images, so one short read reaches any image. An image
is stored as differences of its pixels (`pixels.pack`) under zstd, which is lossless. Every page
carries a checksum, and reading verifies it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.manifest import read_table
from arl.corpus.pixels import in_channels, unpack
from arl.corpus.record import Mask, Pixels
from arl.progress import progress

Indices = npt.NDArray[np.int64]
ROWS_PER_GROUP = 32
SHARD_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        # Pixels.
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        # Output of `pixels.pack`: H * W bytes for grey, 3 * H * W for RGB.
        pa.field("image", pa.binary(), nullable=False),
        # H * W bytes of 0 and 1.
        pa.field("mask", pa.binary()),
    ]
)
# Reads of fewer images finish before a progress bar is of use.
_PROGRESS_IMAGES = 2000


@dataclass(frozen=True, eq=False)
class RowGroupIndex:
    """Maps N manifest rows to the G row groups that store them.

    Attributes:
        row_groups: Shard path below the corpus and row group number in it, for each group.
        group: (N,), the group of each row.
        row_in_group: (N,), the row inside its row group.
        members: (N,), the rows sorted by group.
        bounds: (G + 1,), the start of each group in `members`.
    """

    row_groups: list[tuple[str, int]]
    group: Indices
    row_in_group: Indices
    members: Indices
    bounds: Indices

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> "RowGroupIndex":
        """Index manifest rows by their source, batch, shard and row."""
        paths = rows[["source", "batch", "shard"]].astype(str).agg("/".join, axis=1)
        shard, shards = pd.factorize(paths, sort=True)
        number, row_in_group = np.divmod(rows["row"].to_numpy(np.int64), ROWS_PER_GROUP)
        groups_per_shard = int(number.max(initial=0)) + 1
        keys, group, counts = np.unique(
            shard * groups_per_shard + number, return_inverse=True, return_counts=True
        )
        row_groups = [
            (str(shards[key // groups_per_shard]), int(key % groups_per_shard))
            for key in keys.tolist()
        ]
        members = np.argsort(group, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return cls(row_groups, group, row_in_group, members, bounds)

    def __len__(self) -> int:
        return len(self.group)

    def rows(self, group: int) -> Indices:
        """The rows of one group."""
        return self.members[self.bounds[group] : self.bounds[group + 1]]


class RowGroup:
    """One row group in memory, decompressed."""

    def __init__(self, corpus: Path, shard: str, number: int, *, masks: bool) -> None:
        """Read row group `number` of a shard below the corpus.

        The shard is a local file, or an object of the store that the corpus names (see
        `remote_shards`).

        Raises:
            ValueError: The row group is damaged.
            FileNotFoundError: The shard is missing.
            OSError: The store fails; see `arl.storage.s3.Store`.
        """
        columns = ["id", "height", "width", "image", *(["mask"] if masks else [])]
        file = corpus / shard
        try:
            table = _read_columns(corpus, shard, number, columns).combine_chunks()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{file} does not exist, but the manifest of its batch names it"
            ) from error
        except (pa.ArrowException, IndexError) as error:
            raise ValueError(f"{file}: row group {number} is not readable: {error}") from error
        self._file = file
        self._columns = {name: table[name].chunk(0) for name in columns}

    def image(self, row: int) -> Pixels:
        """The image uint8 (H, W), or RGB (H, W, 3)."""
        try:
            return unpack(memoryview(self._columns["image"][row].as_buffer()), *self._size(row))
        except (ValueError, IndexError) as error:
            raise ValueError(f"{self._file}, image {self._id(row)}: {error}") from error

    def mask(self, row: int) -> Pixels | None:
        """The mask uint8 (H, W) of 0 and 1, or None if the image has no mask."""
        cell = self._columns["mask"][row]
        if not cell.is_valid:
            return None
        try:
            return np.frombuffer(cell.as_buffer(), np.uint8).reshape(self._size(row))
        except ValueError as error:
            raise ValueError(f"{self._file}, mask of {self._id(row)}: {error}") from error

    def _size(self, row: int) -> tuple[int, int]:
        return self._columns["height"][row].as_py(), self._columns["width"][row].as_py()

    def _id(self, row: int) -> str:
        ids = self._columns["id"]
        return str(ids[row]) if row < len(ids) else f"number {row}"


def _read_columns(corpus: Path, shard: str, number: int, columns: list[str]) -> pa.Table:
    """Columns of a row group.

    Raises:
        ArrowException, IndexError, FileNotFoundError: See `RowGroup`.
    """
    file = corpus / shard
    if not file.is_file():
        # The SDK of the store takes time to import, and most corpora are local folders.
        from arl.corpus.remote_shards import open_remote

        remote = open_remote(corpus)
        if remote is None:
            raise FileNotFoundError(file)
        return remote.read(shard, number, columns)
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            return parquet.read_row_group(number, columns=columns, use_threads=False)
    except OSError as error:
        # Arrow raises OSError on a wrong checksum.
        raise pa.ArrowInvalid(str(error)) from error


def num_cpus() -> int:
    """The CPUs that this process may use."""
    return len(sched_getaffinity(0))


def read_images(corpus: Path, rows: pd.DataFrame, channels: int = 1) -> list[Pixels]:
    """Stored images in the order of `rows`: uint8 (H, W), or (H, W, 3) for three channels.

    Raises:
        ValueError: A shard or an image in it is damaged.
        FileNotFoundError: A shard is missing.
    """
    images: dict[int, Pixels] = {}

    def collect(position: int, row_group: RowGroup, row: int) -> None:
        images[position] = in_channels(row_group.image(row), channels)

    _for_each_row(corpus, rows, collect, masks=False)
    return [images[position] for position in range(len(rows))]


def read_masks(corpus: Path, rows: pd.DataFrame) -> list[Mask | None]:
    """Stored masks bool (H, W) in the order of `rows`, None for a row without a mask.

    Raises:
        ValueError: A shard or a mask in it is damaged.
        FileNotFoundError: A shard is missing.
    """
    masks: dict[int, Mask | None] = {}

    def collect(position: int, row_group: RowGroup, row: int) -> None:
        mask = row_group.mask(row)
        masks[position] = None if mask is None else mask.astype(np.bool_)

    _for_each_row(corpus, rows, collect, masks=True)
    return [masks[position] for position in range(len(rows))]


def _for_each_row(
    corpus: Path, rows: pd.DataFrame, use: Callable[[int, RowGroup, int], None], *, masks: bool
) -> None:
    """Call `use(position, row_group, row_in_group)` for every row.

    Row groups are read by threads: decompression releases the interpreter lock.
    """
    index = RowGroupIndex.from_rows(rows)

    def read(group: int) -> int:
        shard, number = index.row_groups[group]
        row_group = RowGroup(corpus, shard, number, masks=masks)
        for position in index.rows(group).tolist():
            use(position, row_group, int(index.row_in_group[position]))
        return len(index.rows(group))

    visible = len(rows) > _PROGRESS_IMAGES
    with (
        ThreadPoolExecutor(num_cpus()) as pool,
        progress(len(rows), "reading images", "image", visible=visible) as bar,
    ):
        for num_rows in pool.map(read, range(len(index.row_groups))):
            bar.update(num_rows)


def read_shard(file: Path) -> pd.DataFrame:
    """One shard as a table with the columns of `SHARD_SCHEMA`.

    Raises:
        ValueError: The file is not a shard.
    """
    return read_table(file, SHARD_SCHEMA)

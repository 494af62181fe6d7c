"""Images of the corpus in parquet shards, and their reading.

An image is stored as differences of its pixels (`pixels.pack`), which parquet compresses with zstd:
lossless, smaller than PNG and much faster to read. Pages carry checksums, which reading checks. Row
groups are small and of one size, so that any image is one short read away, and the bytes of a batch
depend on nothing but what was accepted, in its order.
"""

import errno
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.anatomy import anatomy_index
from arl.corpus.manifest import PROBES, QUARANTINE, SCHEMA, SPLITS, read_table
from arl.corpus.near_duplicates import alike
from arl.corpus.pixels import Stored, in_channels, store, unpack
from arl.corpus.record import Entry, Mask, Pixels
from arl.corpus.splits import DEFAULT, SPLIT_SCHEMA, split_by_patient
from arl.files import atomic_directory, write_json
from arl.progress import progress

Indices = npt.NDArray[np.int64]
ROWS_PER_GROUP = 32
SHARD_BYTES = 256 << 20
_LONG = 2000  # images whose reading takes long enough to show its progress
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHARD_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),  # pixels
        pa.field("width", pa.int32(), nullable=False),
        pa.field(
            "image", pa.binary(), nullable=False
        ),  # `pixels.pack`: H * W bytes if grey, 3 * H * W if RGB
        pa.field("mask", pa.binary()),  # H * W bytes of 0 and 1
    ]
)
# level 1 is the fastest to write and, on differences of speckle, the smallest; dictionaries and
# statistics over pixels would double the file
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


class DuplicateIdError(ValueError):
    """An id that the batch, or another batch of the source, has already accepted."""


class _ShardWriter:
    """Appends images to shard-00000.parquet, shard-00001.parquet, ...; holds one row group in memory."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit  # bytes after which a shard is closed
        self._sink: Any = None  # pa.OSFile
        self._file: pq.ParquetWriter | None = None
        self._number = 0
        self._written = 0  # rows of the shard
        self._group: list[tuple[str, int, int, bytes, bytes | None]] = []

    def append(self, identifier: str, stored: Stored) -> tuple[str, int]:
        """Add an image; its shard and its row there."""
        place = self._name(), self._written + len(self._group)
        size = int(stored.columns["height"]), int(stored.columns["width"])
        self._group.append((identifier, *size, stored.image, stored.mask))
        if len(self._group) == ROWS_PER_GROUP:
            self._write_group()
            if self._sink.tell() >= self._limit:
                self._close_shard()
        return place

    def finish(self) -> None:
        """Write what is left."""
        if self._group:
            self._write_group()
        self._close_shard()

    def discard(self) -> None:
        """Let go of the open file without writing what is left."""
        self._group = []
        self._close_shard()

    def _name(self) -> str:
        return f"shard-{self._number:05d}.parquet"

    def _write_group(self) -> None:
        if self._file is None:
            self._sink = pa.OSFile(str(self._folder / self._name()), "wb")
            self._file = pq.ParquetWriter(self._sink, SHARD_SCHEMA, **_PARQUET)
        columns = [list(column) for column in zip(*self._group, strict=True)]
        self._file.write_table(
            pa.table(columns, schema=SHARD_SCHEMA), row_group_size=ROWS_PER_GROUP
        )
        self._written += len(self._group)
        self._group = []

    def _close_shard(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        finally:
            self._sink.close()
        self._number += 1
        self._written = 0


class BatchWriter:
    """Writes one batch of one source; the folder appears whole when the block ends without an error.

    The unit of account is the input (a file, or an entry of an index): it ends as one or more
    accepted images or as one refusal. `expect` says how many inputs were given; `accepted + refused
    = given` is checked at the end. Images of one input are accepted one after the other; refusing
    that input takes them back.
    """

    def __init__(
        self,
        corpus: Path,
        source: str,
        batch: str,
        store_size: int,
        *,
        licence: str,
        citation: str,
        shard_bytes: int = SHARD_BYTES,
        made_by: Mapping[str, Any] | None = None,
    ) -> None:
        """`store_size`: long side above which an image is scaled down, pixels; `made_by`: more for batch.json.

        Raises:
            ValueError: the source or batch is not a plain folder name.
        """
        for name in (source, batch):
            if not _FOLDER.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot name a folder of the corpus: use letters, digits, '.', '_' and '-'"
                )
        self.folder = corpus / source / batch
        self.store_size = store_size
        self._source, self._batch = source, batch
        self._about = {"licence": licence, "citation": citation, **(made_by or {})}
        self._shard_bytes = shard_bytes
        self._stack = ExitStack()
        self._partial = Path()
        self._rows: list[dict[str, Any]] = []
        self._refused: list[dict[str, str]] = []
        self._ids: set[str] = set()
        self._splits: dict[str, dict[str, str]] = {}
        self._earlier: set[str] = set()  # ids of the source's other batches
        self._pending: list[tuple[dict[str, Any], Stored]] = []  # images of the input being read
        self._pending_input: str | None = None
        self._accepted = 0
        self._thinned = 0
        self._given: int | None = None

    def __enter__(self) -> Self:
        if self.folder.exists():
            raise ValueError(
                f"{self.folder} exists: a batch is written once; choose another batch name or delete it"
            )
        self._earlier = _ids_of_source(self.folder.parent)
        self._partial = self._stack.enter_context(atomic_directory(self.folder))
        self._shards = _ShardWriter(self._partial, self._shard_bytes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with self._stack:
                    self._finish()
            else:
                try:
                    self._shards.discard()
                finally:
                    self._stack.__exit__(kind, error, trace)
        except OSError as failure:
            raise self._named(failure) from failure
        if isinstance(error, OSError):
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        if error.errno != errno.ENOSPC:
            return error
        return OSError(
            errno.ENOSPC, "no space left on the disk; the batch was discarded", str(self.folder)
        )

    def expect(self, given: int) -> None:
        """Say how many inputs there are; a different number at the end is an error."""
        self._given = given

    def accept(
        self, image: Pixels, *, mask: Mask | None = None, input: str | None = None, **entry: Any
    ) -> str:
        """Store one image uint8 (H, W) or RGB (H, W, 3) and return its id, "<source>:<key>".

        Args:
            mask: bool (H, W) of what the entry's `mask_name` says.
            input: the file or index entry it came from; the key where it is not given.
            entry: the fields of `record.Entry`; `key` and `anatomy` are required.

        Raises:
            ValueError: duplicate id, unknown anatomy or probe, pixels or mask of another type or
                shape.
        """
        return self.append(store(image, mask, self.store_size), Entry(**entry), input)

    def append(self, stored: Stored, entry: Entry, input: str | None = None) -> str:
        """`accept` for an image that `store` has prepared, in another process for instance."""
        identifier = f"{self._source}:{entry.key}"
        if identifier in self._ids or identifier in self._earlier:
            raise DuplicateIdError(f"duplicate id {identifier!r} for batch {self.folder}")
        _check_entry(identifier, entry, stored.mask is not None)
        self._begin(input or entry.key)
        self._ids.add(identifier)
        self._pending.append((self._row(identifier, stored, entry), stored))
        for protocol, split in entry.splits.items():
            self.split(protocol, identifier, split)
        return identifier

    def _row(self, identifier: str, stored: Stored, entry: Entry) -> dict[str, Any]:
        spacing = entry.pixel_spacing_mm
        scale = stored.columns["original_height"] / stored.columns["height"]
        return {
            "id": identifier,
            "source": self._source,
            "batch": self._batch,
            "site": entry.site or self._source,
            "patient": None if entry.patient is None else f"{self._source}:{entry.patient}",
            "clip": None if entry.clip is None else f"{self._source}:{entry.clip}",
            "frame": entry.frame,
            "anatomy": entry.anatomy,
            "anatomy_rule": entry.anatomy_rule,
            "region_rule": entry.region_rule,
            "probe": entry.probe,
            "device": entry.device,
            "label": entry.label,
            "mask": entry.mask_name,
            "pixel_spacing_mm": None if spacing is None else spacing * scale,
            "depth_cm": entry.depth_cm,
            "color_doppler": entry.color_doppler,
            "synthetic": entry.synthetic,
            **stored.columns,
        }

    def refuse(self, input: str, reason: str) -> None:
        """Put an input into quarantine; images it has already given are taken back."""
        if input == self._pending_input:
            for row, _ in self._pending:
                self._forget(row["id"])
            self._pending, self._pending_input = [], None
        self._flush_input()
        self._refused.append(
            {"source": self._source, "batch": self._batch, "input": input, "reason": reason}
        )

    def thin(self, frames: int) -> None:
        """Count frames of an accepted input that were left out, since they are near to others of their clip."""
        self._thinned += frames

    def split(self, protocol: str, id: str, split: str) -> None:
        """Put an accepted image into a split of a protocol.

        Raises:
            ValueError: the id was not accepted, or the split is not train, val or test.
        """
        if id not in self._ids or split not in SPLITS:
            raise ValueError(
                f"split {split!r} of {id!r} under {protocol!r}: expected one of {SPLITS} and an accepted id"
            )
        self._splits.setdefault(protocol, {})[id] = split

    def _begin(self, input: str) -> None:
        if input != self._pending_input:
            self._flush_input()
            self._pending_input = input

    def _forget(self, identifier: str) -> None:
        self._ids.discard(identifier)
        for protocol in self._splits.values():
            protocol.pop(identifier, None)

    def _flush_input(self) -> None:
        for row, stored in self._pending:
            shard, position = self._shards.append(row["id"], stored)
            self._rows.append({**row, "shard": shard, "row": position})
        self._accepted += self._pending_input is not None
        self._pending, self._pending_input = [], None

    def _finish(self) -> None:
        self._flush_input()
        self._shards.finish()
        self._check_counts()
        manifest = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        pq.write_table(manifest, self._partial / "manifest.parquet")
        pq.write_table(
            pa.Table.from_pylist(self._refused, schema=QUARANTINE),
            self._partial / "quarantine.parquet",
        )
        splits = self._write_splits(manifest.to_pandas())
        write_json(self._partial / "batch.json", self._summary(splits))

    def _check_counts(self) -> None:
        given = self._accepted + len(self._refused) if self._given is None else self._given
        if self._accepted + len(self._refused) != given:
            counts = f"{self._accepted} accepted and {len(self._refused)} refused of {given} given"
            raise ValueError(
                f"batch {self.folder}: {counts}; every input must end as one or the other"
            )

    def _write_splits(self, rows: pd.DataFrame) -> dict[str, Any]:
        if DEFAULT not in self._splits:
            ids, _ = split_by_patient(rows, units=alike(rows))
            self._splits[DEFAULT] = {
                identifier: split for split, members in ids.items() for identifier in members
            }
        (self._partial / "splits").mkdir()
        for protocol, members in self._splits.items():
            self._write_split(protocol, members, rows["id"].tolist())
        return {
            name: {s: list(members.values()).count(s) for s in SPLITS}
            for name, members in self._splits.items()
        }

    def _write_split(self, protocol: str, members: dict[str, str], ids: list[str]) -> None:
        missing = [identifier for identifier in ids if identifier not in members]
        if missing:
            raise ValueError(
                f"batch {self.folder}: protocol {protocol!r} gives no split for {missing[0]}"
            )
        table = pa.table([ids, [members[identifier] for identifier in ids]], schema=SPLIT_SCHEMA)
        pq.write_table(table, self._partial / "splits" / f"{protocol}.parquet")

    def _summary(self, splits: dict[str, Any]) -> dict[str, Any]:
        return {
            "source": self._source,
            "batch": self._batch,
            "given": self._accepted + len(self._refused),
            "accepted": self._accepted,
            "refused": len(self._refused),
            "images": len(self._rows),
            "thinned": self._thinned,
            "store_size": self.store_size,
            "splits": splits,
            **self._about,
        }


def _check_entry(identifier: str, entry: Entry, masked: bool) -> None:
    anatomy_index(entry.anatomy)
    if masked != (entry.mask_name is not None):
        raise ValueError(f"image {identifier}: a mask and the name of what it shows come together")
    if entry.probe not in PROBES:
        raise ValueError(
            f"image {identifier}: probe {entry.probe!r} is not one of {', '.join(PROBES)}"
        )


def _ids_of_source(folder: Path) -> set[str]:
    """Ids in the complete batches of a source."""
    done = [file.parent for file in folder.glob("[!.]*/batch.json")]
    columns = (pq.read_table(batch / "manifest.parquet", columns=["id"])["id"] for batch in done)
    return {identifier for column in columns for identifier in column.to_pylist()}


@dataclass(frozen=True, eq=False)
class Layout:
    """Which of N manifest rows lie in one row group.

    Attributes:
        places: shard below the corpus and row group in it, of each of G groups.
        group: (N,), the group of each row.
        inside: (N,), its row in the row group.
        members: (N,), the rows, group by group.
        bounds: (G + 1,), where the members of each group begin.
    """

    places: list[tuple[str, int]]
    group: Indices
    inside: Indices
    members: Indices
    bounds: Indices

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Layout":
        """The layout of manifest rows."""
        names = (
            rows["source"].astype(str)
            + "/"
            + rows["batch"].astype(str)
            + "/"
            + rows["shard"].astype(str)
        )
        shard, files = pd.factorize(names, sort=True)
        groups, inside = np.divmod(rows["row"].to_numpy(np.int64), ROWS_PER_GROUP)
        most = int(groups.max(initial=0)) + 1
        found, group, counts = np.unique(
            shard * most + groups, return_inverse=True, return_counts=True
        )
        places = [(str(files[key // most]), int(key % most)) for key in found.tolist()]
        members = np.argsort(group, kind="stable")
        return cls(places, group, inside, members, np.concatenate([[0], np.cumsum(counts)]))

    def __len__(self) -> int:
        return len(self.group)

    def rows(self, group: int) -> Indices:
        """The rows of a group."""
        return self.members[self.bounds[group] : self.bounds[group + 1]]


class RowGroup:
    """A row group in memory, compressed no more."""

    def __init__(self, corpus: Path, shard: str, number: int, *, masks: bool) -> None:
        """A row group of a shard below the corpus, or in the store that the corpus names (`streamed`).

        Raises:
            ValueError: it is not readable.
            FileNotFoundError: the shard is missing.
            OSError: see `arl.storage.s3.Store`.
        """
        columns = ["id", "height", "width", "image", *(["mask"] if masks else [])]
        file = corpus / shard
        try:
            table = _read(corpus, shard, number, columns).combine_chunks()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{file} does not exist, but the manifest of its batch names it"
            ) from error
        except (pa.ArrowException, IndexError) as error:
            raise ValueError(f"{file}: row group {number} is not readable: {error}") from error
        self._file = file
        self._columns = {name: table[name].chunk(0) for name in columns}

    def _size(self, row: int) -> tuple[int, int]:
        return self._columns["height"][row].as_py(), self._columns["width"][row].as_py()

    def image(self, row: int) -> Pixels:
        """uint8 (H, W), or RGB (H, W, 3)."""
        try:
            return unpack(memoryview(self._columns["image"][row].as_buffer()), *self._size(row))
        except (ValueError, IndexError) as error:
            raise ValueError(f"{self._file}, image {self._name(row)}: {error}") from error

    def mask(self, row: int) -> Pixels | None:
        """uint8 (H, W) of 0 and 1; None: there is none."""
        cell = self._columns["mask"][row]
        if not cell.is_valid:
            return None
        try:
            return np.frombuffer(cell.as_buffer(), np.uint8).reshape(self._size(row))
        except ValueError as error:
            raise ValueError(f"{self._file}, mask of {self._name(row)}: {error}") from error

    def _name(self, row: int) -> str:
        ids = self._columns["id"]
        return str(ids[row]) if row < len(ids) else f"number {row}"


def _read(corpus: Path, shard: str, number: int, columns: list[str]) -> pa.Table:
    """Columns of a row group.

    Raises:
        ArrowException, IndexError, FileNotFoundError
    """
    file = corpus / shard
    if not file.is_file():
        from arl.corpus.remote_shards import (
            streamed,  # the SDK takes time to import, and most corpora are folders
        )

        remote = streamed(corpus)
        if remote is None:
            raise FileNotFoundError(file)
        return remote.read(shard, number, columns)
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            return opened.read_row_group(number, columns=columns, use_threads=False)
    except OSError as error:  # what Arrow makes of a wrong checksum
        raise pa.ArrowInvalid(str(error)) from error


def _for_each(
    corpus: Path, rows: pd.DataFrame, use: Callable[[int, RowGroup, int], None], *, masks: bool
) -> None:
    """Call `use(position, row group, row in it)` for every row, on threads: reading releases the interpreter lock."""
    layout = Layout.of(rows)

    def read(group: int) -> int:
        shard, number = layout.places[group]
        stored = RowGroup(corpus, shard, number, masks=masks)
        for position in layout.rows(group).tolist():
            use(position, stored, int(layout.inside[position]))
        return len(layout.rows(group))

    shown = len(rows) > _LONG
    with (
        ThreadPoolExecutor(cores()) as pool,
        progress(len(rows), "reading images", "image", shown=shown) as bar,
    ):
        for done in pool.map(read, range(len(layout.places))):
            bar.update(done)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(sched_getaffinity(0))


def read_images(corpus: Path, rows: pd.DataFrame, channels: int = 1) -> list[Pixels]:
    """Stored images of manifest rows, in their order: uint8 (H, W), or RGB (H, W, 3) for three channels.

    Raises:
        ValueError: a shard or an image in it is not readable.
        FileNotFoundError: a shard is missing.
    """
    images: dict[int, Pixels] = {}

    def keep(position: int, stored: RowGroup, row: int) -> None:
        images[position] = in_channels(stored.image(row), channels)

    _for_each(corpus, rows, keep, masks=False)
    return [images[position] for position in range(len(rows))]


def read_masks(corpus: Path, rows: pd.DataFrame) -> list[Mask | None]:
    """Stored masks of manifest rows, in their order: bool (H, W), None where there is none."""
    masks: dict[int, Mask | None] = {}

    def keep(position: int, stored: RowGroup, row: int) -> None:
        mask = stored.mask(row)
        masks[position] = None if mask is None else mask.astype(np.bool_)

    _for_each(corpus, rows, keep, masks=True)
    return [masks[position] for position in range(len(rows))]


def read_shard(file: Path) -> pd.DataFrame:
    """One shard as a table: columns of `SHARD_SCHEMA`.

    Raises:
        ValueError: the file is not a shard.
    """
    return read_table(file, SHARD_SCHEMA)

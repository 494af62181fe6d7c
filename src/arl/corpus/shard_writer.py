"""Write one batch of a corpus: shards, manifest, quarantine, splits and summary.

The bytes of a batch depend only on the accepted images and their order.
"""

import errno
import re
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.anatomy import anatomy_index
from arl.corpus.batch_summary import BATCH_FILE, BatchOrigin, BatchSummary
from arl.corpus.manifest import PROBES, QUARANTINE, SCHEMA, SPLITS
from arl.corpus.near_duplicates import merge_duplicate_groups
from arl.corpus.pixels import Stored, store
from arl.corpus.record import LEVELS, Entry, Mask, Pixels
from arl.corpus.shard_reader import ROWS_PER_GROUP, SHARD_SCHEMA
from arl.corpus.splits import DEFAULT, SPLIT_SCHEMA, split_by_patient
from arl.files import atomic_directory

SHARD_BYTES = 256 << 20
LABEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Level 1 is the fastest to write and, on differences of speckle, the smallest. Dictionaries and
# statistics over pixels would double the file.
_COMPRESSION: dict[str, str | int | bool] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


# One row of the manifest; `manifest.SCHEMA` holds the types of its columns.
Row = dict[str, object]


class DuplicateIdError(ValueError):
    """The batch, or another batch of the source, has accepted this id before."""


class _ShardWriter:
    """Appends images to shard-00000.parquet, shard-00001.parquet, ...

    Only one row group is in memory at a time.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """`max_bytes`: size at which a shard is closed and the next one begins."""
        self._folder, self._max_bytes = folder, max_bytes
        self._sink: pa.OSFile | None = None
        self._file: pq.ParquetWriter | None = None
        self._number = 0
        self._rows_written = 0
        self._group: list[tuple[str, int, int, bytes, bytes | None]] = []

    def append(self, identifier: str, stored: Stored) -> tuple[str, int]:
        """Add an image; return its shard and its row in the shard."""
        shard, row = self._shard_name(), self._rows_written + len(self._group)
        size = int(stored.columns["height"]), int(stored.columns["width"])
        self._group.append((identifier, *size, stored.image, stored.mask))
        if len(self._group) == ROWS_PER_GROUP:
            self._write_group()
            if self._sink is not None and self._sink.tell() >= self._max_bytes:
                self._close_shard()
        return shard, row

    def finish(self) -> None:
        """Write the last row group and close the shard."""
        if self._group:
            self._write_group()
        self._close_shard()

    def discard(self) -> None:
        """Close the shard without writing the last row group."""
        self._group = []
        self._close_shard()

    def _shard_name(self) -> str:
        return f"shard-{self._number:05d}.parquet"

    def _write_group(self) -> None:
        if self._file is None:
            self._sink = pa.OSFile(str(self._folder / self._shard_name()), "wb")
            self._file = pq.ParquetWriter(self._sink, SHARD_SCHEMA, **_COMPRESSION)
        columns = [list(column) for column in zip(*self._group, strict=True)]
        table = pa.table(columns, schema=SHARD_SCHEMA)
        self._file.write_table(table, row_group_size=ROWS_PER_GROUP)
        self._rows_written += len(self._group)
        self._group = []

    def _close_shard(self) -> None:
        if self._file is None or self._sink is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        finally:
            self._sink.close()
        self._number += 1
        self._rows_written = 0


class BatchWriter:
    """Writes one batch of one source.

    The batch folder appears complete when the `with` block ends without an error, and not at all
    otherwise. Each input (a file, or an entry of an index) ends as one or more accepted images or
    as one refusal. Images of one input must be accepted one after the other, and refusing the
    input removes them. At the end, `accepted + refused` must equal the number given to `expect`.
    """

    def __init__(
        self,
        corpus: Path,
        source: str,
        batch: str,
        store_size: int,
        *,
        origin: BatchOrigin,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """`store_size`: long side above which an image is scaled down, pixels.

        Raises:
            ValueError: The source or batch is not a plain folder name.
        """
        for name in (source, batch):
            if not _FOLDER_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot name a folder of the corpus: "
                    "use letters, digits, '.', '_' and '-'"
                )
        self.folder = corpus / source / batch
        self.store_size = store_size
        self._source, self._batch, self._origin = source, batch, origin
        self._shard_bytes = shard_bytes
        self._stack = ExitStack()
        self._partial = Path()
        self._rows: list[Row] = []
        self._refusals: list[dict[str, str]] = []
        self._ids: set[str] = set()
        self._ids_of_other_batches: set[str] = set()
        self._splits: dict[str, dict[str, str]] = {}
        # Images of the input that is being read: it may still be refused.
        self._pending: list[tuple[Row, Stored]] = []
        self._pending_input: str | None = None
        self._accepted = 0
        self._thinned = self._blank = 0
        self._num_inputs: int | None = None

    def __enter__(self) -> Self:
        if self.folder.exists():
            raise ValueError(
                f"{self.folder} exists: a batch is written once; "
                "choose another batch name or delete it"
            )
        self._ids_of_other_batches = _ids_of_source(self.folder.parent)
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
            raise self._explain(failure) from failure
        if isinstance(error, OSError):
            raise self._explain(error) from error

    def _explain(self, error: OSError) -> OSError:
        if error.errno != errno.ENOSPC:
            return error
        return OSError(
            errno.ENOSPC, "no space left on the disk; the batch was discarded", str(self.folder)
        )

    def expect(self, num_inputs: int) -> None:
        """Set the number of inputs; another number at the end is an error."""
        self._num_inputs = num_inputs

    def accept(
        self,
        image: Pixels,
        *,
        mask: Mask | None = None,
        input_name: str | None = None,
        **entry: Any,
    ) -> str:
        """Store one image uint8 (H, W) or RGB (H, W, 3) and return its id, "<source>:<key>".

        Args:
            mask: bool (H, W) of the structure that the entry's `mask_name` names.
            input_name: File or index entry of the image; by default its key.
            entry: Fields of `record.Entry`; `key` and `anatomy` are required.

        Raises:
            ValueError: Duplicate id, unknown anatomy or probe, or pixels or a mask of another type
                or shape.
        """
        return self.append(store(image, mask, self.store_size), Entry(**entry), input_name)

    def append(self, stored: Stored, entry: Entry, input_name: str | None = None) -> str:
        """`accept` for an image that `pixels.store` has prepared, for example in a worker."""
        identifier = f"{self._source}:{entry.key}"
        if identifier in self._ids or identifier in self._ids_of_other_batches:
            raise DuplicateIdError(f"duplicate id {identifier!r} for batch {self.folder}")
        _check_entry(identifier, entry, stored.mask is not None)
        if (input_name or entry.key) != self._pending_input:
            self._flush_input()
            self._pending_input = input_name or entry.key
        self._ids.add(identifier)
        self._pending.append((self._row(identifier, stored, entry), stored))
        for protocol, split in entry.splits.items():
            self.split(protocol, identifier, split)
        return identifier

    def _row(self, identifier: str, stored: Stored, entry: Entry) -> Row:
        spacing = entry.pixel_spacing_mm
        scale = stored.columns["original_height"] / stored.columns["height"]
        return {
            "id": identifier,
            "source": self._source,
            "batch": self._batch,
            "site": entry.site or self._source,
            "patient": None if entry.patient is None else f"{self._source}:{entry.patient}",
            "exam": None if entry.exam is None else f"{self._source}:{entry.exam}",
            "clip": None if entry.clip is None else f"{self._source}:{entry.clip}",
            "frame": entry.frame,
            "anatomy": entry.anatomy,
            "anatomy_rule": entry.anatomy_rule,
            "region_rule": entry.region_rule,
            "probe": entry.probe,
            "key_id": entry.key_id,
            "device": entry.device,
            "label": entry.label,
            "labels": _label_column(entry) or None,
            "mask": entry.mask_name,
            "pixel_spacing_mm": None if spacing is None else spacing * scale,
            "depth_cm": entry.depth_cm,
            "color_doppler": entry.color_doppler,
            "synthetic": entry.synthetic,
            **stored.columns,
        }

    def refuse(self, input_name: str, reason: str) -> None:
        """Put an input into quarantine and remove the images that it has already given."""
        if input_name == self._pending_input:
            for row, _ in self._pending:
                self._ids.discard(str(row["id"]))
                for members in self._splits.values():
                    members.pop(str(row["id"]), None)
            self._pending, self._pending_input = [], None
        self._flush_input()
        self._refusals.append(
            {"source": self._source, "batch": self._batch, "input": input_name, "reason": reason}
        )

    def thin(self, frames: int) -> None:
        """Count frames of an accepted input that thinning left out."""
        self._thinned += frames

    def drop_blank(self, frames: int) -> None:
        """Count frames of an accepted input that show nothing."""
        self._blank += frames

    def split(self, protocol: str, identifier: str, split: str) -> None:
        """Put an accepted image into a split of a protocol.

        Raises:
            ValueError: The id was not accepted, or the split is not train, val or test.
        """
        if identifier not in self._ids or split not in SPLITS:
            raise ValueError(
                f"split {split!r} of {identifier!r} under {protocol!r}: "
                f"expected one of {SPLITS} and an accepted id"
            )
        self._splits.setdefault(protocol, {})[identifier] = split

    def _flush_input(self) -> None:
        for row, stored in self._pending:
            shard, position = self._shards.append(str(row["id"]), stored)
            self._rows.append({**row, "shard": shard, "row": position})
        self._accepted += self._pending_input is not None
        self._pending, self._pending_input = [], None

    def _finish(self) -> None:
        self._flush_input()
        self._shards.finish()
        ended = self._accepted + len(self._refusals)
        if self._num_inputs is not None and ended != self._num_inputs:
            raise ValueError(
                f"batch {self.folder}: {self._accepted} inputs are accepted and "
                f"{len(self._refusals)} refused of {self._num_inputs} given; "
                "every input must end as one or the other"
            )
        manifest = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        pq.write_table(manifest, self._partial / "manifest.parquet")
        quarantine = pa.Table.from_pylist(self._refusals, schema=QUARANTINE)
        pq.write_table(quarantine, self._partial / "quarantine.parquet")
        self._write_splits(manifest.to_pandas())
        # batch.json marks the batch as complete, so it is written last.
        self._summary().write(self._partial)

    def _write_splits(self, rows: pd.DataFrame) -> None:
        if DEFAULT not in self._splits:
            ids, _ = split_by_patient(rows, units=merge_duplicate_groups(rows))
            self._splits[DEFAULT] = {
                identifier: split for split, members in ids.items() for identifier in members
            }
        (self._partial / "splits").mkdir()
        ids_in_order = rows["id"].tolist()
        for protocol, members in self._splits.items():
            missing = [identifier for identifier in ids_in_order if identifier not in members]
            if missing:
                raise ValueError(
                    f"batch {self.folder}: protocol {protocol!r} gives no split for {missing[0]}"
                )
            splits = [members[identifier] for identifier in ids_in_order]
            table = pa.table([ids_in_order, splits], schema=SPLIT_SCHEMA)
            pq.write_table(table, self._partial / "splits" / f"{protocol}.parquet")

    def _summary(self) -> BatchSummary:
        return BatchSummary(
            source=self._source,
            batch=self._batch,
            num_inputs=self._accepted + len(self._refusals),
            accepted=self._accepted,
            refused=len(self._refusals),
            images=len(self._rows),
            thinned=self._thinned,
            blank=self._blank,
            store_size=self.store_size,
            splits={
                protocol: {split: list(members.values()).count(split) for split in SPLITS}
                for protocol, members in self._splits.items()
            },
            origin=self._origin,
        )


def _label_column(entry: Entry) -> list[dict[str, str | float | None]]:
    """The column `labels`, sorted by name, so that the bytes do not depend on a reader's order."""
    return [
        {
            "name": name,
            "level": label.level,
            "text": label.value if isinstance(label.value, str) else None,
            "number": None if isinstance(label.value, str) else float(label.value),
        }
        for name, label in sorted(entry.labels.items())
    ]


def _check_entry(identifier: str, entry: Entry, masked: bool) -> None:
    anatomy_index(entry.anatomy)
    if masked != (entry.mask_name is not None):
        raise ValueError(f"image {identifier}: a mask and its mask_name must come together")
    for name, label in entry.labels.items():
        if not LABEL_NAME.fullmatch(name) or label.level not in LEVELS:
            raise ValueError(
                f"image {identifier}: label {name!r} of level {label.level!r}: a name has "
                "lower-case letters, digits and underscores, and a level is one of "
                f"{', '.join(LEVELS)}"
            )
        if label.value == "" or (isinstance(label.value, float) and not isfinite(label.value)):
            raise ValueError(f"image {identifier}: label {name!r} has no value")
    if entry.probe not in PROBES:
        raise ValueError(
            f"image {identifier}: probe {entry.probe!r} is not one of {', '.join(PROBES)}"
        )


def _ids_of_source(folder: Path) -> set[str]:
    """Ids in the complete batches of a source."""
    batches = [file.parent for file in folder.glob(f"[!.]*/{BATCH_FILE}")]
    columns = (pq.read_table(batch / "manifest.parquet", columns=["id"])["id"] for batch in batches)
    return {identifier for column in columns for identifier in column.to_pylist()}

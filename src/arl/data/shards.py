"""Images of the corpus in parquet shards of PNGs, and their reading.

Row groups are small and of one size, so that any image is one short read away, and the bytes of a batch
depend on nothing but what was accepted, in its order.
"""

import errno
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.data.anatomy import anatomy_index
from arl.data.manifest import PROBES, QUARANTINE, SCHEMA, SPLITS, read_table
from arl.data.record import Entry, Mask, Pixels
from arl.data.splits import DEFAULT, SPLIT_SCHEMA, split_by_patient
from arl.files import atomic_directory, write_json
from arl.progress import progress

ROWS_PER_GROUP = 32
SHARD_BYTES = 256 << 20
_LONG = 2000  # images whose decoding takes long enough, about 2 s, to show its progress
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHARD_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # PNG, grey or RGB
        pa.field("mask", pa.binary()),  # 1-bit PNG
    ]
)
# PNGs do not compress further; dictionaries and statistics over them would double the file
_PARQUET: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


def as_grey(image: Pixels) -> Pixels:
    """(H, W, 3) to (H, W) by luma; a grey image as it is."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _drop_equal_channels(image: Pixels) -> Pixels:
    if (
        image.ndim == 3
        and np.array_equal(image[..., 0], image[..., 1])
        and np.array_equal(image[..., 0], image[..., 2])
    ):
        return np.ascontiguousarray(image[..., 0])
    return image


def fit(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after scaling the long side to `size`, each at least 1."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _shrink(image: npt.NDArray[Any], size: int, interpolation: int) -> npt.NDArray[Any]:
    height, width = image.shape[:2]
    if max(height, width) <= size:
        return image
    rows, columns = fit(height, width, size)
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=interpolation))


def _encode(image: npt.NDArray[Any], flags: list[int]) -> bytes:
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, png = cv2.imencode(".png", ordered, flags)
    assert done
    return bytes(png)


def encode_image(image: Pixels) -> bytes:
    """Lossless PNG of a grey (H, W) or RGB (H, W, 3) image."""
    # OpenCV's own default (run lengths, filter "sub") is both smaller and 5x faster on speckle than zlib's levels
    return _encode(image, [])


def encode_mask(mask: Mask) -> bytes:
    """1-bit PNG of a mask (H, W)."""
    return _encode(mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])


def decode_image(png: bytes, channels: int = 1) -> Pixels:
    """uint8 (H, W) for one channel, (H, W, 3) RGB for three.

    Raises:
        ValueError: the bytes are not an image.
    """
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("stored bytes are not a readable PNG")
    if channels == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image, np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB), np.uint8)


def pixel_sha256(image: Pixels) -> str:
    """Hex SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


@dataclass(frozen=True)
class Stored:
    """An image as it will lie in a shard, with what the manifest says of its pixels."""

    image: bytes
    mask: bytes | None
    columns: dict[str, Any]


def store(image: Pixels, mask: Mask | None, store_size: int) -> Stored:
    """Scale down (long side to `store_size`, never up), drop equal channels, measure and encode.

    Raises:
        ValueError: pixels or mask of another type or shape.
    """
    _check_pixels(image, mask)
    stored: Pixels = _shrink(_drop_equal_channels(image), store_size, cv2.INTER_AREA)
    grey = as_grey(stored)
    columns = {
        "height": stored.shape[0],
        "width": stored.shape[1],
        "original_height": image.shape[0],
        "original_width": image.shape[1],
        "mean": float(grey.mean()),
        "std": float(grey.std()),
        "pixel_sha256": pixel_sha256(stored),
    }
    return Stored(encode_image(stored), None if mask is None else _store_mask(mask, store_size), columns)


def _store_mask(mask: Mask, store_size: int) -> bytes:
    shrunk = _shrink(mask.astype(np.uint8), store_size, cv2.INTER_NEAREST)
    return encode_mask(shrunk.astype(np.bool_))


def _check_pixels(image: Pixels, mask: Mask | None) -> None:
    shape = image.shape
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and shape[2] == 3)) or 0 in shape:
        raise ValueError(f"image: expected uint8 (H, W) or (H, W, 3), got {image.dtype} {shape}")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape[:2]):
        raise ValueError(f"mask: expected bool {shape[:2]}, got {mask.dtype} {mask.shape}")


class DuplicateIdError(ValueError):
    """An id that the batch, or another batch of the source, has already accepted."""


class BatchWriter:
    """Writes one batch of one source; the folder appears whole when the block ends without an error.

    The unit of account is the input (a file, or an entry of an index): it ends as one or more accepted images or as one
    refusal. `expect` says how many inputs were given; `accepted + refused = given` is checked at the end.
    Images of one input are accepted one after the other; refusing that input takes them back.
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
    ) -> None:
        """`store_size`: long side above which an image is scaled down, pixels.

        Raises:
            ValueError: the source or batch is not a plain folder name.
        """
        for name in (source, batch):
            if not _FOLDER.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a folder of the corpus: use letters, digits, '.', '_' and '-'")
        self.folder = corpus / source / batch
        self.store_size = store_size
        self._source, self._batch = source, batch
        self._about = {"licence": licence, "citation": citation}
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
        self._given: int | None = None
        self._group: list[tuple[str, bytes, bytes | None]] = []
        self._shard: pq.ParquetWriter | None = None
        self._shards = 0
        self._in_shard = 0  # rows
        self._shard_size = 0  # bytes

    def __enter__(self) -> Self:
        if self.folder.exists():
            raise ValueError(f"{self.folder} exists: a batch is written once; choose another batch name or delete it")
        self._earlier = _ids_of_source(self.folder.parent)
        self._partial = self._stack.enter_context(atomic_directory(self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with self._stack:
                    self._finish()
            else:
                self._close_shard()
                self._stack.__exit__(kind, error, trace)
        except OSError as failure:
            raise self._named(failure) from failure
        if isinstance(error, OSError):
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        if error.errno != errno.ENOSPC:
            return error
        return OSError(errno.ENOSPC, "no space left on the disk; the batch was discarded", str(self.folder))

    def expect(self, given: int) -> None:
        """Say how many inputs there are; a different number at the end is an error."""
        self._given = given

    def accept(self, image: Pixels, *, mask: Mask | None = None, input: str | None = None, **entry: Any) -> str:
        """Store one image uint8 (H, W) or RGB (H, W, 3) and return its id, "<source>:<key>".

        Args:
            mask: bool (H, W) of what the entry's `mask_name` says.
            input: the file or index entry it came from; the key where it is not given.
            entry: the fields of `record.Entry`; `key` and `anatomy` are required.

        Raises:
            ValueError: duplicate id, unknown anatomy or probe, pixels or mask of another type or shape.
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
        self._refused.append({"source": self._source, "batch": self._batch, "input": input, "reason": reason})

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
            self._rows.append({**row, "shard": self._shard_name(), "row": self._in_shard + len(self._group)})
            self._group.append((row["id"], stored.image, stored.mask))
            self._shard_size += len(stored.image) + len(stored.mask or b"")
            if len(self._group) == ROWS_PER_GROUP:
                self._flush_group()
        self._accepted += self._pending_input is not None
        self._pending, self._pending_input = [], None

    def _shard_name(self) -> str:
        return f"shard-{self._shards:05d}.parquet"

    def _flush_group(self) -> None:
        if not self._group:
            return
        if self._shard is None:
            self._shard = pq.ParquetWriter(self._partial / self._shard_name(), SHARD_SCHEMA, **_PARQUET)
        columns = [list(column) for column in zip(*self._group, strict=True)]
        self._shard.write_table(pa.table(columns, schema=SHARD_SCHEMA), row_group_size=ROWS_PER_GROUP)
        self._in_shard += len(self._group)
        self._group = []
        if self._shard_size >= self._shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is None:
            return
        shard, self._shard = self._shard, None
        shard.close()
        self._shards += 1
        self._in_shard = self._shard_size = 0

    def _finish(self) -> None:
        self._flush_input()
        self._flush_group()
        self._close_shard()
        self._check_counts()
        manifest = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        pq.write_table(manifest, self._partial / "manifest.parquet")
        pq.write_table(pa.Table.from_pylist(self._refused, schema=QUARANTINE), self._partial / "quarantine.parquet")
        splits = self._write_splits(manifest.to_pandas())
        write_json(self._partial / "batch.json", self._summary(splits))

    def _check_counts(self) -> None:
        given = self._accepted + len(self._refused) if self._given is None else self._given
        if self._accepted + len(self._refused) != given:
            counts = f"{self._accepted} accepted and {len(self._refused)} refused of {given} given"
            raise ValueError(f"batch {self.folder}: {counts}; every input must end as one or the other")

    def _write_splits(self, rows: pd.DataFrame) -> dict[str, Any]:
        if DEFAULT not in self._splits:
            ids, _ = split_by_patient(rows)
            self._splits[DEFAULT] = {identifier: split for split, members in ids.items() for identifier in members}
        (self._partial / "splits").mkdir()
        for protocol, members in self._splits.items():
            self._write_split(protocol, members, rows["id"].tolist())
        return {name: {s: list(members.values()).count(s) for s in SPLITS} for name, members in self._splits.items()}

    def _write_split(self, protocol: str, members: dict[str, str], ids: list[str]) -> None:
        missing = [identifier for identifier in ids if identifier not in members]
        if missing:
            raise ValueError(f"batch {self.folder}: protocol {protocol!r} gives no split for {missing[0]}")
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
            "store_size": self.store_size,
            "splits": splits,
            **self._about,
        }


def _check_entry(identifier: str, entry: Entry, masked: bool) -> None:
    anatomy_index(entry.anatomy)
    if masked != (entry.mask_name is not None):
        raise ValueError(f"image {identifier}: a mask and the name of what it shows come together")
    if entry.probe not in PROBES:
        raise ValueError(f"image {identifier}: probe {entry.probe!r} is not one of {', '.join(PROBES)}")


def _ids_of_source(folder: Path) -> set[str]:
    """Ids in the complete batches of a source."""
    done = [file.parent for file in folder.glob("[!.]*/batch.json")]
    columns = (pq.read_table(batch / "manifest.parquet", columns=["id"])["id"] for batch in done)
    return {identifier for column in columns for identifier in column.to_pylist()}


def _groups(rows: pd.DataFrame) -> list[tuple[Path, int, list[tuple[int, int]]]]:
    """Shard below the corpus, row group, [(position in `rows`, row in the group), ...]."""
    found: dict[tuple[Path, int], list[tuple[int, int]]] = {}
    columns = (rows[name].tolist() for name in ("source", "batch", "shard", "row"))
    for position, (source, batch, shard, row) in enumerate(zip(*columns, strict=True)):
        group, inside = divmod(int(row), ROWS_PER_GROUP)
        found.setdefault((Path(source, batch, shard), group), []).append((position, inside))
    return [(shard, group, members) for (shard, group), members in sorted(found.items())]


def _for_each(corpus: Path, rows: pd.DataFrame, columns: list[str], use: Callable[..., None], title: str) -> None:
    """Call `use(position, *columns)` for every row, on threads: decoding releases the interpreter lock."""

    def read(task: tuple[Path, int, list[tuple[int, int]]]) -> int:
        shard, group, members = task
        file = corpus / shard
        table = _read_group(file, group, columns)
        for position, row in members:
            _use(file, table, row, lambda *cells, at=position: use(at, *cells))
        return len(members)

    shown = len(rows) > _LONG
    with ThreadPoolExecutor(max_workers=cpu_count()) as pool, progress(len(rows), title, "image", shown=shown) as bar:
        for done in pool.map(read, list(_groups(rows))):
            bar.update(done)


def _read_group(file: Path, group: int, columns: list[str]) -> pa.Table:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist, but the manifest of its batch names it")
    try:
        with pq.ParquetFile(file) as shard:
            return shard.read_row_group(group, columns=["id", *columns])
    except (pa.ArrowInvalid, IndexError) as error:
        raise ValueError(f"{file}: row group {group} is not readable: {error}") from error


def _use(file: Path, table: pa.Table, row: int, use: Callable[..., None]) -> None:
    cells = [table[name][row].as_py() for name in table.column_names]
    try:
        use(*cells[1:])
    except ValueError as error:
        raise ValueError(f"{file}, image {cells[0]}: {error}") from error


def read_images(corpus: Path, rows: pd.DataFrame, channels: int = 1) -> list[Pixels]:
    """Stored images of manifest rows, in their order: uint8 (H, W), or RGB (H, W, 3) for three channels.

    Raises:
        ValueError: a shard or an image in it is not readable.
        FileNotFoundError: a shard is missing.
    """
    images: dict[int, Pixels] = {}

    def keep(position: int, image: bytes) -> None:
        images[position] = decode_image(image, channels)

    _for_each(corpus, rows, ["image"], keep, "reading images")
    return [images[position] for position in range(len(rows))]


def read_masks(corpus: Path, rows: pd.DataFrame) -> list[Mask | None]:
    """Stored masks of manifest rows, in their order: bool (H, W), None where there is none."""
    masks: dict[int, Mask | None] = {}

    def keep(position: int, mask: bytes | None) -> None:
        masks[position] = None if mask is None else decode_image(mask) > 0

    _for_each(corpus, rows, ["mask"], keep, "reading masks")
    return [masks[position] for position in range(len(rows))]


def letterbox(image: Pixels, size: int, *, nearest: bool = False) -> tuple[Pixels, tuple[int, int]]:
    """Canvas uint8 (size, size) with the image, its long side scaled to `size`, in the top-left corner; its extent."""
    height, width = fit(image.shape[0], image.shape[1], size)
    smooth = cv2.INTER_AREA if max(image.shape[:2]) > size else cv2.INTER_LINEAR
    canvas = np.zeros((size, size), np.uint8)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST if nearest else smooth)
    return canvas, (height, width)


class Canvases:
    """Grey images of manifest rows on square canvases, decoded once and kept in RAM (len(rows) * size^2 bytes).

    Attributes:
        images: uint8 (N, size, size), see `letterbox`.
        extents: int32 (N, 2), height and width of the valid part.
        masks: uint8 (N, size, size) of 0 and 1 (0 where a row has no mask), or None where they were not asked for.
    """

    def __init__(self, corpus: Path, rows: pd.DataFrame, size: int, *, masks: bool = False) -> None:
        self.images = np.zeros((len(rows), size, size), np.uint8)
        self.extents = np.zeros((len(rows), 2), np.int32)
        self.masks = np.zeros((len(rows), size, size), np.uint8) if masks else None

        def keep(position: int, image: bytes, mask: bytes | None = None) -> None:
            self.images[position], self.extents[position] = letterbox(decode_image(image), size)
            if self.masks is not None and mask is not None:
                self.masks[position] = letterbox(decode_image(mask), size, nearest=True)[0] > 0

        _for_each(corpus, rows, ["image", "mask"] if masks else ["image"], keep, "decoding")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Pixels, npt.NDArray[np.int32]]:
        return self.images[index], self.extents[index]


def read_shard(file: Path) -> pd.DataFrame:
    """One shard as a table (id, image, mask as PNG bytes).

    Raises:
        ValueError: the file is not a shard.
    """
    return read_table(file, SHARD_SCHEMA)

"""The corpus on disk: one row for each image, in batches that are only ever added.

    data/<source>/<batch>/manifest.parquet     accepted images, `SCHEMA`
                          shard-00000.parquet  id, height, width, image, mask; see `shard_reader`
                          quarantine.parquet   refused inputs, `QUARANTINE`
                          splits/<protocol>.parquet  id, split in {train, val, test}
                          batch.json           see `batch_summary`; written last

A batch is written once and never rewritten, so adding a hospital changes no stored file.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.batch_summary import BATCH_FILE, BatchSummary
from arl.files import sha256

SPLITS = ("train", "val", "test")
PROBES = ("linear", "convex", "sector", "unknown")

# One entry of the column `labels`: a class or grade in `text`, or a measurement in `number`.
LABELS = pa.list_(
    pa.struct(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("level", pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("number", pa.float64()),
        ]
    )
)
SCHEMA = pa.schema(
    [
        # Unique in the corpus: "<source>:<key>".
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        # Institution; the source if unknown.
        pa.field("site", pa.string(), nullable=False),
        # Grouping keys "<source>:<key>"; null if the source does not state them.
        pa.field("patient", pa.string()),
        pa.field("exam", pa.string()),
        # Video; null for a still.
        pa.field("clip", pa.string()),
        # 0-based in the clip.
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("anatomy", pa.string(), nullable=False),
        # The rule that decided the anatomy.
        pa.field("anatomy_rule", pa.string(), nullable=False),
        # The rule that found the scan on the screen; null if the source holds scans only.
        pa.field("region_rule", pa.string()),
        pa.field("probe", pa.string(), nullable=False),
        # Id of the secret key that hashed the patient; null for public data.
        pa.field("key_id", pa.string()),
        # Manufacturer and model.
        pa.field("device", pa.string()),
        # Class of the main task; null if unlabelled.
        pa.field("label", pa.string()),
        # Further labels; null if there are none.
        pa.field("labels", LABELS),
        # Structure that the stored mask shows, such as "lesion"; null without a mask.
        pa.field("mask", pa.string()),
        # Stored pixels.
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("original_height", pa.int32(), nullable=False),
        pa.field("original_width", pa.int32(), nullable=False),
        # Of the stored image, along the rows.
        pa.field("pixel_spacing_mm", pa.float32()),
        pa.field("depth_cm", pa.float32()),
        pa.field("color_doppler", pa.bool_(), nullable=False),
        pa.field("synthetic", pa.bool_(), nullable=False),
        # Of the stored grey levels, 0 to 255.
        pa.field("mean", pa.float32(), nullable=False),
        pa.field("std", pa.float32(), nullable=False),
        # Of the stored pixels and their shape.
        pa.field("pixel_sha256", pa.string(), nullable=False),
        # Of the stored pixels in grey; see `pixels`.
        pa.field("perceptual_hash", pa.uint64(), nullable=False),
        pa.field("difference_hash", pa.uint64(), nullable=False),
        pa.field("detail_hash", pa.binary(128)),
        # File name in the batch folder, and row in the file.
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)
# Batches are never rewritten, so those of earlier versions lack these columns; they read as null.
ADDED_COLUMNS = frozenset({"exam", "labels", "detail_hash", "key_id"})
QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        # Relative name, or a keyed hash for hospital data.
        pa.field("input", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """The columns of `schema` of a parquet file of the corpus.

    Raises:
        ValueError: The file is not parquet, or a column is missing or has another type.
    """
    tables = [schema.empty_table(), *_read_parts(path, schema, 1 << 20)]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def _read_parts(path: Path, schema: pa.Schema, max_rows: int) -> Iterator[pa.Table]:
    """The columns of `schema`, at most `max_rows` rows at a time."""
    present = check_schema(path, schema)
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(max_rows, columns=present):
                table = pa.Table.from_batches([batch])
                for name in schema.names:
                    if name not in present:
                        nulls = pa.nulls(len(table), schema.field(name).type)
                        table = table.append_column(name, nulls)
                yield table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path} is not readable: {error}") from error


def check_schema(path: Path, schema: pa.Schema) -> list[str]:
    """Check the columns of a parquet file against `schema`; return those that the file has.

    Raises:
        ValueError: The file is not parquet, or a column is missing or has another type.
    """
    try:
        actual = pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    present = [name for name in schema.names if name in actual.names]
    missing = [name for name in schema.names if name not in {*present, *ADDED_COLUMNS}]
    wrong = [name for name in present if actual.field(name).type != schema.field(name).type]
    if missing or wrong:
        raise ValueError(
            f"{path} does not fit the schema: "
            f"missing {missing or 'none'}, of another type {wrong or 'none'}"
        )
    return present


def corpus_version(corpus: Path) -> str:
    """Hex SHA-256 of the summaries, manifests and splits of all batches.

    The manifests hold the hash of every image, so other pixels, rows or splits give another
    version. The shards are not read.
    """
    digest = hashlib.sha256()
    for folder in batch_folders(corpus):
        files = [
            folder / BATCH_FILE,
            folder / "manifest.parquet",
            *sorted((folder / "splits").glob("*.parquet")),
        ]
        for file in files:
            digest.update(f"{file.relative_to(corpus).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def batch_folders(corpus: Path) -> list[Path]:
    """The complete batches of a corpus, sorted by source and batch name.

    Raises:
        FileNotFoundError: There is no corpus, or it holds no complete batch.
    """
    if not corpus.is_dir():
        raise FileNotFoundError(
            f"corpus {corpus} does not exist: run `arl sample` or `arl ingest` first"
        )
    folders = sorted(file.parent for file in corpus.glob(f"*/*/{BATCH_FILE}"))
    # A killed writer leaves a hidden folder.
    complete = [folder for folder in folders if not folder.name.startswith(".")]
    if not complete:
        raise FileNotFoundError(f"corpus {corpus} holds no complete batch (no */*/{BATCH_FILE})")
    return complete


def sources(corpus: Path) -> dict[str, dict[str, str]]:
    """Source -> licence and citation, as in its last batch."""
    origins = {
        folder.parent.name: BatchSummary.read(folder).origin for folder in batch_folders(corpus)
    }
    return {
        source: {"licence": origin.licence, "citation": origin.citation}
        for source, origin in origins.items()
    }


def read_manifest(corpus: Path, columns: Sequence[str] = SCHEMA.names) -> pd.DataFrame:
    """All accepted rows of the corpus in the order of batches, with the given columns."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pd.concat(
        [read_table(folder / "manifest.parquet", schema) for folder in batch_folders(corpus)],
        ignore_index=True,
    )


def read_labels(corpus: Path) -> pd.DataFrame:
    """The labels of all rows, one line for each: id, name, level, text, number."""
    rows = read_manifest(corpus, ["id", "labels"]).dropna(subset=["labels"])
    lines = [
        {"id": identifier, **label}
        for identifier, labels in zip(rows["id"], rows["labels"], strict=True)
        for label in labels
    ]
    return pd.DataFrame(lines, columns=["id", "name", "level", "text", "number"])


def manifest_parts(corpus: Path, rows: int = 500_000) -> Iterator[pd.DataFrame]:
    """The accepted rows in parts of about `rows`, for corpora larger than memory.

    There is at least one part.
    """
    pending = [SCHEMA.empty_table()]
    for folder in batch_folders(corpus):
        for table in _read_parts(folder / "manifest.parquet", SCHEMA, rows):
            pending.append(table)
            if sum(map(len, pending)) >= rows:
                yield pa.concat_tables(pending).to_pandas()
                pending = []
    if pending:
        yield pa.concat_tables(pending).to_pandas()


def read_quarantine(corpus: Path) -> pd.DataFrame:
    """All refused inputs of the corpus, with the columns of `QUARANTINE`."""
    return pd.concat(
        [read_table(folder / "quarantine.parquet", QUARANTINE) for folder in batch_folders(corpus)],
        ignore_index=True,
    )

"""The corpus on disk: one row an image, in batches that are only ever added.

    data/<source>/<batch>/manifest.parquet     the accepted images, `SCHEMA`
                          shard-00000.parquet  id, height, width, image, mask; see `shards`
                          quarantine.parquet   the refused inputs, `QUARANTINE`
                          splits/<protocol>.parquet  id, split in {train, val, test}
                          batch.json           source, counts, licence; written last

A batch is written once and never rewritten, so adding a hospital leaves what DVC stores as it is.
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

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # unique in the corpus: "<source>:<key>"
        pa.field("source", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field(
            "site", pa.string(), nullable=False
        ),  # institution; the source where it is unknown
        pa.field(
            "patient", pa.string()
        ),  # grouping key, "<source>:<patient>"; null: the source gives none
        pa.field("clip", pa.string()),  # video, "<source>:<clip>"; null: a still
        pa.field("frame", pa.int32(), nullable=False),  # 0-based within the clip
        pa.field("anatomy", pa.string(), nullable=False),
        pa.field("anatomy_rule", pa.string(), nullable=False),  # what decided the anatomy
        pa.field(
            "region_rule", pa.string()
        ),  # what found the scan on the screen; null: the source gives scans alone
        pa.field("probe", pa.string(), nullable=False),
        pa.field("device", pa.string()),  # manufacturer and model
        pa.field("label", pa.string()),  # class name; null: unlabelled
        pa.field("mask", pa.string()),  # what the stored mask shows, e.g. "lesion"; null: no mask
        pa.field("height", pa.int32(), nullable=False),  # stored pixels
        pa.field("width", pa.int32(), nullable=False),
        pa.field("original_height", pa.int32(), nullable=False),
        pa.field("original_width", pa.int32(), nullable=False),
        pa.field("pixel_spacing_mm", pa.float32()),  # of the stored image, along the rows
        pa.field("depth_cm", pa.float32()),
        pa.field("color_doppler", pa.bool_(), nullable=False),
        pa.field("synthetic", pa.bool_(), nullable=False),
        pa.field("mean", pa.float32(), nullable=False),  # of the stored grey levels, 0..255
        pa.field("std", pa.float32(), nullable=False),
        pa.field(
            "pixel_sha256", pa.string(), nullable=False
        ),  # of the stored pixels and their shape
        pa.field(
            "perceptual_hash", pa.uint64(), nullable=False
        ),  # of the stored pixels in grey; see `pixels`
        pa.field("difference_hash", pa.uint64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),  # file name inside the batch folder
        pa.field("row", pa.int32(), nullable=False),  # row inside the shard
    ]
)
QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field(
            "input", pa.string(), nullable=False
        ),  # relative name, or a keyed hash for hospital data
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a parquet file of ours, the columns of `schema` only.

    Raises:
        ValueError: the file is not parquet, or a column is missing or has another type.
    """
    tables = [schema.empty_table(), *_tables(path, schema, 1 << 20)]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def _tables(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """The columns of `schema`, at most `rows` rows at a time."""
    check_schema(path, schema)
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=schema.names):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path} is not readable: {error}") from error


def check_schema(path: Path, schema: pa.Schema) -> None:
    """Make sure that a parquet file has the columns of `schema`.

    Raises:
        ValueError: the file is not parquet, or a column is missing or has another type.
    """
    try:
        found = pq.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    missing = [name for name in schema.names if name not in found.names]
    wrong = [
        name
        for name in schema.names
        if name in found.names and found.field(name).type != schema.field(name).type
    ]
    if missing or wrong:
        raise ValueError(
            f"{path} does not fit the schema: missing {missing or 'none'}, of another type {wrong or 'none'}"
        )


def corpus_version(corpus: Path) -> str:
    """Hex SHA-256 of all that the batches say of themselves, short to read also where the images are terabytes.

    The manifests hold the hash of every image, so a corpus with other pixels, rows or splits has
    another version.
    """
    digest = hashlib.sha256()
    for folder in batch_folders(corpus):
        told = [
            folder / BATCH_FILE,
            folder / "manifest.parquet",
            *sorted((folder / "splits").glob("*.parquet")),
        ]
        for file in told:
            digest.update(f"{file.relative_to(corpus).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def batch_folders(corpus: Path) -> list[Path]:
    """The complete batches of a corpus, sorted by source and batch name.

    Raises:
        FileNotFoundError: there is no corpus, or nothing in it.
    """
    if not corpus.is_dir():
        raise FileNotFoundError(
            f"corpus {corpus} does not exist: run `arl sample` or `arl ingest` first"
        )
    found = sorted(file.parent for file in corpus.glob(f"*/*/{BATCH_FILE}"))
    folders = [
        folder for folder in found if not folder.name.startswith(".")
    ]  # what a killed writer left
    if not folders:
        raise FileNotFoundError(f"corpus {corpus} holds no complete batch (no */*/{BATCH_FILE})")
    return folders


def sources(corpus: Path) -> dict[str, dict[str, str]]:
    """Source -> its licence and citation, as the last batch has them."""
    origins = {
        folder.parent.name: BatchSummary.read(folder).origin for folder in batch_folders(corpus)
    }
    return {
        source: {"licence": origin.licence, "citation": origin.citation}
        for source, origin in origins.items()
    }


def read_manifest(corpus: Path, columns: Sequence[str] = SCHEMA.names) -> pd.DataFrame:
    """All accepted rows of the corpus, in the order of batches; columns of `SCHEMA`, or some of them."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pd.concat(
        [read_table(folder / "manifest.parquet", schema) for folder in batch_folders(corpus)],
        ignore_index=True,
    )


def manifest_parts(corpus: Path, rows: int = 500_000) -> Iterator[pd.DataFrame]:
    """The accepted rows in parts of about `rows`, so that a corpus of any size fits in memory; at least one part."""
    waiting = [SCHEMA.empty_table()]
    for folder in batch_folders(corpus):
        for table in _tables(folder / "manifest.parquet", SCHEMA, rows):
            waiting.append(table)
            if sum(map(len, waiting)) >= rows:
                yield pa.concat_tables(waiting).to_pandas()
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting).to_pandas()


def read_quarantine(corpus: Path) -> pd.DataFrame:
    """All refused inputs of the corpus; columns of `QUARANTINE`."""
    return pd.concat(
        [read_table(folder / "quarantine.parquet", QUARANTINE) for folder in batch_folders(corpus)],
        ignore_index=True,
    )

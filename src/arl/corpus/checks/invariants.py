"""Do the rows, splits, shards and counts of a corpus hold together?

Rules across rows and files, as SQL on the parquet files themselves: a rule is a query of what
breaks it. The corpus may have millions of rows; beyond `_MEMORY`, DuckDB works on disk.
"""

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.batch_summary import BatchSummary
from arl.corpus.checks.findings import Finding, Severity, examples
from arl.corpus.checks.validation import check_rows
from arl.corpus.manifest import ADDED_COLUMNS, SCHEMA, batch_folders, check_schema, manifest_parts
from arl.corpus.splits import DEFAULT, SPLIT_SCHEMA

_MEMORY = "1500MB"


@dataclass(frozen=True)
class _Rule:
    """`broken` selects one row per offender with its `name`; `all` counts what was checked."""

    name: str
    severity: Severity
    description: str
    all: str
    broken: str


def _unique(name: str, severity: Severity, description: str, keys: str) -> _Rule:
    return _Rule(
        name,
        severity,
        description,
        "SELECT count(*) FROM images",
        "SELECT min(id) AS name FROM images WHERE id IS NOT NULL "
        f"GROUP BY {keys} HAVING count(*) > 1",
    )


def _divided(
    name: str, severity: Severity, description: str, key: str, by: str, where: str
) -> _Rule:
    """Keys whose rows are in more than one split."""
    label = "min(id)" if key == "pixel_sha256" else key
    selected = f"FROM placed WHERE {key} IS NOT NULL AND {where}"
    return _Rule(
        name,
        severity,
        description,
        f"SELECT count(*) FROM (SELECT DISTINCT {by} {selected})",
        f"SELECT {label} AS name {selected} GROUP BY {by} HAVING count(DISTINCT split) > 1",
    )


_IN_USE = "used AND NOT withheld"
_RULES = (
    _Rule(
        "rows",
        "critical",
        "the corpus holds an image",
        "SELECT 1",
        "SELECT 'nothing' AS name WHERE (SELECT count(*) FROM images) = 0",
    ),
    _unique("id-unique", "critical", "no two images share an id", "id"),
    _unique(
        "place-unique",
        "critical",
        "no two images share a place in a shard",
        "source, batch, shard, row",
    ),
    _unique("pixels-unique", "warning", "no two images have the same pixels", "pixel_sha256"),
    _divided(
        "patient-split",
        "critical",
        "a patient is in one split only, under the protocol in use",
        "patient",
        "source, protocol, patient",
        "used",
    ),
    _divided(
        "clip-split",
        "critical",
        "a clip is in one split only, under the protocol in use",
        "clip",
        "source, protocol, clip",
        "used",
    ),
    _divided(
        "pixel-split",
        "critical",
        "a set of pixels is in one split only, over all sources, except for withheld images",
        "pixel_sha256",
        "pixel_sha256",
        _IN_USE,
    ),
    _divided(
        "patient-split-unused",
        "warning",
        "a patient is in one split only, under other protocols",
        "patient",
        "source, protocol, patient",
        "NOT used",
    ),
    _Rule(
        "split-complete",
        "critical",
        "every image has a split under the protocol in use",
        "SELECT count(*) FROM images",
        "SELECT id AS name FROM images "
        "ANTI JOIN (SELECT * FROM splits WHERE used) USING (source, batch, id)",
    ),
    _Rule(
        "split-known",
        "critical",
        "a split names only images of its batch",
        "SELECT count(*) FROM splits",
        "SELECT id AS name FROM splits ANTI JOIN images USING (source, batch, id)",
    ),
    _Rule(
        "batch-place",
        "critical",
        "a manifest holds rows of its own folder only",
        "SELECT count(*) FROM images",
        "SELECT id AS name FROM images WHERE source <> folder_source OR batch <> folder_batch",
    ),
    _Rule(
        "shards-agree",
        "critical",
        "a shard holds the images at the rows the manifest says",
        "SELECT count(DISTINCT (source, batch, shard)) FROM stored",
        """SELECT DISTINCT concat_ws('/', source, batch, shard) AS name FROM stored
           FULL JOIN (
               SELECT source, batch, shard, row, id AS named FROM images
               SEMI JOIN stored USING (source, batch, shard)
           ) USING (source, batch, shard, row) WHERE id IS DISTINCT FROM named""",
    ),
)


def check_corpus(
    corpus: Path, protocols: Mapping[str, str], withheld: pd.DataFrame
) -> list[Finding]:
    """All rules, on rows and across rows, at the same time; see `check_across`."""
    with ThreadPoolExecutor(1) as pool:
        across = pool.submit(check_across, corpus, protocols, withheld)
        return check_rows(manifest_parts(corpus)) + across.result()


def check_across(
    corpus: Path, protocols: Mapping[str, str], withheld: pd.DataFrame
) -> list[Finding]:
    """The rules across rows and files of a corpus.

    Args:
        protocols: the split protocol of a source, "default" where it names none.
        withheld: a column id, of the images that training leaves out.

    Raises:
        FileNotFoundError: there is no corpus, or a batch lacks a file.
        ValueError: a file cannot be read as what it should be.
    """
    folders = batch_folders(corpus)
    with _database(folders, protocols, withheld) as database:
        return [_finding(database, rule) for rule in _RULES] + [
            _counts(folders),
            _shards(database, folders),
        ]


@contextmanager
def _database(
    folders: list[Path], protocols: Mapping[str, str], withheld: pd.DataFrame
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Database with the views images, splits, placed (both joined) and stored (ids in shards)."""
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(":memory:") as database:
        database.execute(f"SET memory_limit = '{_MEMORY}'")
        database.execute("SET temp_directory = ?", [spill])
        database.execute("SET enable_progress_bar = false")
        database.execute("CREATE TABLE withheld (id VARCHAR)")
        database.register("given", pa.table({"id": pa.array(withheld["id"].tolist(), pa.string())}))
        database.execute("INSERT INTO withheld SELECT id FROM given")
        _create(
            database, "manifests", [folder / "manifest.parquet" for folder in folders], _COLUMNS
        )
        _create(
            database,
            "memberships",
            [file for folder in folders for file in _split_files(folder)],
            SPLIT_SCHEMA,
        )
        _create(
            database,
            "shards",
            [file for folder in folders for file in _shard_files(folder)],
            _IDS,
            row=True,
        )
        database.execute("CREATE TABLE protocols (source VARCHAR, protocol VARCHAR)")
        if protocols:
            database.executemany(
                "INSERT INTO protocols VALUES (?, ?)", [[*pair] for pair in protocols.items()]
            )
        database.execute(_VIEWS)
        yield database


# Older batches lack the columns that were added later, and no rule needs them.
_COLUMNS = pa.schema([column for column in SCHEMA if column.name not in ADDED_COLUMNS])
_IDS = pa.schema([pa.field("id", pa.string(), nullable=False)])
_VIEWS = f"""
CREATE VIEW images AS SELECT * EXCLUDE (filename), parse_path(filename)[-3] AS folder_source,
    parse_path(filename)[-2] AS folder_batch FROM manifests;
CREATE VIEW splits AS SELECT *, protocol = coalesce(chosen, '{DEFAULT}') AS used FROM (
    SELECT id, split, parse_path(filename)[-4] AS source, parse_path(filename)[-3] AS batch,
        regexp_replace(parse_path(filename)[-1], '\\.parquet$', '') AS protocol FROM memberships
) LEFT JOIN (SELECT source, protocol AS chosen FROM protocols) USING (source);
CREATE VIEW placed AS SELECT id, source, protocol, used, split, patient, clip, pixel_sha256,
    id IN (SELECT id FROM withheld) AS withheld
    FROM splits JOIN (SELECT source, batch, id, patient, clip, pixel_sha256 FROM images)
    USING (source, batch, id);
CREATE VIEW stored AS SELECT id, parse_path(filename)[-3] AS source,
    parse_path(filename)[-2] AS batch,
    parse_path(filename)[-1] AS shard, file_row_number AS row FROM shards;
"""


def _create(
    database: duckdb.DuckDBPyConnection,
    name: str,
    files: list[Path],
    schema: pa.Schema,
    *,
    row: bool = False,
) -> None:
    for file in files:
        check_schema(file, schema)
    if not files:
        extra = [
            pa.field("filename", pa.string()),
            *([pa.field("file_row_number", pa.int64())] if row else []),
        ]
        database.register(name, pa.schema([*schema, *extra]).empty_table())
        return
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    columns = ", ".join([*schema.names, "filename", *(["file_row_number"] if row else [])])
    source = f"read_parquet([{listed}], filename = true, file_row_number = {str(row).lower()})"
    database.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {source}")


def _split_files(folder: Path) -> list[Path]:
    return sorted((folder / "splits").glob("*.parquet"))


def _shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.parquet"))


def _value(database: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = database.execute(query).fetchone()
    assert row is not None
    return row[0]


def _finding(database: duckdb.DuckDBPyConnection, rule: _Rule) -> Finding:
    database.execute(f"CREATE OR REPLACE TEMP TABLE broken AS {rule.broken}")
    failed = int(_value(database, "SELECT count(*) FROM broken"))
    first = (
        database.execute("SELECT DISTINCT name FROM broken ORDER BY name LIMIT 5").fetchall()
        if failed
        else []
    )
    checked = int(_value(database, rule.all))
    return Finding(
        rule.name,
        rule.severity,
        rule.description,
        checked,
        failed,
        examples(name for (name,) in first),
    )


def _name(folder: Path, file: str = "") -> str:
    return "/".join(filter(None, (folder.parent.name, folder.name, file)))


def _counts(folders: list[Path]) -> Finding:
    offenders = [_name(folder) for folder in folders if not _adds_up(folder)]
    text = "the counts of batch.json add up with manifest, splits and quarantine"
    return Finding(
        "batch-counts", "critical", text, len(folders), len(offenders), examples(offenders)
    )


def _adds_up(folder: Path) -> bool:
    summary = BatchSummary.read(folder)
    images = pq.read_metadata(folder / "manifest.parquet").num_rows
    refused = pq.read_metadata(folder / "quarantine.parquet").num_rows
    return (
        summary.images == images
        and summary.refused == refused
        and summary.num_inputs == summary.accepted + refused
        and all(sum(split.values()) == images for split in summary.splits.values())
    )


def _shards(database: duckdb.DuckDBPyConnection, folders: list[Path]) -> Finding:
    query = "SELECT DISTINCT concat_ws('/', folder_source, folder_batch, shard) FROM images"
    named = {str(name) for (name,) in database.execute(query).fetchall()}
    present = {_name(folder, file.name) for folder in folders for file in _shard_files(folder)}
    offenders = sorted(named ^ present)
    text = "every shard exists and is named by a row"
    return Finding(
        "shards-present",
        "critical",
        text,
        len(named | present),
        len(offenders),
        examples(offenders),
    )

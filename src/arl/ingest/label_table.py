"""Labels for hospital DICOM: a CSV table, or structured reports, joined by hashed identifiers.

The identifiers of the table leave this module only as keyed hashes, like those of the images.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd
from pydicom.dataset import Dataset

from arl.corpus.record import Entry, Label, Level
from arl.ingest.dicom.deidentify import keyed_hash
from arl.ingest.tables import read_csv

KeyKind = Literal["patient", "study", "series", "instance", "file"]
KEY_KINDS: tuple[KeyKind, ...] = ("patient", "study", "series", "instance", "file")
# DICOM attributes of the keys; a file has none.
ATTRIBUTES = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
}
_LEVELS: dict[KeyKind, Level] = {
    "patient": "patient",
    "study": "exam",
    "series": "exam",
    "instance": "clip",
    "file": "clip",
}
# The column that becomes `Entry.label`, the class of the main task.
MAIN_LABEL = "label"


@dataclass(frozen=True)
class LabelRow:
    """The labels of one key.

    Attributes:
        key: Hash of the key, which identifies the row.
        kind: What the key names.
        label: Class of the main task; None if the row states none.
        labels: Further labels.
    """

    key: str
    kind: KeyKind
    label: str | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelTable:
    """Rows by the hash of their key, and why other rows were left out.

    Attributes:
        rows: Hash -> row.
        unused: Reason -> number of rows that no image can join.
    """

    rows: Mapping[str, LabelRow]
    unused: Mapping[str, int]

    def find(self, header: Dataset, file: Path, key: bytes) -> list[LabelRow]:
        """The rows that a DICOM file joins, from the widest key to the narrowest.

        Args:
            header: At least the attributes of `ATTRIBUTES`.
            file: Path relative to the root; a row may state the path or the name alone.
            key: Secret key of the hashes.
        """
        values: list[tuple[KeyKind, str]] = [
            (kind, str(header.get(ATTRIBUTES[kind], "") or "").strip())
            for kind in KEY_KINDS
            if kind != "file"
        ]
        values += [("file", file.as_posix()), ("file", file.name)]
        hashes = [hash_key(key, kind, value) for kind, value in values if value]
        return [self.rows[code] for code in dict.fromkeys(hashes) if code in self.rows]


def hash_key(key: bytes, kind: KeyKind, value: str) -> str:
    """The keyed hash that stands for a key of the table."""
    return keyed_hash(key, "label", kind, value)


def label_name(text: str) -> str:
    """A column or concept name as a label name: lower case, with underscores."""
    name = re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")
    return name if name[:1].isalpha() else f"x_{name}"


def read_label_table(file: Path, key: bytes) -> LabelTable:
    """Read a CSV table with one key column and any label columns.

    The key column is called patient, study, series, instance or file. A column of numbers becomes
    a numeric label, any other a text label, and the column `label` the class of the main task. An
    empty cell is no label.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not CSV in UTF-8, or has no key column, several, or no label column.
    """
    if not file.is_file():
        raise FileNotFoundError(f"dicom.labels: {file} does not exist")
    try:
        names = pd.read_csv(file, dtype=str, nrows=0).columns.str.strip().tolist()
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"dicom.labels: {file} is not a readable CSV file") from error
    kinds = [kind for kind in KEY_KINDS if kind in names]
    columns = [name for name in names if name not in KEY_KINDS]
    if len(kinds) != 1 or not columns:
        raise ValueError(
            f"dicom.labels: {file} needs exactly one of the columns {', '.join(KEY_KINDS)} "
            "and at least one column of labels"
        )
    table = read_csv(file, names).apply(lambda column: column.str.strip())
    numeric = {name for name in columns if name != MAIN_LABEL and _is_numeric(table[name])}
    return _join_rows(
        _csv_row(dict(zip(names, cells, strict=True)), kinds[0], columns, numeric, key)
        for cells in table.to_numpy().tolist()
    )


def _is_numeric(column: "pd.Series[str]") -> bool:
    values = pd.to_numeric(column[column != ""], errors="coerce")
    return len(values) > 0 and bool(values.between(-1e308, 1e308).all())


def _csv_row(
    cells: dict[str, str], kind: KeyKind, columns: list[str], numeric: set[str], key: bytes
) -> LabelRow | str:
    """The row, or the reason why it is unused."""
    if not cells[kind]:
        return f"its {kind} is empty"
    labels = {
        label_name(name): Label(
            float(cells[name]) if name in numeric else cells[name], _LEVELS[kind]
        )
        for name in columns
        if name != MAIN_LABEL and cells[name]
    }
    main = cells.get(MAIN_LABEL) or None
    if main is None and not labels:
        return "it states no label"
    return LabelRow(hash_key(key, kind, cells[kind]), kind, main, labels)


def _join_rows(rows: Iterable[LabelRow | str]) -> LabelTable:
    """Rows by their key; of two contradictory rows of one key, neither is used."""
    by_key: dict[str, LabelRow] = {}
    contradictory: set[str] = set()
    unused: dict[str, int] = {}
    for row in rows:
        if isinstance(row, str):
            unused[row] = unused.get(row, 0) + 1
        elif by_key.setdefault(row.key, row) != row:
            contradictory.add(row.key)
    for code in contradictory:
        del by_key[code]
    if contradictory:
        unused["several rows of one key contradict each other"] = len(contradictory)
    return LabelTable(by_key, unused)


def merge_tables(tables: Iterable[LabelTable]) -> LabelTable:
    """One table; rows of one key are united, and the first statement of a label wins."""
    rows: dict[str, LabelRow] = {}
    unused: dict[str, int] = {}
    for table in tables:
        for reason, count in table.unused.items():
            unused[reason] = unused.get(reason, 0) + count
        for code, row in table.rows.items():
            first = rows.get(code, row)
            rows[code] = LabelRow(
                code, row.kind, first.label or row.label, {**row.labels, **first.labels}
            )
    return LabelTable(rows, unused)


def with_labels(entry: Entry, rows: Iterable[LabelRow]) -> Entry:
    """The entry with the labels of its rows; a narrower key overrides a wider one.

    Labels of an instance or a file are labels of a clip, or of an image if the entry is a still.
    """
    label, labels, joined = entry.label, dict(entry.labels), []
    for row in rows:
        label = row.label or label
        joined.append(row.key)
        for name, item in row.labels.items():
            is_still = item.level == "clip" and entry.clip is None
            labels[name] = Label(item.value, "image") if is_still else item
    return replace(entry, label=label, labels=labels, label_rows=tuple(joined))


def join_counts(table: LabelTable, joined: Sequence[Collection[str]]) -> list[str]:
    """Lines for the terminal: what joined, and what did not, by reason.

    Args:
        joined: For each accepted input, the hashes of the rows that it joins.
    """
    used = {code for codes in joined for code in codes}
    counts = {
        "rows join accepted inputs": len(used & table.rows.keys()),
        "rows match no accepted input": len(table.rows.keys() - used),
        **{f"rows are unused: {reason}": count for reason, count in sorted(table.unused.items())},
        "accepted inputs have labels": sum(bool(codes) for codes in joined),
        "accepted inputs match no row": sum(not codes for codes in joined),
    }
    return [f"{count:7,}  {what}" for what, count in counts.items() if count]

"""The labels of manifest rows by name."""

from typing import Any

import pandas as pd


def label_values(rows: pd.DataFrame, name: str) -> "pd.Series[Any]":
    """The value of a label of each row, text or number; None where a row has none.

    Args:
        rows: manifest rows with `label` and `labels`.
        name: of a further label; "" is the class of the main task, the column `label`.
    """
    if not name:
        return rows["label"].astype(object).where(rows["label"].notna(), None)
    return pd.Series([_value(entry, name) for entry in rows["labels"]], rows.index, dtype=object)


def as_text(value: object) -> str | None:
    """A label as the name of a class: a whole number has no decimal point."""
    return f"{value:g}" if isinstance(value, float) else None if value is None else str(value)


def _value(entry: object, name: str) -> object:
    # A batch of an older version has no labels at all; they read as null.
    if entry is None or isinstance(entry, float):
        return None
    for label in entry:  # type: ignore[attr-defined]
        if label["name"] == name:
            text = label["text"]
            return float(label["number"]) if text is None else text
    return None

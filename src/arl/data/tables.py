"""CSV files of public datasets, read as text: no value is guessed, "NaN" stays what it says."""

from pathlib import Path

import pandas as pd


def read_csv(file: Path, columns: list[str]) -> pd.DataFrame:
    """The file's columns as strings.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not CSV in UTF-8, or lacks a column.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: is the root the unpacked official download?")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a readable CSV file: {' '.join(str(error).split())}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{file} lacks the columns {missing}; it has {table.columns.tolist()}")
    return table[columns]

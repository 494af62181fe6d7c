"""Tables of public datasets, read as text: no value is converted, and "NaN" stays "NaN"."""

import warnings
import zlib
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

# errors of openpyxl on damaged files
_XLSX_DAMAGE = (
    BadZipFile,
    SyntaxError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    OSError,
    EOFError,
    zlib.error,
)


def read_csv(
    file: Path, columns: list[str], separator: str = ",", optional: list[str] | None = None
) -> pd.DataFrame:
    """The file's columns as strings; a missing `optional` column is empty.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not CSV in UTF-8, or lacks a column.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: is the root the official download?")
    try:
        table = pd.read_csv(
            file, dtype=str, sep=separator, keep_default_na=False, skipinitialspace=True
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} is not a readable CSV file: {' '.join(str(error).split())}"
        ) from error
    table.columns = table.columns.str.strip()
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{file} lacks the columns {missing}; it has {table.columns.tolist()}")
    return table.reindex(columns=[*columns, *(optional or [])], fill_value="")


def read_xlsx(file: Path) -> list[list[str]]:
    """The rows of the first sheet as strings: 7.0 is "7", an empty cell "".

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not an xlsx file.
    """
    # Only two datasets need it.
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: is the root the unpacked official download?"
        )
    try:
        with warnings.catch_warnings():
            # openpyxl warns of styles that it does not support
            warnings.simplefilter("ignore", UserWarning)
            book = openpyxl.load_workbook(file, data_only=True)
            rows = [
                [_text(cell) for cell in row]
                for row in book.worksheets[0].iter_rows(values_only=True)
            ]
    except (InvalidFileException, *_XLSX_DAMAGE) as error:
        raise ValueError(f"{file} is not a readable xlsx file ({type(error).__name__})") from error
    return rows


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, with their numbers from 1.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not text in UTF-8.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: is the root the unpacked official download?"
        )
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8: {error}") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]

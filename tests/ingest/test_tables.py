"""CSV, xlsx and MATLAB files: cells as text, and one message for whatever is wrong."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from arl.ingest.matlab import read_mat
from arl.ingest.tables import read_csv, read_xlsx


def workbook(file: Path, rows: list[list[object]]) -> None:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)


def test_csv_cells_stay_text_whatever_separates_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffImage ; Label\n001.png; NaN\n")
    table = read_csv(tmp_path / "t.csv", ["Label", "Image"], ";")
    assert table.to_numpy().tolist() == [["NaN", "001.png"]]


def test_xlsx_cells_become_text(tmp_path: Path) -> None:
    workbook(
        tmp_path / "t.xlsx", [["Image", "Type"], [7, " Benign "], [8.0, None], ["000009", 2.5]]
    )
    assert read_xlsx(tmp_path / "t.xlsx") == [
        ["Image", "Type"],
        ["7", "Benign"],
        ["8", ""],
        ["000009", "2.5"],
    ]


def test_xlsx_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"t.xlsx does not exist"):
        read_xlsx(tmp_path / "t.xlsx")
    workbook(tmp_path / "t.xlsx", [[1]])
    data = (tmp_path / "t.xlsx").read_bytes()
    with ZipFile(tmp_path / "t.xlsx") as members:
        sheet = members.getinfo("xl/worksheets/sheet1.xml")
    flipped = bytearray(data)
    flipped[sheet.header_offset + 60 : sheet.header_offset + 90] = (
        b"\xff" * 30
    )  # in its compressed part
    for torn in (b"", bytes(flipped), data[:-200], data[: len(data) // 2], b"PK" + bytes(50)):
        (tmp_path / "t.xlsx").write_bytes(torn)
        with pytest.raises(ValueError, match=r"t.xlsx is not a readable xlsx file"):
            read_xlsx(tmp_path / "t.xlsx")


def test_matlab_variables(tmp_path: Path) -> None:
    file = tmp_path / "m.mat"
    savemat(file, {"predicted": np.arange(30, dtype=np.uint8).reshape(2, 3, 5)})
    assert np.array_equal(read_mat(file, "predicted"), np.arange(30).reshape(2, 3, 5))
    with pytest.raises(ValueError, match=r"lacks the variable 'data'; it has \['predicted'\]"):
        read_mat(file, "data")


def test_matlab_files_that_are_damaged_or_too_new(tmp_path: Path) -> None:
    file = tmp_path / "m.mat"
    savemat(file, {"data": np.arange(3000, dtype=np.uint8)})
    data = file.read_bytes()
    for torn in (b"", data[:100], data[:200], data[:1000], bytes(300)):
        file.write_bytes(torn)
        with pytest.raises(ValueError, match=r"m.mat is not a readable MATLAB file"):
            read_mat(file, "data")
    file.write_bytes(
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(300)
    )
    with pytest.raises(ValueError, match=r"7.3 file, which is not read: save it again with -v7"):
        read_mat(file, "data")

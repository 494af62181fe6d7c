"""Labels for hospital DICOM from a CSV table, joined by hashed identifiers."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from arl.corpus.record import Entry, Label
from arl.ingest.dicom.burnt_in_text import KEEP
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.label_table import (
    LabelRow,
    LabelTable,
    join_counts,
    label_name,
    merge_tables,
    read_label_table,
    with_labels,
)
from arl.ingest.readers import dicom_folder
from arl.ingest.readers.dicom_folder import Reading

KEY = b"a secret of sixteen bytes or more"
HEADER = {
    "PatientID": "MRN4711",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.4",
    "SOPInstanceUID": "1.2.3.4.5",
}


def header() -> Dataset:
    dataset = Dataset()
    for name, value in HEADER.items():
        setattr(dataset, name, value)
    return dataset


def table(tmp_path: Path, text: str) -> LabelTable:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    return read_label_table(file, KEY)


@pytest.mark.parametrize(
    ("kind", "value", "level"),
    [
        ("patient", "MRN4711", "patient"),
        ("study", "1.2.3", "exam"),
        ("series", "1.2.3.4", "exam"),
        ("instance", "1.2.3.4.5", "clip"),
        ("file", "b.dcm", "clip"),
        ("file", "a/b.dcm", "clip"),
    ],
)
def test_each_kind_of_key_joins_with_its_level(
    tmp_path: Path, kind: str, value: str, level: str
) -> None:
    labels = table(tmp_path, f"{kind},label,EF (%),Wall motion\n{value}, abnormal ,35.5,poor\n")
    (row,) = labels.find(header(), Path("a/b.dcm"), KEY)
    assert row.label == "abnormal"
    assert row.labels == {"ef": Label(35.5, level), "wall_motion": Label("poor", level)}
    assert value not in repr(labels)
    assert labels.find(Dataset(), Path("other.dcm"), KEY) == []
    assert labels.find(header(), Path("a/b.dcm"), b"another key, also long enough") == []


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    labels = table(tmp_path, "patient,grade\nA,1\nA,2\nB,3\nB,3\n,4\nC,\nD,5\nMRN4711,2\n")
    assert labels.unused == {
        "its patient is empty": 1,
        "it states no label": 1,
        "several rows of one key contradict each other": 1,
    }
    (row,) = labels.find(header(), Path("x"), KEY)
    assert row.labels["grade"] == Label(2.0, "patient")
    lines = join_counts(labels, [{row.key}, set(), {row.key}])
    assert [line.split(None, 1) for line in lines] == [
        ["1", "rows join accepted inputs"],
        ["2", "rows match no accepted input"],
        ["1", "rows are unused: it states no label"],
        ["1", "rows are unused: its patient is empty"],
        ["1", "rows are unused: several rows of one key contradict each other"],
        ["2", "accepted inputs have labels"],
        ["1", "accepted inputs match no row"],
    ]


def test_a_column_of_words_and_numbers_is_text(tmp_path: Path) -> None:
    labels = table(tmp_path, "patient,birads,psa\nMRN4711,4a,1e3\nB,5,inf\n")
    (row,) = labels.find(header(), Path("x"), KEY)
    assert row.labels == {"birads": Label("4a", "patient"), "psa": Label("1e3", "patient")}


@pytest.mark.parametrize(
    "text", ["label\nx\n", "patient,study,label\na,b,c\n", "patient\na\n", "", "\xff"]
)
def test_tables_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"dicom\.labels"):
        read_label_table(file, KEY)
    with pytest.raises(FileNotFoundError, match=r"dicom\.labels"):
        read_label_table(tmp_path / "absent.csv", KEY)


@settings(deadline=None)
@given(st.text(max_size=70))
def test_every_column_name_becomes_a_plain_label_name(text: str) -> None:
    assert label_name(text).replace("_", "").isascii()
    assert label_name(text)[0].isalpha()


def test_a_narrow_key_overrides_a_wide_one_and_a_still_has_image_labels() -> None:
    rows = [
        LabelRow("p", "patient", "benign", {"grade": Label(1.0, "patient")}),
        LabelRow("i", "instance", "malignant", {"grade": Label(2.0, "clip")}),
    ]
    entry = with_labels(Entry(key="k", anatomy="breast"), rows)
    assert (entry.label, entry.labels) == ("malignant", {"grade": Label(2.0, "image")})
    assert entry.label_rows == ("p", "i")
    clip = with_labels(Entry(key="k", anatomy="breast", clip="c"), rows)
    assert clip.labels == {"grade": Label(2.0, "clip")}


def test_tables_are_united() -> None:
    first = LabelTable({"a": LabelRow("a", "study", None, {"x": Label(1.0)})}, {"r": 1})
    second = LabelTable(
        {"a": LabelRow("a", "study", "c", {"x": Label(2.0), "y": Label(3.0)})}, {"r": 2}
    )
    both = merge_tables([first, second])
    assert both.rows["a"] == LabelRow("a", "study", "c", {"x": Label(1.0), "y": Label(3.0)})
    assert both.unused == {"r": 3}


def test_a_real_file_gets_its_labels(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("color-pl.dcm", download=False)))
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "one.dcm").write_bytes(source.read_bytes())
    study = str(dcmread(source, stop_before_pixels=True).StudyInstanceUID)
    labels = table(tmp_path, f"study,label,age\n{study},node,44\n")
    reading = Reading(
        "site", KEY, AnatomyRules([], [], {}), KEEP, stills_by_content=True, labels=labels
    )
    (item,) = dicom_folder.inputs(drop, reading)
    entries = [record.entry for record in item.records()]
    assert {entry.label for entry in entries} == {"node"}
    assert all(entry.labels == {"age": Label(44.0, "exam")} for entry in entries)
    assert all(study not in code for entry in entries for code in entry.label_rows)

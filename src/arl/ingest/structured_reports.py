"""Labels from DICOM structured reports (PS3.16, TID 1500 "Measurement Report").

A measurement group (TID 1501) states numeric measurements (NUM) and qualitative evaluations (CODE),
and refers to the images that it describes. Groups without an image describe the examination.
Text, dates, names and observers are not read.
"""

from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from arl.corpus.record import Label, Level
from arl.ingest.label_table import KeyKind, LabelRow, LabelTable, hash_key, label_name, merge_tables

# Storage classes of structured reports begin like this (PS3.4, table B.5-1).
_SR_PREFIX = "1.2.840.10008.5.1.4.1.1.88."
# (coding scheme, value) of concepts of TID 1500.
_MEASUREMENT_GROUP = ("DCM", "125007")
_EVALUATIONS = ("DCM", "C0034375")
# CODE items that describe the report or the tracking, and no finding.
_CONTEXT = {
    "121049",
    "121058",
    "121112",
    "111001",
    "121401",
    "121402",
    "121406",
    "363698007",
    "370129005",
    "112039",
    "112040",
    "121050",
    "121005",
    "121008",
    "121070",
}
_MAX_BYTES = 64 << 20


def read_reports(folder: Path, key: bytes) -> LabelTable:
    """The labels of all structured reports below a folder; other files are counted.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"dicom.reports: {folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return merge_tables(_read_report(file, key) for file in files)


def _read_report(file: Path, key: bytes) -> LabelTable:
    if file.stat().st_size > _MAX_BYTES:
        return LabelTable({}, {"the report is larger than 64 MiB": 1})
    try:
        report = dcmread(file)
    except (InvalidDicomError, OSError, ValueError, EOFError, AttributeError):
        return LabelTable({}, {"the report is not readable DICOM": 1})
    if not str(report.get("SOPClassUID", UID(""))).startswith(_SR_PREFIX):
        return LabelTable({}, {"the file is no structured report": 1})
    rows: dict[str, LabelRow] = {}
    for group in _groups(report):
        findings = dict(_findings(group))
        if not findings:
            continue
        for kind, value in _targets(group, report):
            code = hash_key(key, kind, value)
            level: Level = "exam" if kind == "study" else "clip"
            labels = {name: Label(finding, level) for name, finding in findings.items()}
            first = rows.get(code, LabelRow(code, kind))
            rows[code] = LabelRow(code, kind, None, {**labels, **first.labels})
    return LabelTable(rows, {} if rows else {"the report states no measurement or evaluation": 1})


def _children(item: Dataset) -> Iterator[Dataset]:
    yield from item.get("ContentSequence", None) or ()


def _concept(item: Dataset) -> tuple[str, str, str]:
    """Coding scheme, value and meaning of the concept name."""
    names = item.get("ConceptNameCodeSequence", None)
    if not names:
        return "", "", ""
    return (
        str(names[0].get("CodingSchemeDesignator", "")),
        str(names[0].get("CodeValue", "")),
        str(names[0].get("CodeMeaning", "")),
    )


def _groups(item: Dataset) -> Iterator[Dataset]:
    """Measurement groups, and containers of qualitative evaluations without a group."""
    for child in _children(item):
        scheme, value, _ = _concept(child)
        if (scheme, value) in (_MEASUREMENT_GROUP, _EVALUATIONS):
            yield child
        else:
            yield from _groups(child)


def _findings(group: Dataset) -> Iterator[tuple[str, str | float]]:
    for child in _children(group):
        kind = child.get("ValueType", "")
        _, value, meaning = _concept(child)
        if value in _CONTEXT or not meaning:
            continue
        if kind == "NUM" and child.get("MeasuredValueSequence", None):
            measured = child.MeasuredValueSequence[0]
            units = measured.get("MeasurementUnitsCodeSequence", None)
            unit = str(units[0].get("CodeValue", "")) if units else ""
            suffix = "" if unit in ("", "1") else f" {unit}"
            yield label_name(f"{meaning}{suffix}"), float(measured.NumericValue)
        elif kind == "CODE" and child.get("ConceptCodeSequence", None):
            yield label_name(meaning), str(child.ConceptCodeSequence[0].CodeMeaning)


def _targets(group: Dataset, report: Dataset) -> list[tuple[KeyKind, str]]:
    """The images that a group refers to, else the examination of the report."""
    images = list(dict.fromkeys(_image_references(group)))
    if images:
        return [("instance", uid) for uid in images]
    study = str(report.get("StudyInstanceUID", "") or "").strip()
    return [("study", study)] if study else []


def _image_references(item: Dataset) -> Iterator[str]:
    for child in _children(item):
        if child.get("ValueType", "") == "IMAGE":
            for reference in child.get("ReferencedSOPSequence", None) or ():
                yield str(reference.ReferencedSOPInstanceUID)
        yield from _image_references(child)

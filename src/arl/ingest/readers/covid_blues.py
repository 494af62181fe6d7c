"""COVID-BLUES: lung ultrasound at the BLUE points of COVID-19 suspects."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from arl.corpus.record import Entry, Input, Label, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, stratified
from arl.ingest.clips import is_video, media_records
from arl.ingest.folders import files_below, locate, member
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv

_NAME = re.compile(r"patient_(?P<patient>\d+)_(?P<point>[LR][123])(_\d+)?")
_PCR = {"1": "positive", "0": "negative"}
_YES_NO = ("yes", "no")
# As the table writes them: as whole numbers, or as floats where a column has empty cells.
_GRADES = {f"{grade}{ending}": float(grade) for grade in range(4) for ending in ("", ".0")}


def read(root: Path) -> list[Input]:
    """One input for each video, and for each row of severity.csv without one.

    Raises:
        FileNotFoundError: No folder holds lus_videos, severity.csv and clinical_variables.csv.
        ValueError: A table lacks a column, or lists a video or a patient twice.
    """
    base = locate(root, "lus_videos", "severity.csv", "clinical_variables.csv")
    severity = _unique_rows(
        member(base, "severity.csv"), ["video_file", "Severity Score", "A-lines", "B-lines"]
    )
    patients = _unique_rows(member(base, "clinical_variables.csv"), ["patient_id", "cov_test"])
    files = files_below(member(base, "lus_videos"))
    videos = {file.stem: file for file in files if is_video(file) and _NAME.fullmatch(file.stem)}
    # Only patients with a video count, so that the PCR results stay in equal proportion.
    results = {
        patient: row["cov_test"]
        for stem in videos
        if (row := patients.get(patient := _patient(stem)))
    }
    splits = stratified(results, {patient: patient for patient in results})
    listed = [
        Input(
            file.relative_to(base).as_posix(),
            partial(_records, file, severity.get(stem), patients.get(_patient(stem)), splits),
            patients.get(_patient(stem), {}).get("cov_test"),
        )
        for stem, file in videos.items()
    ]
    without_video = [
        refusal(f"severity.csv {stem}", "lus_videos holds no video of this name")
        for stem in severity
        if stem not in videos
    ]
    others = [
        refusal(file.relative_to(base).as_posix(), "its name is not patient_<id>_<point>.mp4")
        for file in files
        if videos.get(file.stem) != file
    ]
    return listed + without_video + others


def _unique_rows(file: Path, columns: list[str]) -> dict[str, dict[str, str]]:
    """First column -> the row, without the spaces around values.

    Some official values have a trailing space.
    """
    table = read_csv(file, columns)
    rows: dict[str, dict[str, str]] = {}
    for cells in table.to_numpy().tolist():
        row = dict(zip(columns, (str(cell).strip() for cell in cells), strict=True))
        if rows.setdefault(row[columns[0]], row) is not row:
            raise ValueError(f"{file} lists {row[columns[0]]} twice")
    return rows


def _patient(stem: str) -> str:
    matched = _NAME.fullmatch(stem)
    assert matched is not None
    return matched["patient"]


def _records(
    file: Path,
    severity: dict[str, str] | None,
    patient: dict[str, str] | None,
    splits: dict[str, str],
) -> Iterator[Record]:
    if severity is None:
        raise Refused("severity.csv does not list it")
    if patient is None:
        raise Refused("clinical_variables.csv does not list its patient")
    if patient["cov_test"] not in _PCR:
        raise Refused(f"cov_test {patient['cov_test']!r} is not 0 or 1")
    if severity["Severity Score"] not in _GRADES:
        raise Refused(f"Severity Score {severity['Severity Score']!r} is not 0, 1, 2 or 3")
    matched = _NAME.fullmatch(file.stem)
    assert matched is not None
    identifier = patient["patient_id"]
    entry = Entry(
        key=file.stem,
        patient=identifier,
        exam=identifier,
        anatomy="lung",
        probe="convex",
        device="Philips Lumify",
        label=_PCR[patient["cov_test"]],
        labels={
            "pcr": Label(_PCR[patient["cov_test"]], "patient"),
            "blue_point": Label(matched["point"], "clip"),
            "severity": Label(_GRADES[severity["Severity Score"]], "clip"),
            "a_lines": Label(_yes_no("A-lines", severity["A-lines"]), "clip"),
            "b_lines": Label(_yes_no("B-lines", severity["B-lines"]), "clip"),
        },
        splits={DEFAULT: splits[identifier]},
    )
    yield from media_records(file, entry)


def _yes_no(column: str, text: str) -> str:
    if text.lower() not in _YES_NO:
        raise Refused(f"{column} {text!r} is not yes or no")
    return text.lower()


SOURCE = Source(
    name="covid-blues",
    title="COVID-BLUES: lung ultrasound at the BLUE points (Wiedemann et al., JBHI 2025).",
    read=without_options(read),
    licence="CC BY-NC-ND 4.0: non-commercial, no derivatives",
    citation=(
        "N. Wiedemann, D. de Korte-de Boer, M. Richter, S. van de Weijer, C. Buhre, F. A. M. "
        "Eggert, S. Aarnoudse, L. Grevendonk, S. Roeber, C. M. E. Remie, W. Buhre, R. Henry, "
        "J. Born, COVID-BLUeS: A prospective study on the value of AI in lung ultrasound "
        "analysis, IEEE Journal of Biomedical and Health Informatics 29(9), 2025, "
        "doi:10.1109/JBHI.2025.3543686"
    ),
    obtain="https://github.com/NinaWie/COVID-BLUES, or the Hugging Face set jannisborn/COVID-BLUES",
    layout=(
        "<root>/lus_videos/patient_1_L1.mp4 (a second video of a point: patient_15_L2_2.mp4), "
        "severity.csv and clinical_variables.csv; the layout may lie up to four folders below "
        "the root."
    ),
    keys="<video>/<frame>, 0-based as it decodes.",
    coding=(
        "Grey; convex probe. label = the PCR result of the patient, positive or negative. "
        "Labels of a patient: pcr. Labels of a clip: blue_point (L1 to R3), severity (a number, "
        "0 to 3, by Soldati), a_lines and b_lines (yes or no). Spaces around values are removed. "
        "Other clinical variables and comments are not read."
    ),
    patient="The number in the name; 63 patients, one examination each. Clip: the video.",
    split='No official split. "default" is drawn by patient, PCR results in equal proportion.',
    refuses=(
        "A torn or damaged video, a video that severity.csv does not list, a patient that "
        "clinical_variables.csv does not list, a grade or result of another kind, rows without a "
        "video, and other files of lus_videos."
    ),
)

"""COVID-BLUES: a miniature tree of synthetic clips in the official layout, and the real set."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from arl.corpus import manifest
from arl.ingest.readers import covid_blues

# Values carry trailing spaces, as in the official table.
SEVERITY = """video_file,Severity Score,A-lines,B-lines,comments
patient_1_L1,2.0,yes ,no ,"broken pleura line, B-lines"
patient_1_R3_2,0.0,no,yes,
patient_2_L1,3.0,yes,yes,
patient_15_R1,1.0,no,no,
"""
CLINICAL = """patient_id,cov_test,number_video_files,pat_age
1,1,2.0,87.0
2,0,1.0,60.0
15,1,1.0,50.0
"""


@pytest.fixture
def root(tmp_path: Path, make_video: Callable) -> Path:
    base = tmp_path / "COVID-BLUES"
    for stem in ("patient_1_L1", "patient_1_R3_2", "patient_2_L1", "patient_15_R1"):
        make_video(base / f"lus_videos/{stem}.mp4", frames=3, codec="mp4v")
    (base / "severity.csv").write_text(SEVERITY)
    (base / "clinical_variables.csv").write_text(CLINICAL)
    (base / "README.md").write_text("official files beside the layout are no inputs")
    return base


def labels(corpus: Path) -> dict[str, dict[str, object]]:
    """Clip -> label name -> value, checked to be the same on every frame."""
    lines = manifest.read_labels(corpus)
    lines["clip"] = lines["id"].str.extract(r":(.*)/", expand=False)
    lines["value"] = lines["text"].where(lines["text"].notna(), lines["number"])
    grouped = lines.groupby(["clip", "name"])["value"]
    assert (grouped.nunique() == 1).all()
    first = grouped.first()
    return {clip: first[clip].to_dict() for clip in first.index.levels[0]}


def test_frames_patients_and_labels(root: Path, batch_of: Callable) -> None:
    done = batch_of(covid_blues, root.parent)
    assert done.refused == {}
    assert done.num_inputs == 4
    assert len(done.rows) == 12
    assert set(done.rows["anatomy"]) == {"lung"}
    clips = done.rows.groupby("clip")
    assert clips["label"].first().to_dict() == {
        "covid-blues:patient_1_L1": "positive",
        "covid-blues:patient_1_R3_2": "positive",
        "covid-blues:patient_2_L1": "negative",
        "covid-blues:patient_15_R1": "positive",
    }
    assert set(done.rows["patient"]) == {"covid-blues:1", "covid-blues:2", "covid-blues:15"}
    assert labels(done.corpus)["patient_1_L1"] == {
        "pcr": "positive",
        "blue_point": "L1",
        "severity": 2.0,
        "a_lines": "yes",
        "b_lines": "no",
    }
    assert labels(done.corpus)["patient_1_R3_2"]["blue_point"] == "R3"
    splits = done.split("default")
    assert len({splits[key] for key in splits if key.startswith("patient_1_")}) == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("patient_2_L1,3.0", "patient_2_L1,4.0", "Severity Score '4.0' is not 0, 1, 2 or 3"),
        ("patient_2_L1,3.0", "patient_2_L1,", "Severity Score '' is not 0, 1, 2 or 3"),
        ("3.0,yes,yes", "3.0,maybe,yes", "A-lines 'maybe' is not yes or no"),
        ("patient_2_L1,3.0,yes,yes,\n", "", "severity.csv does not list it"),
    ],
)
def test_a_bad_row_refuses_its_video_only(
    root: Path, batch_of: Callable, old: str, new: str, reason: str
) -> None:
    table = root / "severity.csv"
    table.write_text(SEVERITY.replace(old, new))
    done = batch_of(covid_blues, root)
    assert done.refused == {"lus_videos/patient_2_L1.mp4": reason}
    assert done.rows["clip"].nunique() == 3


def test_what_has_no_partner_is_refused(root: Path, batch_of: Callable) -> None:
    (root / "lus_videos/patient_2_L1.mp4").unlink()
    (root / "lus_videos/notes.txt").write_text("x")
    (root / "clinical_variables.csv").write_text(CLINICAL.replace("15,1,1.0,50.0\n", ""))
    assert batch_of(covid_blues, root).refused == {
        "severity.csv patient_2_L1": "lus_videos holds no video of this name",
        "lus_videos/notes.txt": "its name is not patient_<id>_<point>.mp4",
        "lus_videos/patient_15_R1.mp4": "clinical_variables.csv does not list its patient",
    }


def test_a_video_listed_twice_is_an_error(root: Path) -> None:
    (root / "severity.csv").write_text(SEVERITY + "patient_1_L1,0.0,no,no,\n")
    with pytest.raises(ValueError, match="lists patient_1_L1 twice"):
        covid_blues.read(root)


@pytest.mark.skipif("ARL_REAL_DATA" not in os.environ, reason="needs ARL_REAL_DATA")
def test_the_real_set_is_listed_completely() -> None:
    root = Path(os.environ["ARL_REAL_DATA"]) / "COVID-BLUES"
    inputs = covid_blues.read(root)
    assert len(inputs) == 362
    labels = [item.label for item in inputs]
    assert set(labels) == {"0", "1"}
    names = {item.name for item in inputs}
    assert "lus_videos/patient_15_L2_2.mp4" in names
    for item in inputs[:2]:
        records = list(item.records())
        assert {record.entry.frame for record in records} == set(range(len(records)))
        assert 30 <= len(records) <= 200

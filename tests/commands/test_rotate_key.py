"""A new hash key: splits, labels, copies and the search for a patient still join."""

import io
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from arl.commands.find_patient import find_patient
from arl.commands.quarantine import quarantine
from arl.commands.rotate_key import rotate_key
from arl.corpus.manifest import read_manifest, read_quarantine
from arl.corpus.splits import with_splits
from arl.ingest.dicom.deidentify import key_id
from arl.params import Params
from arl.stages.ingest import ingest

KEYS = [
    "7e1f90ac4b2d8365c0f7a91e5d3b8246",
    "c94d02f7b6a8135e90d1f3a7e5c42b86",
    "1b6fe2d48a7c9035e1f0b4d6a8c37295",
]
PATIENTS = [f"MRN{number:04d}" for number in range(6)]


def write(folder: Path, patient: str, instance: int) -> Path:
    """A real still under another patient id and another instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(get_testdata_file("color-px.dcm", download=False))
        dataset.PatientID = patient
        dataset.StudyInstanceUID = f"1.2.{patient[3:].lstrip('0') or '9'}"
        dataset.SOPInstanceUID = f"1.2.3.{instance}"
        file = folder / f"{patient}-{instance}.dcm"
        dataset.save_as(file, enforce_file_format=False)
    return file


@pytest.fixture
def params(tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    data = replace(tiny_params.data, workers=0, max_refused=1.0)
    return replace(tiny_params, data=data)


def use(monkeypatch: pytest.MonkeyPatch, new: int, old: int | None = None) -> None:
    for name in ("ARL_HASH_KEY_FILE", "ARL_OLD_HASH_KEY", "ARL_OLD_HASH_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ARL_HASH_KEY", KEYS[new])
    if old is not None:
        monkeypatch.setenv("ARL_OLD_HASH_KEY", KEYS[old])


def rows(corpus: Path) -> pd.DataFrame:
    columns = ["id", "source", "batch", "patient", "label", "key_id"]
    return with_splits(corpus, columns, {})


def test_two_rotations_keep_patients_splits_copies_labels_and_quarantine(
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus, first = tmp_path / "data", tmp_path / "first"
    for instance, patient in enumerate(PATIENTS):
        write(first, patient, instance)
    (first / "notes.txt").write_text("no picture")
    use(monkeypatch, 0)
    ingest(params, "dicom-folder", root=first, corpus=corpus)
    before = rows(corpus)
    assert set(before["key_id"]) == {key_id(KEYS[0].encode())}

    use(monkeypatch, 1, old=0)
    rotate_key(root=first, corpus=corpus)
    assert "6 of 6 patients and 6 of 6 files" in capsys.readouterr().out
    # All known patients return with a new image, one copy of an old image, and a new patient.
    second = tmp_path / "second"
    for instance, patient in enumerate([*PATIENTS, "MRN9000"]):
        write(second, patient, 100 + instance)
    write(second, PATIENTS[0], 0)
    labels = tmp_path / "labels.csv"
    labels.write_text(f"patient,label\n{PATIENTS[0]},benign\nMRN9000,malignant\n")
    params.dicom.labels = str(labels)
    use(monkeypatch, 1)
    ingest(params, "dicom-folder", root=second, corpus=corpus, batch="0001")
    after = rows(corpus)
    added = after[after["batch"] == "0001"]
    assert len(added) == 7 * len(before) // 6
    known = added[added["patient"].isin(before["patient"])]
    new = added[~added["patient"].isin(before["patient"])]
    assert known["patient"].nunique() == 6
    assert new["patient"].nunique() == 1
    assert set(known["key_id"]) == {key_id(KEYS[0].encode())}
    assert set(new["key_id"]) == {key_id(KEYS[1].encode())}
    assert (after.groupby("patient")["split"].nunique() == 1).all()
    assert set(new["label"]) == {"malignant"}
    assert (known["label"] == "benign").sum() * 6 == len(before)
    assert "an image with this id was accepted before" in set(read_quarantine(corpus)["reason"])
    quarantine(corpus=corpus, batch="0000")
    assert "notes.txt" in capsys.readouterr().out

    # The second rotation leads to the hashes of the first key, not to those of the second.
    use(monkeypatch, 2, old=1)
    rotate_key(root=first, corpus=corpus)
    assert "1 patients of the corpus are not in" in capsys.readouterr().out
    rotate_key(root=second, corpus=corpus)
    use(monkeypatch, 2)
    write(tmp_path / "third", PATIENTS[3], 200)
    ingest(params, "dicom-folder", root=tmp_path / "third", corpus=corpus, batch="0002")
    whole = rows(corpus)
    third = whole[whole["batch"] == "0002"]
    assert set(third["patient"]) <= set(before["patient"])
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PATIENTS[3]}\n"))
    find_patient(corpus=corpus)
    shown = capsys.readouterr().out
    assert all(batch in shown for batch in ("0000", "0001", "0002"))
    assert f"{(whole['patient'] == third['patient'].iloc[0]).sum()} images" in shown


def test_the_files_of_a_rotation_hold_no_identifier_and_no_plain_hash(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, export = tmp_path / "data", tmp_path / "export"
    write(export, PATIENTS[0], 0)
    use(monkeypatch, 0)
    ingest(params, "dicom-folder", root=export, corpus=corpus)
    use(monkeypatch, 1, old=0)
    rotate_key(root=export, corpus=corpus)
    (file,) = Path("quarantine-key").glob("rotation-*.enc")
    patient = read_manifest(corpus, ["patient"])["patient"].iloc[0].partition(":")[2]
    content = file.read_bytes()
    assert PATIENTS[0].encode() not in content
    assert patient.encode() not in content
    assert file.stat().st_mode & 0o077 == 0


def test_keys_that_cannot_be_rotated(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, 0)
    with pytest.raises(ValueError, match="ARL_OLD_HASH_KEY"):
        rotate_key(root=tmp_path, corpus=tmp_path)
    use(monkeypatch, 0, old=0)
    with pytest.raises(ValueError, match="two keys"):
        rotate_key(root=tmp_path, corpus=tmp_path)
    monkeypatch.setenv("ARL_OLD_HASH_KEY", "0" * 32)
    with pytest.raises(ValueError, match="weak"):
        rotate_key(root=tmp_path, corpus=tmp_path)

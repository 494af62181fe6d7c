"""A hospital's drop: every file ends as images or in quarantine, and no identifier leaves it."""

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from arl import params
from arl.corpus import manifest, splits
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.record import Input, Refused
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.batches import write_inputs
from arl.ingest.dicom.burnt_in_text import KEEP, MASK, QUARANTINE, words
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.readers import dicom_folder, pydicom_data
from arl.ingest.readers.dicom_folder import Reading

ROOT = Path(__file__).parents[3]
DICOM = params.load([], ROOT / "params.yaml").dicom
RULES = AnatomyRules.from_settings(DICOM)
KEY = "7e1f90ac4b2d8365c0f7a91e5d3b8246"
# what is planted: names, numbers, dates, places
SECRETS = ("Nightingale", "Florence", "MRN4711", "19200512", "Scutari", "ACC0815", "Barrack")
# attributes of the PS3.15 basic profile that hold text, and free text that the anatomy is read from
PLANTED = {
    "PatientName": "Nightingale^Florence",
    "PatientID": "MRN4711",
    "IssuerOfPatientID": "Scutari",
    "OtherPatientIDs": "MRN4711",
    "PatientBirthDate": "19200512",
    "PatientAddress": "Barrack Hospital Scutari",
    "PatientComments": "Nightingale MRN4711",
    "StudyDate": "19200512",
    "SeriesDate": "19200512",
    "AcquisitionDateTime": "19200512",
    "AccessionNumber": "ACC0815",
    "InstitutionName": "Barrack Hospital",
    "InstitutionAddress": "Scutari",
    "ReferringPhysicianName": "Nightingale^Florence",
    "PerformingPhysicianName": "Nightingale^Florence",
    "OperatorsName": "Nightingale",
    "StationName": "Scutari",
    "DeviceSerialNumber": "ACC0815",
    "StudyID": "ACC0815",
    "StudyDescription": "Thyroid of Florence Nightingale",
    "SeriesDescription": "Nightingale left",
    "ProtocolName": "ACC0815 Nightingale",
    "ImageComments": "Nightingale",
    "BodyPartExamined": "NIGHTINGALE",
    "ViewName": "Nightingale",
    "StudyInstanceUID": "1.2.19200512.4711",
    "SOPInstanceUID": "1.2.19200512.4712",
}


def read(root: Path, burnt_in_text: str = MASK, **site: str) -> list[Input]:
    return dicom_folder.read(root, replace(DICOM, burnt_in_text=burnt_in_text), **site)


def real(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARL_HASH_KEY", KEY)


def plant(dataset: Dataset, uid: str) -> None:
    for name, value in PLANTED.items():
        dataset.add_new(name, dictionary_VR(name), value)
    dataset.SOPInstanceUID = uid
    block = dataset.private_block(0x0011, "Nightingale", create=True)
    block.add_new(0x01, "LO", "Florence Nightingale MRN4711")
    dataset.ReferencedStudySequence = [Dataset()]
    dataset.ReferencedStudySequence[0].ReferencedSOPInstanceUID = "1.2.19200512"


def planted(name: str, target: Path, uid: str, truncate: int = 0) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(real(name))
        plant(dataset, uid)
        dataset.save_as(target, enforce_file_format=False)
    if truncate:
        target.write_bytes(target.read_bytes()[:truncate])


def everything(root: Path) -> str:
    """All bytes and file names below a folder, and the cells of its tables unpacked."""
    parts = []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        parts.append(str(file.relative_to(root)))
        parts.append(file.read_bytes().decode("latin-1"))
        if file.suffix == ".parquet":
            parts.append(str(pq.read_table(file).to_pylist()))
            parts.append(str(pq.read_metadata(file).metadata))
    return "\n".join(parts).lower()


def ingest(drop: Path, corpus: Path) -> str:
    """What the command shows while it ingests with processes of its own."""
    command = "import sys; from arl.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [
        "dicom-folder",
        "--root",
        str(drop),
        "--corpus",
        str(corpus),
        "--site",
        "north",
        "data.workers=1",
        "data.max_refused=1.0",
    ]
    call = [sys.executable, "-c", command, "ingest", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "5 inputs, 2 accepted (3 images), 3 refused" in done.stdout
    return done.stdout + done.stderr


def test_no_identifier_is_in_the_output_or_on_the_screen(tmp_path: Path) -> None:
    drop = tmp_path / "drop" / "Nightingale_Florence"
    planted("JPGLosslessP14SV1_1s_1f_8b.dcm", drop / "MRN4711.dcm", "1.2.3")
    planted("gdcm-US-ALOKA-16.dcm", drop / "19200512" / "Nightingale", "1.2.4")
    planted("OBXXXX1A_rle.dcm", drop / "Scutari.jpg", "1.2.5", truncate=20_000)
    planted("examples_palette.dcm", drop / "Barrack.dcm", "1.2.6")  # a still with stale tags
    (drop / "Nightingale.txt").write_text("Florence Nightingale MRN4711")
    screen = ingest(tmp_path / "drop", tmp_path / "data")
    rows, refused = (
        manifest.read_manifest(tmp_path / "data"),
        manifest.read_quarantine(tmp_path / "data"),
    )
    assert (len(rows), len(refused)) == (3, 3)
    output = everything(tmp_path / "data") + screen.lower()
    assert {secret for secret in SECRETS if secret.lower() in output} == set()
    assert KEY not in output
    # the free text has been read, and only its class has been kept
    assert rows["anatomy"].tolist() == ["abdominal", "abdominal", "cardiac"]
    assert rows["patient"].nunique() == 1
    assert rows["site"].unique().tolist() == ["north"]


def test_text_on_a_still_is_masked_or_the_file_refused(tmp_path: Path) -> None:
    """The screen of a real echo shows its settings over the scan."""
    shutil.copy(real("JPGLosslessP14SV1_1s_1f_8b.dcm"), tmp_path / "one.dcm")
    with pytest.raises(Refused, match="text is burnt into its scan"):
        list(read(tmp_path, QUARANTINE)[0].records())
    (record,) = read(tmp_path)[0].records()
    assert not [text for text in words(record.image) if len(text) > 3]


def test_free_text_decides_the_anatomy_without_being_kept(tmp_path: Path) -> None:
    planted("JPGLosslessP14SV1_1s_1f_8b.dcm", tmp_path / "drop/one.dcm", "1.2.3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(tmp_path / "drop/one.dcm")
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
        dataset.save_as(tmp_path / "drop/one.dcm", enforce_file_format=False)
    (record,) = read(tmp_path / "drop")[0].records()
    rule = "ProtocolName+StudyDescription+SeriesDescription: thyroid"
    assert (record.entry.anatomy, record.entry.anatomy_rule) == ("thyroid", rule)


def test_counts_add_up_over_a_mixed_drop(tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    for folder, name in (
        ("a", "gdcm-US-ALOKA-16.dcm"),
        ("b", "examples_ybr_color.dcm"),
        ("b/c", "MR_small.dcm"),
    ):
        (drop / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(real(name), drop / folder / name)
    shutil.copy(real("gdcm-US-ALOKA-16.dcm"), drop / "b" / "again.dcm")
    (drop / "empty").write_bytes(b"")
    with BatchWriter(
        tmp_path / "data",
        "dicom-folder",
        "0000",
        256,
        origin=BatchOrigin(licence="", citation=""),
    ) as writer:
        write_inputs(read(drop), writer)
    rows, refused = (
        manifest.read_manifest(tmp_path / "data"),
        manifest.read_quarantine(tmp_path / "data"),
    )
    assert len(rows) == 2 + 30
    assert sorted(refused["reason"]) == [
        "an image with this id was accepted before",
        "it is not a DICOM file",
        "its modality is not ultrasound",
    ]
    assert refused["input"].str.fullmatch("[0-9a-f]{32}").all()
    clip = rows[rows["clip"].notna()]
    assert clip["frame"].tolist() == list(range(30))
    assert clip["clip"].nunique() == 1
    assert splits.read_split(tmp_path / "data", clip, {}).nunique() == 1


def test_a_later_drop_of_the_same_files_adds_nothing(tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    shutil.copy(real("gdcm-US-ALOKA-16.dcm"), drop / "one.dcm")
    for batch in ("0000", "0001"):
        with BatchWriter(
            tmp_path / "data",
            "dicom-folder",
            batch,
            256,
            origin=BatchOrigin(licence="", citation=""),
        ) as writer:
            write_inputs(read(drop), writer)
        (drop / "one.dcm").rename(drop / "renamed.dcm")
        (drop / "renamed.dcm").rename(drop / "one.dcm")
    assert manifest.read_manifest(tmp_path / "data")["batch"].unique().tolist() == ["0000"]
    assert manifest.read_quarantine(tmp_path / "data")["batch"].tolist() == ["0001"]


def test_another_key_gives_unlinkable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drop").mkdir()
    shutil.copy(real("color-px.dcm"), tmp_path / "drop")
    readings = [
        Reading("north", key * 16, RULES, KEEP, stills_by_content=True)
        for key in (b"x", b"y", b"x")
    ]
    first, other, again = (
        dicom_folder.inputs(tmp_path / "drop", reading)[0] for reading in readings
    )
    entries = [next(iter(input.records())).entry for input in (first, other, again)]
    assert entries[0] == entries[2]
    assert entries[0].patient != entries[1].patient
    assert entries[0].key != entries[1].key
    assert first.name != other.name


def test_what_cannot_be_grouped_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(real("gdcm-US-ALOKA-16.dcm"))
        del dataset.PatientID, dataset.StudyInstanceUID
        dataset.save_as(tmp_path / "one.dcm", enforce_file_format=False)
    with pytest.raises(Refused, match="it cannot be grouped"):
        list(read(tmp_path)[0].records())


def test_no_key_no_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARL_HASH_KEY")
    with pytest.raises(ValueError, match="hospital DICOM needs one secret"):
        read(tmp_path)


def test_roots_and_sites_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        read(tmp_path / "absent")
    with pytest.raises(ValueError, match="the site must be a short name"):
        read(tmp_path, site="St Mary")
    with pytest.raises(ValueError, match=r"burnt_in_text is 'keep', it must be quarantine or mask"):
        read(tmp_path, KEEP)


def test_the_sample_files_are_six_and_all_accepted(tmp_path: Path) -> None:
    inputs = pydicom_data.read(pydicom_data.installed(), RULES)
    assert len(inputs) == 6
    small = [
        input
        for input, name in zip(inputs, pydicom_data.FILES, strict=True)
        if "color3d" not in name
    ]
    with BatchWriter(
        tmp_path,
        "pydicom-data",
        "0000",
        256,
        origin=BatchOrigin(licence="", citation=""),
    ) as writer:
        write_inputs(small, writer)
    rows = manifest.read_manifest(tmp_path)
    assert manifest.read_quarantine(tmp_path).empty
    assert rows["region_rule"].tolist() == [
        "tag",
        "tag-clamped",
        "content",
        "content",
        "tag",
        "tag",
    ]
    assert splits.grouping(rows) == "patient"
    with pytest.raises(
        FileNotFoundError, match=r"lacks JPGLossless.*, OBXXXX1A_rle.dcm, .* of pydicom-data"
    ):
        pydicom_data.read(tmp_path, RULES)

"""Labels from structured reports that highdicom, an independent implementation, has written."""

from pathlib import Path

import highdicom as hd
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from arl.corpus.record import Label
from arl.ingest.structured_reports import read_reports

KEY = b"a secret of sixteen bytes or more"
EF = Code("10230-1", "LN", "Left ventricular Ejection Fraction")
PERCENT = Code("%", "UCUM", "Percent")
WALL = Code("F-32040", "SRT", "Wall motion")
HYPOKINESIS = Code("F-30006", "SRT", "Hypokinesis")


def image(study: str) -> Dataset:
    """The attributes of an ultrasound image that a report refers to."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, generate_uid()
    dataset.Rows, dataset.Columns, dataset.Modality = 64, 64, "US"
    dataset.PatientID, dataset.PatientName = "MRN4711", "Nightingale^Florence"
    dataset.PatientBirthDate, dataset.PatientSex = "19200512", "F"
    dataset.AccessionNumber, dataset.StudyID = "ACC1", "1"
    dataset.StudyDate, dataset.StudyTime = "20260101", "120000"
    return dataset


def report(folder: Path, source: Dataset, *, with_image: bool) -> Path:
    observer = hd.sr.ObserverContext(
        observer_type=Code("121006", "DCM", "Person"),
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes("Doe^Jane"),
    )
    references = (
        [hd.sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)]
        if with_image
        else None
    )
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(generate_uid(), "Nightingale ventricle"),
        source_images=references,
        measurements=[hd.sr.Measurement(name=EF, value=35.5, unit=PERCENT)],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=WALL, value=HYPOKINESIS)],
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=Code("40701008", "SCT", "Echocardiography"),
        imaging_measurements=[group],
    )
    written = hd.sr.Comprehensive3DSR(
        evidence=[source],
        content=content,
        series_number=1,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="tests",
        is_complete=True,
        is_verified=False,
    )
    folder.mkdir(exist_ok=True)
    written.save_as(folder / f"{written.SOPInstanceUID}.dcm")
    return folder


@pytest.mark.parametrize(("with_image", "level"), [(True, "clip"), (False, "exam")])
def test_measurements_and_evaluations_become_labels(
    tmp_path: Path, with_image: bool, level: str
) -> None:
    source = image(generate_uid())
    labels = read_reports(report(tmp_path / "sr", source, with_image=with_image), KEY)
    (row,) = labels.find(source, Path("x.dcm"), KEY)
    assert row.labels == {
        "left_ventricular_ejection_fraction": Label(35.5, level),
        "wall_motion": Label("Hypokinesis", level),
    }
    assert labels.unused == {}
    other = image(source.StudyInstanceUID)
    assert bool(labels.find(other, Path("y.dcm"), KEY)) == (not with_image)
    assert "Nightingale" not in repr(labels)
    assert source.SOPInstanceUID not in repr(labels)


def test_other_files_are_counted_by_reason(tmp_path: Path) -> None:
    folder = tmp_path / "sr"
    report(folder, image(generate_uid()), with_image=True)
    (folder / "notes.txt").write_text("no DICOM")
    damaged = next(folder.glob("*.dcm")).read_bytes()
    (folder / "torn.dcm").write_bytes(damaged[:200])
    labels = read_reports(folder, KEY)
    assert len(labels.rows) == 1
    assert sum(labels.unused.values()) == 2
    assert "the report is not readable DICOM" in labels.unused
    with pytest.raises(FileNotFoundError, match=r"dicom\.reports"):
        read_reports(tmp_path / "absent", KEY)

"""Masks from segmentations that highdicom, an independent implementation, has written."""

import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from arl.ingest.dicom.burnt_in_text import KEEP
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.readers import dicom_folder
from arl.ingest.readers.dicom_folder import Reading
from arl.ingest.segmentations import read_segmentations, segmentation_counts

KEY = b"a secret of sixteen bytes or more"


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A folder with one real still."""
    folder = tmp_path / "drop"
    folder.mkdir()
    source = Path(str(get_testdata_file("color-pl.dcm", download=False)))
    (folder / "one.dcm").write_bytes(source.read_bytes())
    return folder


def image(drop: Path) -> Dataset:
    dataset = dcmread(drop / "one.dcm")
    # highdicom copies these from its source, and the test file lacks some.
    names = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
    for name in (*names, "AccessionNumber", "StudyID", "SeriesNumber", "InstanceNumber"):
        setattr(dataset, name, dataset.get(name, "") or "")
    dataset.StudyDate, dataset.StudyTime = "20260101", "120000"
    dataset.FrameOfReferenceUID = generate_uid()
    # The file has the retired class of 1993, which highdicom does not know.
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    return dataset


def segmentation(folder: Path, source: Dataset, mask: np.ndarray, kind: str = "BINARY") -> Path:
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Nightingale lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = hd.seg.Segmentation(
            source_images=[source],
            pixel_array=mask[None],
            segmentation_type=kind,
            segment_descriptions=[segment],
            series_instance_uid=generate_uid(),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="tests",
            manufacturer_model_name="tests",
            software_versions="1",
            device_serial_number="1",
        )
    written.save_as(folder / f"{written.SOPInstanceUID}.dcm")
    return folder


def read(drop: Path, folder: Path, structure: str = "") -> tuple[list, list[str]]:
    table = read_segmentations(folder, structure, KEY)
    reading = Reading(
        "site", KEY, AnatomyRules([], [], {}), KEEP, stills_by_content=True, segmentations=table
    )
    (item,) = dicom_folder.inputs(drop, reading)
    records = list(item.records())
    joined = frozenset(code for record in records for code in record.entry.label_rows)
    return records, segmentation_counts(table, joined)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_a_segmentation_becomes_the_mask_of_its_image(
    drop: Path, tmp_path: Path, kind: str
) -> None:
    source = image(drop)
    mask = np.ones((source.Rows, source.Columns), bool)
    mask[: source.Rows // 2] = False
    folder = segmentation(tmp_path / "seg", source, mask, kind)
    (folder / "notes.txt").write_text("no DICOM")
    records, counts = read(drop, folder)
    assert {record.entry.mask_name for record in records} == {"nodule"}
    for record in records:
        assert record.mask is not None
        assert record.mask.shape == record.image.shape[:2]
        assert not record.mask[0].any()
        assert record.mask[-1].all()
    assert [line.split(None, 1) for line in counts] == [
        ["1", "segmented images have a mask"],
        ["1", "are unused: the file is not a readable segmentation"],
    ]


def test_what_does_not_join_is_counted_by_reason(drop: Path, tmp_path: Path) -> None:
    source = image(drop)
    mask = np.ones((source.Rows, source.Columns), bool)
    records, counts = read(drop, segmentation(tmp_path / "a", source, mask), "ventricle")
    assert {record.entry.mask_name for record in records} == {None}
    assert counts == ["      1  are unused: the segment shows another structure"]
    source.SOPInstanceUID = generate_uid()
    records, counts = read(drop, segmentation(tmp_path / "b", source, mask))
    assert {record.entry.mask_name for record in records} == {None}
    assert counts == ["      1  segmented images match no accepted image of their size"]

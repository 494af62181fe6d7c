"""The ordered rules for anatomy and probe."""

import pytest
from pydicom.dataset import Dataset

from arl.data import dicom_rules
from arl.data.anatomy import anatomy_index


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def coded(meaning: str) -> list[Dataset]:
    return [header(CodeMeaning=meaning)]


@pytest.mark.parametrize(
    ("attributes", "anatomy", "rule"),
    [
        ({"AnatomicRegionSequence": coded("Thyroid"), "ViewName": "lung"}, "thyroid", "AnatomicRegionSequence"),
        ({"BodyPartExamined": "BREAST", "ImageType": ["ORIGINAL", "PRIMARY", "TTE"]}, "breast", "BodyPartExamined"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TTE ", "0001"], "StudyDescription": "liver"}, "cardiac", "ImageType"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "ODD"], "StudyDescription": "Liver"}, "liver", "description"),
        ({"ImageType": ["ORIGINAL", "PRIMARY"], "ProtocolName": "CARD_ADULT"}, "cardiac", "description"),
        ({"SeriesDescription": "Gallbladder and bladder"}, "gallbladder", "description"),
        ({"SeriesDescription": "urinary bladder"}, "bladder", "description"),
        ({"SeriesDescription": "Right kidney, renal artery"}, "kidney", "description"),
        ({"StudyDescription": "Transesophageal Echocardiogram"}, "cardiac", "description"),
        ({"StudyDescription": "Esophagus"}, "esophageal", "description"),
        ({"ViewCodeSequence": coded("Apical four chamber"), "ViewName": "lung"}, "cardiac", "view"),
        ({"ViewName": "PLAX parasternal"}, "cardiac", "ViewName"),
        ({"StudyDescription": "OB General"}, "other", "none"),
        ({"ImageType": "ORIGINAL", "BodyPartExamined": None}, "other", "none"),
        ({}, "other", "none"),
    ],
)  # fmt: skip
def test_the_first_rule_that_speaks_decides(attributes: dict, anatomy: str, rule: str) -> None:
    assert dicom_rules.anatomy(header(**attributes)) == (anatomy, rule)


def test_every_answer_is_an_anatomy() -> None:
    for name in {*dicom_rules._IMAGE_TYPE.values(), *(name for name, _ in dicom_rules._WORDS)}:
        anatomy_index(name)


@pytest.mark.parametrize(
    ("attributes", "probe"),
    [
        ({"TransducerType": "CURVED LINEAR"}, "convex"),
        ({"TransducerType": "LINEAR", "TransducerData": "C5-1"}, "linear"),
        ({"TransducerType": "SECTOR_PHASED"}, "sector"),
        ({"TransducerData": ["C5-1", "UNUSED", "UNUSED"]}, "convex"),
        ({"TransducerData": ["S5_1", "55360", ""]}, "sector"),
        ({"TransducerData": "L12-3"}, "linear"),
        ({"TransducerData": "9L"}, "linear"),
        ({"TransducerData": "3Sc-RS"}, "sector"),
        ({"TransducerData": ["50.80.103.002", "", ""]}, None),
        ({"TransducerData": ""}, None),
        ({}, None),
    ],
)
def test_probe(attributes: dict, probe: str | None) -> None:
    assert dicom_rules.probe(header(**attributes)) == probe

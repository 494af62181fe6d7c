"""The ordered rules for anatomy and probe."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from arl import params
from arl.ingest.dicom import rules as dicom_rules
from arl.ingest.dicom.rules import AnatomyRules

RULES = AnatomyRules.from_settings(params.load([], Path(__file__).parents[3] / "params.yaml").dicom)
DESCRIPTION = "ProtocolName+StudyDescription+SeriesDescription"


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
        ({"AnatomicRegionSequence": coded("Thyroid"), "ViewName": "lung"}, "thyroid",
        "AnatomicRegionSequence"),
        ({"BodyPartExamined": "BREAST", "ImageType": ["ORIGINAL", "PRIMARY", "TTE"]}, "breast",
        "BodyPartExamined"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TTE ", "0001"], "StudyDescription": "liver"},
        "cardiac", "ImageType"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "ODD"], "StudyDescription": "Liver"}, "liver",
        DESCRIPTION),
        ({"ImageType": ["ORIGINAL", "PRIMARY"], "ProtocolName": "CARD_ADULT"}, "cardiac",
        DESCRIPTION),
        ({"SeriesDescription": "Gallbladder and bladder"}, "gallbladder", DESCRIPTION),
        ({"SeriesDescription": "urinary bladder"}, "bladder", DESCRIPTION),
        ({"SeriesDescription": "Right kidney, renal artery"}, "kidney", DESCRIPTION),
        ({"StudyDescription": "Transesophageal Echocardiogram"}, "cardiac", DESCRIPTION),
        ({"StudyDescription": "Esophagus"}, "esophageal", DESCRIPTION),
        ({"ViewCodeSequence": coded("Apical four chamber"), "ViewName": "lung"}, "cardiac",
        "ViewCodeSequence"),
        ({"ViewName": "PLAX parasternal"}, "cardiac", "ViewName"),
        ({"StudyDescription": "OB General"}, "other", "none"),
        ({"ImageType": "ORIGINAL", "BodyPartExamined": None}, "other", "none"),
        ({}, "other", "none"),
    ],
)  # fmt: skip
def test_the_first_rule_that_speaks_decides(attributes: dict, anatomy: str, rule: str) -> None:
    found, by = RULES.anatomy(header(**attributes))
    assert (found, by.split(": ")[0]) == (anatomy, rule)


def test_the_rule_that_fired_is_told_without_the_text_of_the_file() -> None:
    study = header(StudyDescription="Liver of F. Nightingale")
    assert RULES.anatomy(study) == ("liver", f"{DESCRIPTION}: liver|hepat")
    assert RULES.anatomy(header(ImageType=["O", "P", "TTE "])) == ("cardiac", "ImageType: TTE")


def test_the_table_is_what_decides() -> None:
    """Another order of groups and words, and a word that the default table does not have."""
    rules = AnatomyRules(
        [["ViewName"], ["BodyPartExamined"]], [("leber", "liver"), ("thyroid", "thyroid")], {}
    )
    assert rules.anatomy(header(ViewName="Leber", BodyPartExamined="THYROID")) == (
        "liver",
        "ViewName: leber",
    )
    assert rules.anatomy(header(ViewName="liver", BodyPartExamined="THYROID"))[0] == "thyroid"
    assert rules.anatomy(header(StudyDescription="Leber")) == ("other", "none")
    swapped = AnatomyRules([["ViewName"]], [("thyroid", "thyroid"), ("leber", "liver")], {})
    assert swapped.anatomy(header(ViewName="Leber, Thyroid"))[0] == "thyroid"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            ([["PatientName"]], [], {}),
            "anatomy_from: 'PatientName' is not one of AnatomicRegionSequence",
        ),
        (([["ViewName"]], [("(", "liver")], {}), r"anatomy_words: '\(' is no regular expression"),
        (([["ViewName"]], [("leg", "leg")], {}), "unknown anatomy 'leg'"),
        (([["ImageType"]], [], {"LEG": "leg"}), "unknown anatomy 'leg'"),
    ],
)
def test_tables_that_cannot_be(table: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnatomyRules(*table)


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

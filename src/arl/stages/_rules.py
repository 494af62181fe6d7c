"""The anatomy rules of params.yaml as the readers take them."""

from arl.ingest.dicom.rules import AnatomyRules
from arl.settings import Dicom


def anatomy_rules(dicom: Dicom) -> AnatomyRules:
    """The table of section `dicom`.

    Raises:
        ValueError: it names no attribute that is read, no anatomy, or holds an expression that is
            none.
    """
    words = [(rule.word, rule.anatomy) for rule in dicom.anatomy_words]
    return AnatomyRules(dicom.anatomy_from, words, dicom.image_types)

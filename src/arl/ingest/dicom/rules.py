"""Anatomy and probe of a DICOM file, by ordered rules; the manifest keeps the rule that decided."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from arl.corpus.anatomy import OTHER, anatomy_index
from arl.ingest.dicom.deidentify import ANATOMY_SOURCES
from arl.settings import Dicom


@dataclass(frozen=True)
class AnatomyRules:
    """The table that maps the text of a header to an anatomy.

    Attributes:
        groups: attributes that are read together, in order; the first group that names an anatomy
            decides.
        words: (regular expression, anatomy), in order; the first that is found in a group's text
            decides.
        image_types: third value of ImageType -> anatomy.
    """

    groups: Sequence[Sequence[str]]
    words: Sequence[tuple[str, str]]
    image_types: Mapping[str, str]

    @classmethod
    def from_settings(cls, dicom: Dicom) -> "AnatomyRules":
        """The table in section `dicom` of params.yaml."""
        words = [(rule.word, rule.anatomy) for rule in dicom.anatomy_words]
        return cls(dicom.anatomy_from, words, dicom.image_types)

    def __post_init__(self) -> None:
        """Raises:
        ValueError: an attribute that is not read for the anatomy, a word that is no expression, no
            such anatomy.
        """
        for name in (name for group in self.groups for name in group):
            if name not in ANATOMY_SOURCES:
                raise ValueError(
                    f"anatomy_from: {name!r} is not one of {', '.join(ANATOMY_SOURCES)}"
                )
        for word, _ in self.words:
            _compile(word)
        for anatomy in (*(anatomy for _, anatomy in self.words), *self.image_types.values()):
            anatomy_index(anatomy)

    def anatomy(self, header: Dataset) -> tuple[str, str]:
        """(anatomy, rule), or ("other", "none"). The rule holds no text of the file."""
        for group in self.groups:
            # "_" is a letter to regular expressions, so \b would not match beside it.
            text = " ".join(_texts(header, *group)).replace("_", " ")
            # A value of ImageType is a code of the maker and has to match as a whole.
            if list(group) == ["ImageType"]:
                value = text.upper().strip()
                matches = [(self.image_types[value], value)] if value in self.image_types else []
            else:
                matches = [(name, word) for word, name in self.words if _compile(word).search(text)]
            if matches:
                return matches[0][0], f"{'+'.join(group)}: {matches[0][1]}"
        return OTHER, "none"


def _compile(word: str) -> re.Pattern[str]:
    try:
        return re.compile(word, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"anatomy_words: {word!r} is no regular expression: {error}") from error


def _texts(header: Dataset, *names: str) -> Iterator[str]:
    """The texts of these attributes; of a sequence the meaning of each code."""
    for name in names:
        value = header.get(name)
        if name.endswith("Sequence"):
            yield from (str(item.get("CodeMeaning", "")) for item in value or [])
        elif name == "ImageType":
            # pydicom gives a text instead of a list where the attribute has one value
            yield str(value[2]) if value and not isinstance(value, str) and len(value) > 2 else ""
        else:
            yield str(value or "")


def probe(header: Dataset) -> str | None:
    """linear, convex or sector by the transducer's type or name; None if neither says it."""
    kind = str(header.get("TransducerType", "") or "").upper()
    for name, pattern in (
        ("convex", "CURVED|CLA"),
        ("linear", "LINEAR"),
        ("sector", "SECTOR|PHASED|ENDOCAV_PA"),
    ):
        if re.search(pattern, kind):
            return name
    data = header.get("TransducerData") or ""
    model = str(data if isinstance(data, str) else data[0]).upper().strip()
    # Makers' habits: L12-3, 9L linear; C5-1, 4C convex; S5-1, X5-1, P4-2, 3SC, M5S sector.
    for name, pattern in (
        ("linear", r"(ML|LA|L)\d|\d+L"),
        ("convex", r"(SC|CA|C)\d|\d+C"),
        ("sector", r"[SXPM]\d|\d+S"),
    ):
        if re.match(pattern, model):
            return name
    return None

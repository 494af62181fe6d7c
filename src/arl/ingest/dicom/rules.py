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
            text = " ".join(text for name in group for text in _texts(header, name)).replace(
                "_", " "
            )
            match = self._by_value(text) if list(group) == ["ImageType"] else self._by_word(text)
            if match is not None:
                return match[0], f"{'+'.join(group)}: {match[1]}"
        return OTHER, "none"

    def _by_value(self, text: str) -> tuple[str, str] | None:
        value = text.upper().strip()
        return (self.image_types[value], value) if value in self.image_types else None

    def _by_word(self, text: str) -> tuple[str, str] | None:
        return next(
            ((anatomy, word) for word, anatomy in self.words if _compile(word).search(text)), None
        )


def _compile(word: str) -> re.Pattern[str]:
    try:
        return re.compile(word, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"anatomy_words: {word!r} is no regular expression: {error}") from error


def _texts(header: Dataset, name: str) -> Iterator[str]:
    value = header.get(name)
    if name.endswith("Sequence"):
        yield from (str(item.get("CodeMeaning", "")) for item in value or [])
    elif name == "ImageType":
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
    return _probe_by_name(str(data if isinstance(data, str) else data[0]).upper().strip())


def _probe_by_name(name: str) -> str | None:
    """Makers' habits: L12-3, 9L linear; C5-1, 4C convex; S5-1, X5-1, P4-2, 3SC, M5S sector."""
    if re.match(r"(ML|LA|L)\d|\d+L", name):
        return "linear"
    if re.match(r"(SC|CA|C)\d|\d+C", name):
        return "convex"
    return "sector" if re.match(r"[SXPM]\d|\d+S", name) else None

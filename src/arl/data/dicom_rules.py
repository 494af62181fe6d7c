"""Anatomy and probe of a DICOM file, by ordered rules; the rule that decided is kept with the answer."""

import re
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset

from arl.data.anatomy import OTHER

# first match wins, so the narrow words come before the wide ones
_WORDS: tuple[tuple[str, str], ...] = (
    ("breast", r"breast|mamm"),
    ("thyroid", r"thyroid"),
    ("testicle", r"testi|scrot"),
    ("gallbladder", r"gall ?bladder|biliary"),
    ("bladder", r"bladder"),
    ("esophageal", r"esophag(?!.*echo)|oesophag(?!.*echo)"),
    ("cardiac", r"\becho\b|echocard|card|heart|ventric|\btt?e\b|\btee\b|apical|parasternal|subcostal|mitral"),
    ("aorta", r"aort"),
    ("kidney", r"kidney|renal|nephr"),
    ("liver", r"liver|hepat"),
    ("lung", r"lung|pleura|thora|chest"),
    ("muscle", r"muscle|\bmsk\b|musculo|tendon|shoulder|gastrocnem"),
    ("abdominal", r"abdom|pancrea|spleen"),
    ("oncology", r"tumou?r|oncolog|neoplas"),
    ("soft_tissue", r"soft tissue|small part|lymph|neck"),
    ("doppler", r"doppler|carotid|vascular|venous|artery"),
)
# third value of ImageType: defined terms of the standard, and two seen in the wild
_IMAGE_TYPE = {
    "ABDOMINAL": "abdominal",
    "ABDOM/RAD": "abdominal",
    "BREAST": "breast",
    "CARDIOLOGY": "cardiac",
    "CHEST": "lung",
    "EPICARDIAL": "cardiac",
    "FETAL HEART": "cardiac",
    "INTRACARDIAC": "cardiac",
    "MUSCULOSKELETAL": "muscle",
    "SCROTAL": "testicle",
    "SMALL PARTS": "soft_tissue",
    "TEE": "cardiac",
    "TTE": "cardiac",
    "THYROID": "thyroid",
    "VASCULAR": "doppler",
}


def anatomy(header: Dataset) -> tuple[str, str]:
    """(anatomy, rule): coded region, body part, ImageType, descriptions, coded view; "other" where none speaks."""
    for rule, find in _RULES:
        found = find(header)
        if found is not None:
            return found, rule
    return OTHER, "none"


def _words(text: str) -> str | None:
    return next((name for name, pattern in _WORDS if re.search(pattern, text, re.IGNORECASE)), None)


def _meanings(header: Dataset, sequence: str) -> Iterator[str]:
    for item in header.get(sequence) or []:
        yield str(item.get("CodeMeaning", ""))


def _coded(name: str) -> Callable[[Dataset], str | None]:
    return lambda header: _words(" ".join(_meanings(header, name)))


def _texts(*names: str) -> Callable[[Dataset], str | None]:
    return lambda header: _words(" ".join(str(header.get(name, "") or "") for name in names).replace("_", " "))


def _image_type(header: Dataset) -> str | None:
    values = header.get("ImageType") or []
    return _IMAGE_TYPE.get(str(values[2]).upper().strip()) if len(values) > 2 and not isinstance(values, str) else None


_RULES: tuple[tuple[str, Callable[[Dataset], str | None]], ...] = (
    ("AnatomicRegionSequence", _coded("AnatomicRegionSequence")),
    ("BodyPartExamined", _texts("BodyPartExamined")),
    ("ImageType", _image_type),
    ("description", _texts("ProtocolName", "StudyDescription", "SeriesDescription")),
    ("view", _coded("ViewCodeSequence")),
    ("ViewName", _texts("ViewName")),
)


def probe(header: Dataset) -> str | None:
    """linear, convex or sector by the transducer's type, else by its name; None where neither tells."""
    kind = str(header.get("TransducerType", "") or "").upper()
    for name, pattern in (("convex", "CURVED|CLA"), ("linear", "LINEAR"), ("sector", "SECTOR|PHASED|ENDOCAV_PA")):
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

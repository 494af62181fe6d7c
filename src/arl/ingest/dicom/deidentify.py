"""What of a DICOM file may be read, and the keyed hashes that stand for identifiers.

Only the attributes named here are ever taken from a file: the allow-listed ones describe the
picture, the identifying ones leave this module as HMAC-SHA256 under a secret key. Names, dates,
free text and private tags are not read.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

KEY, KEY_FILE = "ARL_HASH_KEY", "ARL_HASH_KEY_FILE"
PUBLIC_KEY = (
    b"public key of the sample corpus: protects nothing"  # for files that are public already
)
_MIN_KEY = 16  # bytes

# their text is mapped to a class and dropped
ANATOMY_SOURCES = (
    "AnatomicRegionSequence",
    "BodyPartExamined",
    "ImageType",
    "ProtocolName",
    "StudyDescription",
    "SeriesDescription",
    "ViewCodeSequence",
    "ViewName",
)
ALLOWED = (
    *ANATOMY_SOURCES,
    "SOPClassUID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "TransducerType",
    "TransducerData",
    "SequenceOfUltrasoundRegions",
    "UltrasoundColorDataPresent",
    # the pixel description
    "Rows",
    "Columns",
    "NumberOfFrames",
    "FrameIncrementPointer",
    "DimensionOrganizationType",
    "GridFrameOffsetVector",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "PixelRepresentation",
    "BitsAllocated",
    "BitsStored",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
)
IDENTIFYING = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SOPInstanceUID")


def secret_key(environment: Mapping[str, str] = os.environ) -> bytes:
    """The key of the hashes, from ARL_HASH_KEY or the file that ARL_HASH_KEY_FILE names.

    Raises:
        ValueError: neither or both are set, or the key is short. The message never holds the key.
        FileNotFoundError: there is no such file.
    """
    given = [name for name in (KEY, KEY_FILE) if environment.get(name)]
    if len(given) != 1:
        state = "both are" if given else "neither is"
        raise ValueError(
            f"hospital DICOM needs one secret for its hashes: set {KEY} or {KEY_FILE}; {state} set"
        )
    key = environment[KEY].encode() if given == [KEY] else _key_file(Path(environment[KEY_FILE]))
    if len(key) < _MIN_KEY:
        raise ValueError(
            f"the key that {given[0]} gives has {len(key)} bytes, at least {_MIN_KEY} are needed"
        )
    return key


def _key_file(file: Path) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{KEY_FILE} names {file}, which does not exist")
    return file.read_bytes().strip()


def keyed_hash(key: bytes, *parts: str) -> str:
    """128 bits, in hex, of the HMAC-SHA256 of the parts; the first part names the kind of value."""
    message = b"".join(len(part.encode()).to_bytes(8) + part.encode() for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True)
class Pseudonyms:
    """What stands for a file's identifiers."""

    patient: str | None  # None: the file names neither a patient nor a study
    image: str | None  # None: the file has no SOP instance UID


def pseudonyms(header: Dataset, key: bytes, site: str) -> Pseudonyms:
    """Hashes of the identifiers of a file.

    Patient ids are unique within a site only. Without one, the study stands for the patient: images
    of one study then stay together, but two studies of one person may not.
    """
    patient = _text(header, "PatientID")
    study = _text(header, "StudyInstanceUID")
    instance = _text(header, "SOPInstanceUID")
    group: str | None
    if patient:
        group = keyed_hash(key, "patient", site, _text(header, "IssuerOfPatientID"), patient)
    else:
        group = f"study-{keyed_hash(key, 'study', site, study)}" if study else None
    return Pseudonyms(group, keyed_hash(key, "image", instance) if instance else None)


def _text(header: Dataset, name: str) -> str:
    return str(header.get(name, "") or "").strip()

"""The attributes of a DICOM file that may be read, and keyed hashes in place of identifiers.

Only the attributes named here are ever taken from a file. The allow-listed ones describe the
picture. The identifying ones leave this module as HMAC-SHA256 under a secret key. Names, dates,
free text and private tags are not read.
"""

import base64
import hashlib
import hmac
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydicom.dataset import Dataset

from arl.corpus.splits import UNIDENTIFIED

KEY, KEY_FILE = "ARL_HASH_KEY", "ARL_HASH_KEY_FILE"
# for files that are public already
PUBLIC_KEY = b"public key of the sample corpus: protects nothing"
_MIN_KEY = 16  # bytes
_MIN_ENTROPY = 100  # bits, estimated by the frequency of each byte
_MAKE_KEY = "make one with `openssl rand -hex 32`"

# mapped to an anatomy; the text is dropped
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
        ValueError: neither or both are set, or the key is weak. The message never holds the key.
        FileNotFoundError: the key file does not exist.
    """
    names = [name for name in (KEY, KEY_FILE) if environment.get(name)]
    if len(names) != 1:
        state = "both are" if names else "neither is"
        raise ValueError(
            f"hospital DICOM needs one secret for its hashes: set {KEY} or {KEY_FILE}; "
            f"{state} set; {_MAKE_KEY}"
        )
    if names == [KEY]:
        key = environment[KEY].strip().encode()
    else:
        key = read_key(Path(environment[KEY_FILE]))
    check_key(key, names[0])
    return key


def read_key(file: Path) -> bytes:
    """The key in a file, without the white space around it.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if not file.is_file():
        raise FileNotFoundError(f"the key file {file} does not exist; {_MAKE_KEY}")
    return file.read_bytes().strip()


def check_key(key: bytes, origin: str) -> None:
    """Refuse a key that can be guessed: with it a six-digit patient number is found in seconds.

    Raises:
        ValueError: the key is short, repeats itself, counts, or uses few characters.
    """
    if len(key) < _MIN_KEY:
        raise ValueError(
            f"the key of {origin} has {len(key)} bytes, at least {_MIN_KEY} are needed; {_MAKE_KEY}"
        )
    # A key lies inside its own double, cut by one at each end, only if a part repeats.
    repeats = key in (key + key)[1:-1]
    steps = sum(after - before in (0, 1) for before, after in pairwise(key))
    counts = [count / len(key) for count in Counter(key).values()]
    entropy = -len(key) * sum(fraction * math.log2(fraction) for fraction in counts)
    if repeats or steps > len(key) / 2 or entropy < _MIN_ENTROPY:
        raise ValueError(f"the key of {origin} is weak and could be guessed; {_MAKE_KEY}")


def key_id(key: bytes) -> str:
    """Eight hex digits that name a key without revealing it."""
    return keyed_hash(key, "key-id")[:8]


def encryption_key(key: bytes, purpose: str) -> bytes:
    """A Fernet key for one purpose, derived from the key of the hashes."""
    digest = hmac.new(key, f"encryption: {purpose}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest)


def keyed_hash(key: bytes, *parts: str) -> str:
    """128 bits, in hex, of the HMAC-SHA256 of the parts; the first part names the kind of value."""
    # With lengths, ("ab", "c") and ("a", "bc") have different hashes.
    message = b"".join(len(part.encode()).to_bytes(8) + part.encode() for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True)
class Pseudonyms:
    """Hashes in place of a file's identifiers."""

    patient: str | None  # None: the file names neither a patient nor a study
    image: str | None  # None: the file has no SOP instance UID


def pseudonyms(header: Dataset, key: bytes, site: str) -> Pseudonyms:
    """Hashes of the identifiers of a file.

    Patient ids are unique within a site only. In a file without one the study stands for the
    patient: images of one study stay together, but two studies of one person may not.
    """
    patient = _text(header, "PatientID")
    study = _text(header, "StudyInstanceUID")
    instance = _text(header, "SOPInstanceUID")
    # The issuer keeps apart the patients of hospitals that number them alike.
    group: str | None = None
    if patient:
        group = keyed_hash(key, "patient", site, _text(header, "IssuerOfPatientID"), patient)
    elif study:
        group = f"study-{keyed_hash(key, 'study', site, study)}"
    return Pseudonyms(group, keyed_hash(key, "image", instance) if instance else None)


def content_pseudonyms(file: Path, key: bytes) -> Pseudonyms:
    """Hashes of the content of a file that names neither patient nor study: a group of its own."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    image = keyed_hash(key, "content", digest)
    return Pseudonyms(f"{UNIDENTIFIED}{image}", image)


def _text(header: Dataset, name: str) -> str:
    return str(header.get(name, "") or "").strip()

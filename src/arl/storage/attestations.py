"""Signed statements about the steps of a release, in the form of in-toto.

An attestation is an in-toto Statement in a DSSE envelope: the SHA-256 of the files that a step
wrote (subjects) and read, its parameters, and the code and image that ran. A later step refuses
files that no trusted key has attested.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from arl.documents import Document
from arl.files import read_json, sha256, write_json
from arl.storage.signing import Keys, SignatureError, sign_document, verify_document

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:arl:step:v1"
SUFFIX = ".intoto.json"


@dataclass(frozen=True)
class Step(Document):
    """The predicate of an attestation.

    Attributes:
        step: name of the command, e.g. "gate".
        inputs: name -> SHA-256 of what the step read.
        parameters: name -> value as JSON text.
        environment: commit, image and policy.
    """

    FORMAT: ClassVar[str] = "arl.step"
    VERSION: ClassVar[int] = 1

    step: str
    inputs: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attestation:
    """A verified attestation: the predicate, the subjects and the key that signed."""

    step: Step
    subjects: dict[str, str]  # name -> SHA-256
    key: str


def content_hash(value: Any) -> str:
    """SHA-256 of a value as canonical JSON, e.g. of a list of row ids."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def attest(file: Path, step: Step, keys: Keys) -> Path:
    """Sign a statement about a file; return the attestation beside it.

    Raises:
        ValueError: there is no private key.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": file.name, "digest": {"sha256": sha256(file)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": step.to_json(),
    }
    # Sorted, so that the same step on the same files signs the same bytes.
    payload = json.dumps(statement, sort_keys=True).encode()
    target = file.with_name(file.name + SUFFIX)
    write_json(target, sign_document(payload, PAYLOAD_TYPE, keys))
    return target


def verify_attestation(file: Path, step: str, keys: Keys) -> Attestation:
    """The attestation of a file, after a check of its signature, its step and the file's hash.

    Raises:
        SignatureError: there is no attestation, no trusted key signed it, it is about another step,
            or the file is not the attested one.
    """
    target = file.with_name(file.name + SUFFIX)
    if not target.is_file():
        raise SignatureError(f"{file} has no attestation {target.name}: run `arl {step}` again")
    try:
        content = read_json(target)
    except ValueError as error:
        raise SignatureError(f"{target} is damaged") from error
    payload, key = verify_document(content, PAYLOAD_TYPE, keys, str(target))
    attestation = _parse(json.loads(payload), str(target), key)
    # A valid statement about another step must not stand in for this one.
    if attestation.step.step != step:
        raise SignatureError(f"{target} is about the step {attestation.step.step}, not {step}")
    if attestation.subjects.get(file.name) != sha256(file):
        raise SignatureError(f"{file} is not the file that `arl {step}` wrote: it was changed")
    return attestation


def _parse(statement: Any, origin: str, key: str) -> Attestation:
    try:
        kinds = (statement["_type"], statement["predicateType"])
        subjects = {
            str(item["name"]): str(item["digest"]["sha256"]) for item in statement["subject"]
        }
        predicate: Mapping[str, Any] = statement["predicate"]
    except (KeyError, TypeError) as error:
        raise SignatureError(f"{origin} is no in-toto statement") from error
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise SignatureError(f"{origin} is no statement about a step of ARL")
    return Attestation(Step.from_json(dict(predicate), origin), subjects, key)

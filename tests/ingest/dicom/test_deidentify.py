"""Keys and keyed hashes: none without a secret, the same under one key, unlinkable under another."""

import hashlib
import hmac
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from arl.ingest.dicom import deidentify
from arl.ingest.dicom.deidentify import keyed_hash, pseudonyms, secret_key

KEY = b"0123456789abcdef"


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def test_key_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(KEY + b"\n")
    assert secret_key({"ARL_HASH_KEY": KEY.decode()}) == KEY
    assert secret_key({"ARL_HASH_KEY_FILE": str(file)}) == KEY


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "set ARL_HASH_KEY or ARL_HASH_KEY_FILE; neither is set"),
        ({"ARL_HASH_KEY": ""}, "neither is set"),
        ({"ARL_HASH_KEY": "a", "ARL_HASH_KEY_FILE": "b"}, "both are set"),
        ({"ARL_HASH_KEY": "hunter2"}, "ARL_HASH_KEY gives has 7 bytes, at least 16"),
    ],
)
def test_no_key_no_hashes(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        secret_key(environment)
    assert "hunter2" not in str(error.value)


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ARL_HASH_KEY_FILE names"):
        secret_key({"ARL_HASH_KEY_FILE": str(tmp_path / "secret")})


def test_the_hash_is_hmac_sha256_over_parts_with_their_lengths() -> None:
    message = b"\0\0\0\0\0\0\0\7patient" + b"\0\0\0\0\0\0\0\2id"
    assert (
        keyed_hash(KEY, "patient", "id") == hmac.new(KEY, message, hashlib.sha256).hexdigest()[:32]
    )
    assert keyed_hash(KEY, "ab", "c") != keyed_hash(KEY, "a", "bc")
    assert keyed_hash(KEY, "patient", "id") != keyed_hash(KEY[::-1], "patient", "id")


def test_a_patient_is_one_within_a_site_and_issuer_only() -> None:
    def patient(site: str = "north", **attributes: str) -> str | None:
        return pseudonyms(header(**attributes), KEY, site).patient

    assert patient(PatientID="7") == patient(PatientID=" 7 ", StudyInstanceUID="1.2")
    others = [
        patient(PatientID="8"),
        patient("south", PatientID="7"),
        patient(PatientID="7", IssuerOfPatientID="X"),
    ]
    assert len({patient(PatientID="7"), *others}) == 4


def test_without_a_patient_id_the_study_stands_in_and_says_so() -> None:
    names = pseudonyms(header(PatientID="", StudyInstanceUID="1.2.3"), KEY, "north")
    assert names.patient is not None
    assert names.patient.startswith("study-")
    assert names.image is None
    assert pseudonyms(header(), KEY, "north").patient is None


def test_identifying_attributes_are_not_allow_listed() -> None:
    personal = {
        "PatientName",
        "PatientBirthDate",
        "StudyDate",
        "AccessionNumber",
        "InstitutionName",
        "DeviceSerialNumber",
    }
    assert not personal & {*deidentify.ALLOWED, *deidentify.IDENTIFYING}
    assert not set(deidentify.ALLOWED) & set(deidentify.IDENTIFYING)

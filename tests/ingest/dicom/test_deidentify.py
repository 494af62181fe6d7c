"""Keyed hashes: none without a secret, equal under one key, unlinkable under another."""

import hashlib
import hmac
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from arl.corpus.splits import assign
from arl.ingest.dicom import deidentify
from arl.ingest.dicom.deidentify import (
    content_pseudonyms,
    key_id,
    keyed_hash,
    pseudonyms,
    secret_key,
)
from arl.ingest.dicom.quarantine_key import read_quarantine_key, write_quarantine_key

KEY = b"7e1f90ac4b2d8365c0f7a91e5d3b8246"


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
        ({"ARL_HASH_KEY": 16 * " "}, "the key of ARL_HASH_KEY has 0 bytes"),
        ({"ARL_HASH_KEY": "password12345678"}, "weak.*openssl rand -hex 32"),
        ({"ARL_HASH_KEY": 32 * "\0"}, "weak"),
        ({"ARL_HASH_KEY": 4 * "3f9a0c71"}, "weak"),
        ({"ARL_HASH_KEY": "abcdefghijklmnopqrstuvwxyz0123456789"}, "weak"),
        ({"ARL_HASH_KEY": "hunter2"}, "the key of ARL_HASH_KEY has 7 bytes, at least 16"),
    ],
)
def test_no_key_no_hashes(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        secret_key(environment)
    assert "hunter2" not in str(error.value)


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the key file .* does not exist"):
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


def test_the_quarantine_key_needs_the_hash_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_quarantine_key("dicom-folder", "0001", {"ab12": "Okonkwo/scan.dcm"}, KEY)
    assert file.stat().st_mode & 0o077 == 0
    assert b"Okonkwo" not in file.read_bytes()
    assert read_quarantine_key("dicom-folder", "0001", KEY) == {"ab12": "Okonkwo/scan.dcm"}
    with pytest.raises(ValueError, match="written with another hash key"):
        read_quarantine_key("dicom-folder", "0001", KEY[::-1])
    with pytest.raises(FileNotFoundError, match="0002"):
        read_quarantine_key("dicom-folder", "0002", KEY)


def test_keys_are_named_by_an_id_that_does_not_reveal_them() -> None:
    assert key_id(KEY) == key_id(KEY) != key_id(KEY[::-1])
    assert KEY.decode()[:4] not in key_id(KEY)


def test_a_file_without_patient_is_a_group_of_its_own_for_training(tmp_path: Path) -> None:
    groups = []
    for number in range(40):
        file = tmp_path / f"{number}.dcm"
        file.write_bytes(bytes([number]))
        groups.append(content_pseudonyms(file, KEY).patient)
    assert len(set(groups)) == 40
    assert {assign(str(group)) for group in groups} == {"train"}

"""Signatures that OpenSSF's own command line accepts, and what they are refused for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from arl.storage.signing import SIGNATURE, Keys, check_signature, keys_from_environment, sign


@pytest.fixture
def keys(tmp_path: Path, new_keys: Callable[[Path], Keys]) -> Keys:
    return new_keys(tmp_path / "keys")


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> Path:
    folder = tmp_path / "version"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks/weights").write_bytes(bytes(1009))
    (folder / "card.md").write_text("# card\n")
    sign(folder, keys)
    return folder


def test_a_signature_holds_wherever_the_folder_goes(signed: Path, keys: Keys) -> None:
    check_signature(signed.rename(signed.with_name("elsewhere")), keys)


@pytest.mark.slow
def test_openssfs_own_command_accepts_it(signed: Path, keys: Keys) -> None:
    words = [
        "verify",
        "key",
        signed,
        "--signature",
        signed / SIGNATURE,
        "--public_key",
        keys.public,
    ]
    command = [Path(sys.executable).with_name("model_signing"), *words]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (signed / "card.md").write_text("# another\n")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("name", ["tasks/weights", "tasks/added", ".gitignore"])
def test_a_changed_or_added_file_is_found(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).write_text("x")
    with pytest.raises(ValueError, match=f"does not hold .*{Path(name).name}"):
        check_signature(signed, keys)


def test_a_removed_file_is_found(signed: Path, keys: Keys) -> None:
    (signed / "card.md").unlink()
    with pytest.raises(ValueError, match=r"does not hold .*card\.md"):
        check_signature(signed, keys)


def test_a_broken_signature_is_refused(signed: Path, keys: Keys) -> None:
    whole = (signed / SIGNATURE).read_text()
    for text in (whole[:-30], "{}", "[]", "", whole.replace("A", "B")):
        (signed / SIGNATURE).write_text(text)
        with pytest.raises(
            ValueError, match=f"the signature of {signed} does not hold for {keys.public}"
        ):
            check_signature(signed, keys)


def test_an_unsigned_folder_is_refused(tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(ValueError, match="is not signed, and the registry is configured as signed"):
        check_signature(tmp_path, keys)


def test_another_key_is_refused(
    signed: Path, tmp_path: Path, new_keys: Callable[[Path], Keys]
) -> None:
    with pytest.raises(ValueError, match=r"does not hold for .*others"):
        check_signature(signed, new_keys(tmp_path / "others"))


def test_files_that_hold_no_key_are_named(signed: Path, tmp_path: Path, keys: Keys) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "rsa").write_bytes(other.private_bytes(pem, form, serialization.NoEncryption()))
    (tmp_path / "locked").write_bytes(
        other.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x"))
    )
    for private in (tmp_path / "rsa", tmp_path / "locked", keys.public, signed / "card.md"):
        with pytest.raises(ValueError, match=f"{private} is no private elliptic-curve key"):
            sign(signed, Keys(keys.public, private))
    assert keys.private is not None
    for public in (keys.private, signed / "card.md"):
        with pytest.raises(ValueError, match=f"{public} is no public elliptic-curve key"):
            check_signature(signed, Keys(public, None))


def test_the_environment_names_the_keys(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    for name in ("ARL_SIGNING_KEY", "ARL_VERIFY_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert keys_from_environment(signed=False) is None
    with pytest.raises(ValueError, match=r"\$ARL_VERIFY_KEY names no public key; openssl"):
        keys_from_environment(signed=True)
    monkeypatch.setenv("ARL_VERIFY_KEY", str(keys.public))
    assert keys_from_environment(signed=True) == Keys(keys.public, None)
    monkeypatch.setenv("ARL_SIGNING_KEY", "nowhere.pem")
    with pytest.raises(
        FileNotFoundError, match=r"\$ARL_SIGNING_KEY is nowhere\.pem, which is no file"
    ):
        keys_from_environment(signed=True)

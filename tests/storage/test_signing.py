"""Signatures that OpenSSF's own command line accepts, and what they are refused for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from arl.storage.signing import (
    SIGNATURE,
    Keys,
    SignatureError,
    key_id,
    keys_from_environment,
    sign_document,
    sign_folder,
    signing_key_id,
    trusted_keys,
    verify_document,
    verify_folder,
)


@pytest.fixture
def keys(tmp_path: Path, new_keys: Callable[[Path], Keys]) -> Keys:
    return new_keys(tmp_path / "keys")


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> Path:
    folder = tmp_path / "version"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks/weights").write_bytes(bytes(1009))
    (folder / "card.md").write_text("# card\n")
    sign_folder(folder, keys)
    return folder


def test_a_signature_holds_wherever_the_folder_goes(signed: Path, keys: Keys) -> None:
    verify_folder(signed.rename(signed.with_name("elsewhere")), keys)


@pytest.mark.slow
def test_openssfs_own_command_accepts_it(signed: Path, keys: Keys) -> None:
    words = [
        "verify",
        "key",
        signed,
        "--signature",
        signed / SIGNATURE,
        "--public_key",
        keys.public[0],
    ]
    command = [Path(sys.executable).with_name("model_signing"), *words]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (signed / "card.md").write_text("# another\n")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("name", ["tasks/weights", "tasks/added", ".gitignore"])
def test_a_changed_or_added_file_is_found(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).write_text("x")
    with pytest.raises(ValueError, match=f"does not hold .*{Path(name).name}"):
        verify_folder(signed, keys)


def test_a_removed_file_is_found(signed: Path, keys: Keys) -> None:
    (signed / "card.md").unlink()
    with pytest.raises(ValueError, match=r"does not hold .*card\.md"):
        verify_folder(signed, keys)


def test_a_broken_signature_is_refused(signed: Path, keys: Keys) -> None:
    whole = (signed / SIGNATURE).read_text()
    for text in (whole[:-30], "{}", "[]", "", whole.replace("A", "B")):
        (signed / SIGNATURE).write_text(text)
        with pytest.raises(ValueError, match=f"the signature of {signed} does not hold"):
            verify_folder(signed, keys)


def test_an_unsigned_folder_is_refused(tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(ValueError, match="is not signed, and the registry is configured as signed"):
        verify_folder(tmp_path, keys)


def test_another_key_is_refused(
    signed: Path, tmp_path: Path, new_keys: Callable[[Path], Keys]
) -> None:
    with pytest.raises(ValueError, match="of another key"):
        verify_folder(signed, new_keys(tmp_path / "others"))


def test_files_that_hold_no_key_are_named(signed: Path, tmp_path: Path, keys: Keys) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "rsa").write_bytes(other.private_bytes(pem, form, serialization.NoEncryption()))
    (tmp_path / "locked").write_bytes(
        other.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x"))
    )
    for private in (tmp_path / "rsa", tmp_path / "locked", keys.public[0], signed / "card.md"):
        with pytest.raises(ValueError, match=f"{private} is no private elliptic-curve key"):
            sign_folder(signed, Keys(keys.public, private))
    assert keys.private is not None
    for public in (keys.private, signed / "card.md"):
        with pytest.raises(ValueError, match=f"{public} is no public elliptic-curve key"):
            verify_folder(signed, Keys((public,)))


def test_the_environment_names_the_keys(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    for name in ("ARL_SIGNING_KEY", "ARL_VERIFY_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert keys_from_environment(signed=False) is None
    with pytest.raises(ValueError, match=r"\$ARL_VERIFY_KEY names no public key; openssl"):
        keys_from_environment(signed=True)
    monkeypatch.setenv("ARL_VERIFY_KEY", str(keys.public[0]))
    assert keys_from_environment(signed=True) == Keys(keys.public)
    monkeypatch.setenv("ARL_SIGNING_KEY", "nowhere.pem")
    with pytest.raises(
        FileNotFoundError, match=r"\$ARL_SIGNING_KEY is nowhere\.pem, which is no file"
    ):
        keys_from_environment(signed=True)


@pytest.mark.parametrize("relative", [".", "version", "../{name}/version"])
def test_a_relative_folder_is_signed_and_verified(
    signed: Path, keys: Keys, relative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry's default address is relative."""
    monkeypatch.chdir(signed if relative == "." else signed.parent)
    folder = Path(relative.format(name=signed.parent.name))
    (signed / SIGNATURE).unlink()
    sign_folder(folder, keys)
    assert verify_folder(folder, keys) == key_id(keys.public[0])
    assert verify_folder(signed, keys) == key_id(keys.public[0])
    (signed / "card.md").write_text("changed")
    with pytest.raises(SignatureError, match="does not hold"):
        verify_folder(folder, keys)


@pytest.fixture
def old_and_new(
    tmp_path: Path, new_keys: Callable[[Path], Keys], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Keys, Keys]:
    """A folder of trusted keys with two of them."""
    old, new = new_keys(tmp_path / "old"), new_keys(tmp_path / "new")
    trust = tmp_path / "trust"
    (trust / "revoked").mkdir(parents=True)
    for name, keys in (("old", old), ("new", new)):
        (trust / f"{name}.pem").write_bytes(keys.public[0].read_bytes())
    monkeypatch.setenv("ARL_VERIFY_KEY", str(trust))
    monkeypatch.setenv("ARL_SIGNING_KEY", str(new.private))
    return trust, old, new


def test_a_folder_of_keys_verifies_old_and_new_signatures(
    signed: Path, old_and_new: tuple[Path, Keys, Keys]
) -> None:
    _, old, new = old_and_new
    keys = keys_from_environment(signed=True)
    assert keys is not None
    for signer in (old, new):
        (signed / SIGNATURE).unlink()
        sign_folder(signed, signer)
        assert verify_folder(signed, keys) == key_id(signer.public[0])
    assert signing_key_id(keys) == key_id(new.public[0])


def test_a_revoked_key_verifies_nothing(signed: Path, old_and_new: tuple[Path, Keys, Keys]) -> None:
    trust, old, new = old_and_new
    (signed / SIGNATURE).unlink()
    sign_folder(signed, old)
    # The key stays where it was: the copy below revoked/ counts.
    (trust / "revoked/old.pem").write_bytes(old.public[0].read_bytes())
    keys = keys_from_environment(signed=True)
    assert keys is not None
    assert list(trusted_keys(keys)) == [key_id(new.public[0])]
    with pytest.raises(
        SignatureError, match=rf"key {key_id(old.public[0])} only, which is revoked"
    ):
        verify_folder(signed, keys)
    further = signed.parent / "new.sig"
    sign_folder(signed, keys, further)
    assert verify_folder(signed, keys, {"new": further}) == key_id(new.public[0])
    with pytest.raises(ValueError, match=r"is not among those of .*, or is revoked"):
        signing_key_id(Keys(keys.public, old.private, keys.revoked))


def test_keys_may_be_listed_one_by_one(
    tmp_path: Path, new_keys: Callable[[Path], Keys], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [new_keys(tmp_path / name).public[0] for name in "ab"]
    monkeypatch.delenv("ARL_SIGNING_KEY", raising=False)
    monkeypatch.setenv("ARL_VERIFY_KEY", ":".join(map(str, files)))
    assert keys_from_environment(signed=True) == Keys(tuple(files))


def test_a_document_is_verified_with_its_type_and_key(
    keys: Keys, tmp_path: Path, new_keys: Callable[[Path], Keys]
) -> None:
    envelope = sign_document(b"payload", "text/x", keys)
    assert verify_document(envelope, "text/x", keys, "it") == (b"payload", key_id(keys.public[0]))
    forged = {**envelope, "payload": "Zm9yZ2Vk"}
    others = new_keys(tmp_path / "others")
    for content, kind, trusted in (
        (forged, "text/x", keys),
        (envelope, "text/y", keys),
        (envelope, "text/x", others),
        ({**envelope, "signatures": []}, "text/x", keys),
        ({"payload": "x"}, "text/x", keys),
        ([], "text/x", keys),
    ):
        with pytest.raises(SignatureError, match="it is "):
            verify_document(content, kind, trusted, "it")
    revoked = Keys((*keys.public, *others.public), None, keys.public)
    with pytest.raises(SignatureError, match="which is revoked"):
        verify_document(envelope, "text/x", revoked, "it")

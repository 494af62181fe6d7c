"""Signatures of folders and of small documents, with elliptic-curve keys in PEM files.

A signed folder holds `model.sig`, a Sigstore bundle of OpenSSF model signing that lists the SHA-256
of every other file. Anyone with the public key can check it without ARL:

    model_signing verify key FOLDER --signature FOLDER/model.sig --public_key KEY.pem

A signed document is a DSSE envelope (securesystemslib).

$ARL_VERIFY_KEY names the trusted public keys: a PEM file, a folder, or several of these separated
by ":". A folder holds one key per `*.pem`. Keys below its subfolder `revoked/` verify nothing, even
if they also lie elsewhere. Rotation: add the new key to the folder, and sign with it from then on.
Revocation: move a key to `revoked/`, and sign what must stay in use again (`arl sign`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNATURE = "model.sig"
PRIVATE_KEY, PUBLIC_KEY = "ARL_SIGNING_KEY", "ARL_VERIFY_KEY"
_ID_DIGITS = 16
_REVOKED = "revoked"  # subfolder of a folder of keys
_HOW = (
    "openssl ecparam -genkey -name prime256v1 -noout -out signing.pem; "
    "openssl ec -in signing.pem -pubout"
)


class SignatureError(ValueError):
    """A signature is missing, damaged, of an unknown key, of a revoked key, or of other content."""


@dataclass(frozen=True)
class Keys:
    """Files of PEM keys; only a process that releases needs the private one.

    Attributes:
        public: keys that verify.
        private: key that signs.
        revoked: public keys whose signatures are refused.
    """

    public: tuple[Path, ...]
    private: Path | None = None
    revoked: tuple[Path, ...] = ()


def keys_from_environment(signed: bool) -> Keys | None:
    """The keys that $ARL_VERIFY_KEY and $ARL_SIGNING_KEY name; None for an unsigned registry.

    Raises:
        ValueError: a signed registry without a public key.
        FileNotFoundError: a variable names no file.
    """
    if not signed:
        return None
    named = [Path(name) for name in os.environ.get(PUBLIC_KEY, "").split(os.pathsep) if name]
    public: list[Path] = []
    revoked: list[Path] = []
    for path in named:
        _require(PUBLIC_KEY, path)
        if path.is_dir():
            public += sorted(path.glob("*.pem"))
            revoked += sorted((path / _REVOKED).glob("*.pem"))
        else:
            public.append(path)
    if not public:
        raise ValueError(
            f"the registry is signed (release.signed) and ${PUBLIC_KEY} names no public key; {_HOW}"
        )
    private = os.environ.get(PRIVATE_KEY)
    if private:
        _require(PRIVATE_KEY, Path(private))
    return Keys(tuple(public), Path(private) if private else None, tuple(revoked))


def _require(variable: str, path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"${variable} is {path}, which is no file")


def key_id(public: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a public key.

    Raises:
        ValueError: the file holds no public key.
    """
    return str(_load_public(public).keyid[:_ID_DIGITS])


def trusted_keys(keys: Keys) -> dict[str, Path]:
    """Key id -> file of every key that verifies and is not revoked."""
    # By id and not by file: a copy of a revoked key under another name stays revoked.
    revoked = {key_id(path) for path in keys.revoked}
    return {name: path for path in keys.public if (name := key_id(path)) not in revoked}


def _load_public(path: Path) -> Any:
    """A public key as a securesystemslib key."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is no public elliptic-curve key: {error}") from error


def _private_of(keys: Keys) -> Path:
    if keys.private is None:
        raise ValueError(
            f"the registry is signed (release.signed) and ${PRIVATE_KEY} names no private key; "
            f"{_HOW}"
        )
    return keys.private


def signing_key_id(keys: Keys) -> str:
    """The id of the key that signs.

    Raises:
        ValueError: there is no private key, its file holds none, or no process would accept its
            signatures, since its public key is not trusted.
    """
    private = _private_of(keys)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import SSlibKey

    try:
        loaded = load_pem_private_key(private.read_bytes(), None)
        identifier = str(SSlibKey.from_crypto(loaded.public_key()).keyid[:_ID_DIGITS])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{private} is no private elliptic-curve key that can sign: {error}"
        ) from error
    # Found before anything is signed: a release that no process accepts would block the registry.
    if identifier not in trusted_keys(keys):
        raise ValueError(
            f"the public key of {private} is not among those of ${PUBLIC_KEY}, or is revoked"
        )
    return identifier


def sign_folder(folder: Path, keys: Keys, signature: Path | None = None) -> None:
    """Write the signature of everything in a folder, by default to its `model.sig`.

    Raises:
        ValueError: there is no private key, or its file holds none on a curve P-256, P-384 or
            P-521 without a password.
    """
    private = _private_of(keys)
    # model_signing costs half a second, which only signed registries pay.
    import model_signing

    # With a relative path, model_signing signs and expects its own signature file.
    folder = folder.resolve()
    config = model_signing.signing.Config().set_hashing_config(_hashing(folder))
    try:
        config.use_elliptic_key_signer(private_key=private)
    except (ValueError, TypeError, AttributeError) as error:  # not PEM; with a password; RSA
        raise ValueError(
            f"{private} is no private elliptic-curve key that can sign: {error}"
        ) from error
    config.sign(folder, signature.resolve() if signature else folder / SIGNATURE)


def verify_folder(folder: Path, keys: Keys, further: Mapping[str, Path] | None = None) -> str:
    """Check every file of a folder against its signatures; return the id of the key that holds.

    Args:
        folder: with its `model.sig`.
        keys: the keys that verify.
        further: signature files beside `model.sig`; one valid signature is enough.

    Raises:
        SignatureError: no signature of a trusted key holds for these files.
    """
    folder = folder.resolve()
    # One valid signature is enough, so that a rotation of keys leaves old releases in use.
    signatures = [folder / SIGNATURE, *(further or {}).values()]
    present = [path for path in signatures if path.is_file()]
    if not present:
        raise SignatureError(
            f"{folder} is not signed, and the registry is configured as signed (release.signed)"
        )
    problems = []
    for name, public in trusted_keys(keys).items():
        for signature in present:
            problem = _verify_one(folder, signature, public)
            if problem is None:
                return name
            problems.append(problem)
    for path in keys.revoked:
        if any(_verify_one(folder, signature, path) is None for signature in present):
            raise SignatureError(
                f"{folder} is signed with key {key_id(path)} only, which is revoked: "
                "`arl sign` signs a version with another key, after you have checked it"
            )
    # A signature that holds for other files says more than one of another key.
    other_key = "it is of another key, or was changed"
    best = next((text for text in problems if text and "Key mismatch" not in text), other_key)
    raise SignatureError(
        f"the signature of {folder} does not hold for any key of ${PUBLIC_KEY}: {best}"
    )


def _verify_one(folder: Path, signature: Path, public: Path) -> str | None:
    """None where the signature holds; else the problem, empty where the key is another one."""
    import model_signing
    from cryptography.exceptions import InvalidSignature

    config = model_signing.verifying.Config().set_hashing_config(_hashing(folder))
    try:
        config.use_elliptic_key_verifier(public_key=public)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{public} is no public elliptic-curve key: {error}") from error
    try:
        config.verify(folder, signature.resolve())
    except InvalidSignature:
        return ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # also of a cut bundle
        return str(error) or "it was changed"
    return None


def _hashing(folder: Path) -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)


def sign_document(payload: bytes, payload_type: str, keys: Keys) -> dict[str, Any]:
    """A DSSE envelope of the payload.

    Raises:
        ValueError: there is no private key, or its file holds none that can sign.
    """
    private = _private_of(keys)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    try:
        signer = CryptoSigner(load_pem_private_key(private.read_bytes(), None))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{private} is no private elliptic-curve key that can sign: {error}"
        ) from error
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(signer)
    return dict(envelope.to_dict())


def verify_document(content: Any, payload_type: str, keys: Keys, origin: str) -> tuple[bytes, str]:
    """The payload of a DSSE envelope and the id of the trusted key that signed it.

    Raises:
        SignatureError: it is no envelope of this type, or no trusted key signed it.
    """
    from securesystemslib.exceptions import VerificationError

    envelope = _read_envelope(content, origin)
    # The type is part of what is signed: a pointer must not pass as an attestation.
    if envelope.payload_type != payload_type:
        raise SignatureError(f"{origin} is signed as {envelope.payload_type}, not {payload_type}")
    trusted = {name: _load_public(path) for name, path in trusted_keys(keys).items()}
    try:
        [accepted] = envelope.verify(list(trusted.values()), 1).values()
    except (VerificationError, ValueError) as error:
        # The envelope names its signer, so that the message can tell a revoked key from an unknown
        # one.
        signers = {identifier[:_ID_DIGITS] for identifier in envelope.signatures}
        revoked = sorted(signers & {key_id(path) for path in keys.revoked})
        why = f"with key {revoked[0]}, which is revoked" if revoked else "by no trusted key"
        raise SignatureError(f"{origin} is signed {why} (${PUBLIC_KEY})") from error
    return envelope.payload, accepted.keyid[:_ID_DIGITS]


def payload_of(content: Any, origin: str) -> bytes:
    """The payload of a DSSE envelope, not verified: to list, not to trust.

    Raises:
        SignatureError: it is no envelope.
    """
    payload: bytes = _read_envelope(content, origin).payload
    return payload


def _read_envelope(content: Any, origin: str) -> Any:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError

    try:
        # from_dict changes its argument.
        signatures = [dict(signature) for signature in content["signatures"]]
        return Envelope.from_dict({**content, "signatures": signatures})
    except (KeyError, TypeError, ValueError, AttributeError, FormatError) as error:
        raise SignatureError(f"{origin} is no signed document: {error}") from error

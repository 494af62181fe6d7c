"""Signatures of folders, by OpenSSF model signing with an elliptic-curve key from a file.

A signed folder holds `model.sig`, a Sigstore bundle that lists the SHA-256 of every other file;
anyone with the public
key may check it without us: `model_signing verify key FOLDER --signature FOLDER/model.sig
--public_key KEY.pem`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNATURE = "model.sig"
PRIVATE_KEY, PUBLIC_KEY = (
    "ARL_SIGNING_KEY",
    "ARL_VERIFY_KEY",
)  # environment variables, each the name of a PEM file
_HOW = "openssl ecparam -genkey -name prime256v1 -noout -out signing.pem; openssl ec -in signing.pem -pubout"


@dataclass(frozen=True)
class Keys:
    """Files of PEM keys; only who releases needs the private one."""

    public: Path
    private: Path | None


def keys_from_environment(signed: bool) -> Keys | None:
    """The keys that $ARL_VERIFY_KEY and $ARL_SIGNING_KEY name; None for a registry that is configured as unsigned.

    Raises:
        ValueError: a signed registry without a public key.
        FileNotFoundError: a variable names no file.
    """
    if not signed:
        return None
    public, private = _file(PUBLIC_KEY), _file(PRIVATE_KEY)
    if public is None:
        raise ValueError(
            f"the registry is signed (release.signed) and ${PUBLIC_KEY} names no public key; {_HOW}"
        )
    return Keys(public, private)


def _file(variable: str) -> Path | None:
    name = os.environ.get(variable)
    if not name:
        return None
    if not Path(name).is_file():
        raise FileNotFoundError(f"${variable} is {name}, which is no file")
    return Path(name)


def sign(folder: Path, keys: Keys) -> None:
    """Write the signature of everything in a folder into it.

    Raises:
        ValueError: there is no private key, or the file holds none on a curve P-256, P-384 or P-521
            without a password.
    """
    if keys.private is None:
        raise ValueError(
            f"the registry is signed (release.signed) and ${PRIVATE_KEY} names no private key; {_HOW}"
        )
    import model_signing  # half a second, which only signed registries pay

    config = model_signing.signing.Config().set_hashing_config(_everything(folder))
    try:
        config.use_elliptic_key_signer(private_key=keys.private)
    except (ValueError, TypeError, AttributeError) as error:  # not PEM; with a password; RSA
        raise ValueError(
            f"{keys.private} is no private elliptic-curve key that can sign: {error}"
        ) from error
    config.sign(folder, folder / SIGNATURE)


def check_signature(folder: Path, keys: Keys) -> None:
    """Hold every file of a folder against its signature.

    Raises:
        ValueError: it is not signed, was signed with another key, or a file was changed, added or
            removed.
    """
    if not (folder / SIGNATURE).is_file():
        raise ValueError(
            f"{folder} is not signed, and the registry is configured as signed (release.signed)"
        )
    import model_signing
    from cryptography.exceptions import InvalidSignature

    config = model_signing.verifying.Config().set_hashing_config(_everything(folder))
    try:
        config.use_elliptic_key_verifier(public_key=keys.public)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{keys.public} is no public elliptic-curve key: {error}") from error
    try:
        config.verify(folder, folder / SIGNATURE)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        InvalidSignature,
    ) as error:  # also of a bundle cut short
        what = str(error) or "it was not made with this key, or was changed"
        raise ValueError(
            f"the signature of {folder} does not hold for {keys.public}: {what}"
        ) from error


def _everything(folder: Path) -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)

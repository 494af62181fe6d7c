"""The way from a quarantine entry of hospital data back to its file, for holders of the hash key.

The corpus names a refused file by a keyed hash of its path. This local file holds the paths,
encrypted with a key that is derived from the hash key, and is readable by its owner only. It never
enters the corpus.
"""

import json
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from arl.ingest.dicom.deidentify import encryption_key

FOLDER = Path("quarantine-key")  # in the working folder
_PURPOSE = "quarantine"


def write_quarantine_key(source: str, batch: str, paths: dict[str, str], key: bytes) -> Path:
    """Encrypt the paths of a batch's refused files.

    Args:
        source, batch: names of the batch.
        paths: name in the quarantine -> path below the root of the export.
        key: of the hashes.
    """
    content = json.dumps(paths).encode()
    return write_encrypted(FOLDER / source / f"{batch}.enc", content, key, _PURPOSE)


def write_encrypted(file: Path, content: bytes, key: bytes, purpose: str) -> Path:
    """Encrypt content under a key into a file that only its owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The mode is set when the file is created: paths must not be readable for a moment.
    partial = file.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(Fernet(encryption_key(key, purpose)).encrypt(content))
    partial.replace(file)
    return file


def read_quarantine_key(source: str, batch: str, key: bytes) -> dict[str, str]:
    """The paths that `write_quarantine_key` has encrypted.

    Raises:
        FileNotFoundError: this folder has no quarantine key of the batch.
        ValueError: the key is another one, or the file is damaged.
    """
    file = FOLDER / source / f"{batch}.enc"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: it is where the batch was ingested")
    try:
        content = Fernet(encryption_key(key, _PURPOSE)).decrypt(file.read_bytes())
    except InvalidToken:
        raise ValueError(f"{file} was written with another hash key, or is damaged") from None
    paths: dict[str, str] = json.loads(content)
    return paths

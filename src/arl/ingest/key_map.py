"""Hashes of hospital data after a change of the hash key.

Batches are never rewritten, so rows of earlier batches keep the hashes of the old key. A key map
leads from a hash of the new key to the hash under which the corpus knows the same patient, image
or file. Ingest replaces mapped hashes: a patient who returns keeps her split, an image that was
accepted before is refused as a copy, and one search finds all rows of a patient. A new patient
gets a hash of the new key. The column `key_id` of the manifest names the key of each row.

The map holds hashes only, is encrypted under the new key, and never enters the corpus.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from arl.ingest.dicom.deidentify import Pseudonyms, encryption_key, key_id
from arl.ingest.dicom.quarantine_key import FOLDER, write_encrypted

_PURPOSE = "rotation"


@dataclass(frozen=True)
class KnownHash:
    """The hash of a value in the corpus, and the id of the key that made it."""

    value: str
    key_id: str


@dataclass(frozen=True)
class KeyMap:
    """Hashes of one key -> hashes in the corpus, for values that an earlier key has hashed.

    Attributes:
        key_id: Id of the key, as rows name it.
        hashes: Hash of this key -> hash in the corpus.
    """

    key_id: str
    hashes: Mapping[str, KnownHash] = field(default_factory=dict, repr=False)

    def lookup(self, value: str) -> KnownHash:
        """The hash in the corpus for a hash of this key; the same hash if the map lacks it."""
        return self.hashes.get(value, KnownHash(value, self.key_id))

    def pseudonyms(self, names: Pseudonyms) -> Pseudonyms:
        """The pseudonyms of a file as the corpus knows them."""
        patient, image = (
            None if value is None else self.lookup(value).value
            for value in (names.patient, names.image)
        )
        return Pseudonyms(patient, image)

    @classmethod
    def read(cls, key: bytes) -> "KeyMap":
        """The map of a key; empty if the key replaces no earlier one.

        Raises:
            ValueError: The file is damaged.
        """
        file = map_file(key)
        if not file.is_file():
            return cls(key_id(key))
        try:
            content = Fernet(encryption_key(key, _PURPOSE)).decrypt(file.read_bytes())
        except InvalidToken:
            raise ValueError(f"{file} is damaged: restore it, or run `arl rotate-key`") from None
        pairs: dict[str, list[str]] = json.loads(content)
        return cls(key_id(key), {new: KnownHash(*entry) for new, entry in pairs.items()})

    def write(self, key: bytes) -> Path:
        """Write the map, readable by its owner only."""
        pairs = {new: [entry.value, entry.key_id] for new, entry in sorted(self.hashes.items())}
        return write_encrypted(map_file(key), json.dumps(pairs).encode(), key, _PURPOSE)


def map_file(key: bytes) -> Path:
    """The file of the map of a key, in the working folder."""
    return FOLDER / f"rotation-{key_id(key)}.enc"

"""Replace the hash key of hospital data by a new one."""

import os
from collections.abc import Iterator
from pathlib import Path

from arl import console
from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import batch_folders, read_manifest
from arl.corpus.record import Refused
from arl.ingest.dicom.deidentify import (
    Pseudonyms,
    check_key,
    key_id,
    pseudonyms,
    read_key,
    secret_key,
)
from arl.ingest.dicom.frames import read_header
from arl.ingest.dicom.quarantine_key import read_quarantine_key, write_quarantine_key
from arl.ingest.key_map import KeyMap, KnownHash
from arl.ingest.readers.dicom_folder import dicom_files, text_name

OLD_KEY, OLD_KEY_FILE = "ARL_OLD_HASH_KEY", "ARL_OLD_HASH_KEY_FILE"


def rotate_key(
    *,
    root: Path,
    corpus: ReadableCorpus,
    source: str = "dicom-folder",
    site: str = "hospital",
) -> None:
    """Replace the hash key of hospital data by a new one.

    The new key is in ARL_HASH_KEY or ARL_HASH_KEY_FILE, the old one in ARL_OLD_HASH_KEY or
    ARL_OLD_HASH_KEY_FILE. Reads the headers of the export in `root` and writes the file
    quarantine-key/rotation-<id of the new key>.enc, which leads from hashes of the new key to
    hashes in the corpus. It also encrypts the quarantine keys of the source under the new key. From
    then on ingest needs the new key only: returning patients keep their split, and images that were
    accepted before are refused as copies. No batch is rewritten. Run it once for each export whose
    patients may return; the maps are united.

    Args:
        root: Folder of DICOM files that were ingested with the old key.
        corpus: Corpus folder.
        source: Name of the source in the corpus.
        site: Institution that the ingest of the export named.

    Raises:
        ValueError: A key is missing or weak, or both keys are the same.
        FileNotFoundError: `root` is not a folder, or the corpus is empty.

    Next:
        arl ingest dicom-folder --root NEW_EXPORT --corpus {corpus} --batch 0001

    Examples:
        arl rotate-key --root export --corpus data
    """
    new, old = secret_key(), _old_key()
    if new == old:
        raise ValueError(f"the key of {OLD_KEY} is the new key, too: a rotation needs two keys")
    rows = read_manifest(corpus, ["id", "source", "patient"])
    rows = rows[rows["source"] == source]
    prefix = f"{source}:"
    patients = set(rows["patient"].dropna().str.removeprefix(prefix))
    images = set(rows["id"].str.removeprefix(prefix).str.partition("/")[0])
    before, after = KeyMap.read(old), dict(KeyMap.read(new).hashes)
    for of_old, of_new in _names(root, old, new, site):
        for earlier, later in ((of_old.patient, of_new.patient), (of_old.image, of_new.image)):
            # Of a second rotation, the corpus knows the hash of the first key.
            if earlier is None or later is None:
                continue
            entry = before.lookup(earlier)
            if entry.value in patients or entry.value in images:
                after[later] = entry
    for batch in [folder.name for folder in batch_folders(corpus) if folder.parent.name == source]:
        after |= _renew_quarantine(source, batch, old, new, before)
    file = KeyMap(key_id(new), after).write(new)
    mapped = {entry.value for entry in after.values()}
    console.info(
        f"{file}: {len(mapped & patients):,} of {len(patients):,} patients and "
        f"{len(mapped & images):,} of {len(images):,} files of {corpus / source} are mapped"
    )
    if missing := len(patients - mapped):
        console.info(
            f"{missing:,} patients of the corpus are not in {root}: if they return, they count as "
            "new persons, until `arl rotate-key` has read their files"
        )


def _old_key() -> bytes:
    names = [name for name in (OLD_KEY, OLD_KEY_FILE) if os.environ.get(name)]
    if len(names) != 1:
        raise ValueError(f"set the old key in either {OLD_KEY} or {OLD_KEY_FILE}")
    value = os.environ[names[0]]
    key = value.strip().encode() if names == [OLD_KEY] else read_key(Path(value))
    check_key(key, names[0])
    return key


def _names(
    root: Path, old: bytes, new: bytes, site: str
) -> Iterator[tuple[Pseudonyms, Pseudonyms]]:
    """The pseudonyms of every readable file under both keys."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    for file in dicom_files(root):
        try:
            header = read_header(file)
        except Refused:
            # Ingest has refused this file, too, so no row stands for it.
            continue
        yield pseudonyms(header, old, site), pseudonyms(header, new, site)


def _renew_quarantine(
    source: str, batch: str, old: bytes, new: bytes, before: KeyMap
) -> dict[str, KnownHash]:
    """Encrypt the paths of refused files under the new key, and map the names of the files."""
    try:
        paths = read_quarantine_key(source, batch, old)
    except FileNotFoundError:
        # The batch refused nothing, or was ingested in another folder.
        return {}
    except ValueError:
        # An interrupted rotation has renewed this file already.
        paths = read_quarantine_key(source, batch, new)
    write_quarantine_key(source, batch, paths, new)
    return {
        text_name(path, new): KnownHash(name, before.lookup(name).key_id)
        for name, path in paths.items()
    }

"""Show which files of a hospital export were refused, and why."""

from pathlib import Path

from arl.corpus.manifest import QUARANTINE, read_table
from arl.ingest.dicom.deidentify import secret_key
from arl.ingest.dicom.quarantine_key import read_quarantine_key


def quarantine(*, corpus: Path, batch: str, source: str = "dicom-folder") -> None:
    """Show which files of a hospital export were refused, and why.

    Reads the quarantine of <corpus>/<source>/<batch> and the local, encrypted file
    quarantine-key/<source>/<batch>.enc, which `arl ingest` wrote. Needs the hash key of the ingest
    in ARL_HASH_KEY or ARL_HASH_KEY_FILE. The output names files, so keep it inside the hospital.

    Args:
        corpus: Corpus folder.
        batch: Name of the batch.
        source: Name of the source in the corpus.

    Raises:
        FileNotFoundError: No such batch, or no quarantine key in this folder.
        ValueError: The hash key is another one.

    Examples:
        arl quarantine --corpus data --batch 0001
    """
    # The corpus holds pseudonyms only; the key file stays in the hospital.
    paths = read_quarantine_key(source, batch, secret_key())
    table = read_table(corpus / source / batch / "quarantine.parquet", QUARANTINE)
    for name, reason in zip(table["input"], table["reason"], strict=True):
        print(f"{paths.get(name, name)}: {reason}")

"""Find the images of one patient in the corpus, for example to erase them."""

import sys

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import read_manifest
from arl.ingest.dicom.deidentify import keyed_hash, secret_key
from arl.ingest.key_map import KeyMap


def find_patient(
    *,
    corpus: ReadableCorpus,
    source: str = "dicom-folder",
    site: str = "hospital",
    issuer: str = "",
) -> None:
    """Find the images of one patient in the corpus, for example to erase them.

    Reads the patient id from standard input, so that it stays out of the shell's history, and
    prints the pseudonym and the number of images in each batch. Needs the hash key in ARL_HASH_KEY
    or ARL_HASH_KEY_FILE. Rows of an earlier key are found through the map of `arl rotate-key`.

    Args:
        corpus: Corpus folder.
        source: Name of the source in the corpus.
        site: Institution that the ingest named.
        issuer: Issuer of the patient id, if the files state one.

    Raises:
        ValueError: The key is missing or weak, or standard input is empty.
        FileNotFoundError: The corpus is empty.

    Examples:
        arl find-patient --corpus data --site hospital
    """
    identifier = sys.stdin.readline().strip()
    if not identifier:
        raise ValueError("write the patient id to standard input: arl find-patient ... < FILE")
    key = secret_key()
    value = keyed_hash(key, "patient", site, issuer, identifier)
    patient = f"{source}:{KeyMap.read(key).lookup(value).value}"
    rows = read_manifest(corpus, ["id", "batch", "patient"])
    counts = rows[rows["patient"] == patient].groupby("batch", sort=True).size()
    print(f"{patient}: {int(counts.sum()):,} images")
    for batch, count in counts.items():
        print(f"{corpus / source / str(batch)}: {count:,} images")

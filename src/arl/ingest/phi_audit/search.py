"""Every byte that an ingest left behind, searched for identifiers."""

import difflib
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from arl.corpus.pixels import as_grey, unpack
from arl.corpus.shard_reader import read_shard
from arl.ingest.dicom.burnt_in_text import words
from arl.ingest.phi_audit.burnt_in import Ink, is_visible

_KEY = 8  # bytes that are compared at once
_SIMILARITY = 0.7  # of a planted text and one that is read: readers take 8 for B
_SHORTEST = 5  # characters of a text that is compared; shorter ones are like anything


def leaks(
    root: Path,
    identifiers: Mapping[str, str],
    drawn: tuple[str, ...],
    inks: Mapping[str, Ink] | None = None,
) -> Iterator[str]:
    """Every occurrence of an identifier below `root`, one sentence each.

    The search covers names and bytes of all files and, in parquet files, every cell, the metadata
    and every picture. It also looks for identifiers in UTF-16 and as bare MD5, SHA-1 and SHA-256.

    Args:
        root: folder to search.
        identifiers: identifier -> the place where it was planted.
        drawn: texts that OCR looks for in pictures.
        inks: name -> drawing that is looked for in pictures by correlation, for scripts that OCR
            does not read.

    Raises:
        ValueError: an identifier of fewer than eight characters.
    """
    search = Search(identifiers)
    for file in sorted(path for path in root.rglob("*") if not path.is_dir()):
        for where, content in file_contents(root, file):
            for identifier in search.find(content):
                yield f"{where} holds {identifier!r}, planted in {identifiers[identifier]}"
        if re.fullmatch(r"shard-\d+\.parquet", file.name):
            yield from visible_texts(root, file, drawn, inks or {})


class Search:
    """Finds any of thousands of identifiers in bytes: by their first eight bytes, then the rest."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self._forms: dict[int, list[tuple[bytes, str]]] = {}
        for identifier in identifiers:
            lower = identifier.lower()
            forms = [lower.encode(), lower.encode("utf-16-le")]
            # A bare hash of a name is no pseudonym: anybody can hash a list of names.
            forms += [
                hashlib.new(algorithm, identifier.encode()).hexdigest()[:32].encode()
                for algorithm in ("md5", "sha1", "sha256")
            ]
            for form in forms:
                if len(form) < _KEY:
                    raise ValueError(f"{identifier!r} is too short to be told from other bytes")
                self._forms.setdefault(int.from_bytes(form[:_KEY], sys.byteorder), []).append(
                    (form, identifier)
                )
        self._keys = np.array(sorted(self._forms), np.uint64)

    def find(self, content: bytes) -> set[str]:
        """The identifiers that some bytes hold, in either case."""
        # numpy compares all aligned groups of eight bytes at once, for each of eight alignments.
        lower = content.lower() + b"\0" * _KEY
        secrets = set()
        for start in range(_KEY):
            keys = np.frombuffer(lower, np.uint64, (len(lower) - start) // _KEY, start)
            for index in np.flatnonzero(np.isin(keys, self._keys)):
                offset = start + _KEY * int(index)
                secrets |= {
                    name
                    for form, name in self._forms[int(keys[index])]
                    if lower.startswith(form, offset)
                }
        return secrets


def file_contents(root: Path, file: Path) -> Iterator[tuple[str, bytes]]:
    """(name of a part, its bytes) of a file: its name, its bytes, its metadata and its columns."""
    name = file.relative_to(root).as_posix()
    yield f"the name {name}", name.encode("utf-8", "surrogateescape")
    if file.is_file():
        yield name, file.read_bytes()
    if file.suffix == ".parquet":
        yield f"the metadata of {name}", str(pq.read_metadata(file).metadata).encode()
        # The file's bytes are compressed, so its cells are searched one by one as well.
        columns: dict[str, list[bytes]] = {}
        with pq.ParquetFile(file) as table:
            rows = (row for part in table.iter_batches(batch_size=32) for row in part.to_pylist())
            for column, cell in (item for row in rows for item in row.items()):
                content = cell if isinstance(cell, bytes) else str(cell).encode()
                columns.setdefault(column, []).append(content)
        for column, cells in columns.items():
            yield f"column {column} of {name}", b"\0".join(cells)


def visible_texts(
    root: Path, file: Path, drawn: tuple[str, ...], inks: Mapping[str, Ink]
) -> Iterator[str]:
    """Texts and codes that a picture of a shard still shows, to OCR or by their shape."""
    shard = read_shard(file)
    # Ingest scales large images down, and the inks have to be compared at the stored scale.
    originals: dict[int, int] = {}
    manifest = file.with_name("manifest.parquet")
    if manifest.is_file():
        rows = pq.read_table(manifest, columns=["shard", "row", "original_height"]).to_pylist()
        originals = {r["row"]: r["original_height"] for r in rows if r["shard"] == file.name}
    columns = (shard[name].tolist() for name in ("image", "height", "width"))
    for number, (packed, height, width) in enumerate(zip(*columns, strict=True)):
        image = unpack(packed, height, width)
        where = f"{file.relative_to(root).as_posix()}, image {number} shows"
        for text in words(image):
            yield from (f"{where} {secret!r}" for secret in drawn if is_similar(text, secret))
        scale = height / originals.get(number, height)
        yield from (
            f"{where} {name}"
            for name, ink in inks.items()
            if is_visible(as_grey(image), ink, scale)
        )


def is_similar(text: str, secret: str) -> bool:
    """Whether a text that was read may be a planted one, or a good part of it."""
    text, secret = (re.sub(r"\W", "", value).upper() for value in (text, secret))
    if len(text) < _SHORTEST:
        return False
    parts = [
        secret[start : start + len(text)] for start in range(max(1, len(secret) - len(text) + 1))
    ]
    return (
        max(difflib.SequenceMatcher(None, text, part, autojunk=False).ratio() for part in parts)
        >= _SIMILARITY
    )

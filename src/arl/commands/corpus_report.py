"""One page to look at the corpus."""

from pathlib import Path

import pandas as pd

from arl.corpus.checks.result import ValidationResult
from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import SCHEMA, corpus_version, read_manifest, read_quarantine
from arl.reports.corpus import CorpusPage, write_page
from arl.reports.stamp import Stopwatch

# The page shows none of these.
_UNREAD = {"anatomy_rule", "pixel_sha256", "labels", "exam", "detail_hash"}
_READ = [name for name in SCHEMA.names if name not in _UNREAD]


def corpus_report(
    *, corpus: ReadableCorpus = Path("data"), validation: Path = Path("out/validation"), page: Path
) -> None:
    """Write one page about the content of the corpus.

    The page shows the images by source, what was refused, near-identical images, and the rules that
    the corpus breaks. It is one HTML file without external loads.

    Args:
        corpus: Folder of the corpus, or s3://bucket/prefix.
        validation: Folder that `arl validate` wrote for this version of the corpus.
        page: The HTML file.

    Raises:
        FileNotFoundError: there is no corpus, or it was not validated.
        ValueError: what was validated is another corpus, or another version of it.

    Writes:
        page

    Examples:
        arl corpus-report --corpus data --validation out/validation --page out/corpus.html
    """
    watch = Stopwatch("arl corpus-report")
    result = validation / ValidationResult.FILE
    if not result.is_file():
        raise FileNotFoundError(
            f"{result} does not exist: run `arl validate --corpus {corpus} --validation "
            f"{validation}`"
        )
    validated = ValidationResult.read(result)
    # Rules of another version next to these pictures would mislead.
    if validated.corpus_version != corpus_version(corpus):
        raise ValueError(
            f"{result} is of another corpus or version than {corpus}: run "
            f"`arl validate --corpus {corpus} --validation {validation}`"
        )
    rows, quarantine = read_manifest(corpus, _READ), read_quarantine(corpus)
    duplicates = pd.read_parquet(validation / "withheld.parquet")
    content = CorpusPage(corpus, rows, quarantine, duplicates, validated)
    write_page(content, watch.stamp(corpus), page)

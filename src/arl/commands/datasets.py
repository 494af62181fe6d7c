"""List the datasets that can be ingested, and find them in a folder."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from arl.corpus.batch_summary import BATCH_FILE, BatchSummary
from arl.corpus.location import ReadableCorpus
from arl.ingest.readers import find_source, names
from arl.ingest.source import Options
from arl.settings import Dicom

_WIDTH = 100
_INDENT = " " * 12
# Published datasets are not DICOM, so their readers use none of these rules.
_NO_DICOM = Dicom(
    burnt_in_text="quarantine",
    unidentified="refuse",
    anatomy_from=[],
    anatomy_words=[],
    image_types={},
)


def datasets(
    sources: list[str], *, corpus: ReadableCorpus = Path("data"), root: Path | None = None
) -> None:
    """List the datasets that can be ingested, and find them in a folder.

    Without a name, prints one line for each reader: what it reads, and how many images of it are in
    the corpus. With names, e.g. `arl datasets bus-bra camus`, prints licence, how to obtain the
    set, layout, patients, splits, and what is refused. With --root, prints which datasets the
    folder and its subfolders hold, and the command that ingests each. Writes nothing.

    Args:
        sources: Readers to describe.
        corpus: Corpus whose batches are counted.
        root: Folder in which to look for datasets.

    Raises:
        ValueError: A name has no reader.
        FileNotFoundError: The root is not a folder.

    Examples:
        arl datasets
        arl datasets bus-bra camus
        arl datasets --root ~/downloads
    """
    # Reader -> a line for each of its complete batches.
    batches: dict[str, list[str]] = {}
    for file in sorted(corpus.glob(f"[!.]*/[!.]*/{BATCH_FILE}")):
        summary = BatchSummary.read(file.parent)
        counts = (
            f"{summary.images:,} images of {summary.accepted:,} inputs, {summary.refused:,} refused"
        )
        reader = summary.origin.reader or summary.source
        batches.setdefault(reader, []).append(f"{file.parent}: {counts}")
    if root is not None:
        print("\n".join(_recognise(root, corpus, sources or names())))
    elif sources:
        print("\n\n".join("\n".join(_details(name, batches.get(name, []))) for name in sources))
    else:
        print("\n".join(_overview(batches)))


def _overview(batches: dict[str, list[str]]) -> Iterator[str]:
    width = max(map(len, names()))
    for name in names():
        counts = f"  [{'; '.join(batches[name])}]" if name in batches else ""
        yield f"{name:{width}}  {find_source(name).title}{counts}"
    yield (
        "\n`arl datasets NAME` describes one dataset; "
        "`arl datasets --root FOLDER` finds datasets in a folder."
    )


def _details(name: str, batches: list[str]) -> Iterator[str]:
    source = find_source(name)
    options = [f"--{option.replace('_', '-')}" for option in source.options]
    yield fill(f"{name}: {source.title}", _WIDTH, subsequent_indent="  ")
    for heading, text in (
        ("Licence", source.licence),
        ("Obtain", source.obtain),
        ("Layout", source.layout),
        ("Patient", source.patient),
        ("Split", source.split),
        ("Coding", source.coding),
        ("Refuses", source.refuses),
        ("Cite", source.citation or "-"),
        ("Options", " ".join(options) or "none"),
        ("Corpus", "; ".join(batches) or "no batch"),
    ):
        yield fill(
            text,
            _WIDTH,
            initial_indent=f"  {heading:10s}",
            subsequent_indent=_INDENT,
            break_on_hyphens=False,
        )


def _recognise(root: Path, corpus: Path, sources: list[str]) -> Iterator[str]:
    """A line for each folder in which the reader of a published dataset finds its layout."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    folders = [
        path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")
    ]
    any_line = False
    for name in sources:
        if not find_source(name).published:
            continue
        lines = [line for folder in folders if (line := _try_read(name, folder, corpus))]
        if not lines and (line := _try_read(name, root, corpus)):
            lines = [line]
        yield from lines
        any_line = any_line or bool(lines)
    if not any_line:
        yield (
            f"neither {root} nor a folder in it has the layout of a dataset; "
            "`arl datasets NAME` describes the layouts"
        )


def _try_read(name: str, folder: Path, corpus: Path) -> str | None:
    try:
        inputs = find_source(name).read(folder, Options(), _NO_DICOM)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        return f"{name}: {folder} resembles this dataset, but: {error}"
    return f"{name}: {len(inputs):,} inputs; arl ingest {name} --root {folder} --corpus {corpus}"

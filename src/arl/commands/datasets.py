"""List the datasets that can be ingested, and which of them are here."""

import json
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from textwrap import fill

from arl.corpus.location import ReadableCorpus
from arl.ingest import readers

_WIDTH = 120
_SHOWN = ("Layout", "Patient", "Split", "Coding", "Refuses")


def datasets(
    names: list[str], *, corpus: ReadableCorpus = Path("data"), root: Path | None = None
) -> None:
    """List the datasets that can be ingested, and which of them are here.

    Without a name, one line for each reader: what it reads, and how many images of it are in the
        corpus. With names, e.g. `arl datasets bus-bra camus`, their licence, how to obtain them,
        the layout that is expected, whether there are patient ids, official splits, and what is
        refused. With --root FOLDER, which datasets are recognised in that folder or in the folders
        it holds, and the command that ingests them. Nothing is written.

    Raises:
        ValueError: there is no reader of a name.
        FileNotFoundError: the root is no folder.
    """
    batches = _batches(corpus)
    if root is not None:
        print("\n".join(_recognised(root, corpus, names or readers.names())))
    elif names:
        print("\n\n".join("\n".join(_details(name, batches.get(name, []))) for name in names))
    else:
        print("\n".join(_overview(batches)))


def _batches(corpus: Path) -> dict[str, list[str]]:
    """Reader -> what the complete batches that it made hold."""
    found: dict[str, list[str]] = {}
    for file in sorted(corpus.glob("[!.]*/[!.]*/batch.json")):
        about = json.loads(file.read_text(encoding="utf-8"))
        held = f"{about['images']:,} images of {about['accepted']:,} inputs, {about['refused']:,} refused"
        found.setdefault(about.get("reader", about["source"]), []).append(f"{file.parent}: {held}")
    return found


def _overview(batches: dict[str, list[str]]) -> Iterator[str]:
    width = max(map(len, readers.names()))
    for name in readers.names():
        here = f"  [{'; '.join(batches[name])}]" if name in batches else ""
        yield f"{name:{width}}  {readers.contract(readers.reader(name))['Title']}{here}"
    yield "\n`arl datasets NAME` tells more of one; `arl datasets --root FOLDER` which of them a folder holds."


def _details(name: str, batches: list[str]) -> Iterator[str]:
    module = readers.reader(name)
    stated = readers.contract(module)
    options = [
        f"--{option.replace('_', '-')}"
        for option in signature(module.read).parameters
        if option != "root"
    ]
    yield f"{name}: {stated['Title']}"
    yield _paragraph("Licence", module.LICENCE)
    yield _paragraph("Obtain", module.OBTAIN)
    yield from (_paragraph(heading, stated[heading]) for heading in _SHOWN)
    yield _paragraph("Cite", module.CITATION or "-")
    yield _paragraph("Options", " ".join(options) or "none")
    yield _paragraph("Found", "; ".join(batches) or "nothing in the corpus")


def _paragraph(heading: str, text: str) -> str:
    indent = " " * 12
    return fill(
        text,
        _WIDTH,
        initial_indent=f"  {heading:10s}",
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _recognised(root: Path, corpus: Path, names: list[str]) -> Iterator[str]:
    """The folders in which readers of published sets find their layout; sets of one's own have none to find."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    places = [
        path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")
    ]
    nothing = True
    for name in names:
        if len(signature(readers.reader(name).read).parameters) > 1:
            continue
        told = list(filter(None, (_look(name, place, corpus) for place in places)))
        told = told or list(filter(None, [_look(name, root, corpus)]))
        yield from told
        nothing = nothing and not told
    if nothing:
        yield f"{root} and the folders it holds are not the layout of a dataset; `arl datasets NAME` tells what that is"


def _look(name: str, folder: Path, corpus: Path) -> str | None:
    try:
        inputs = readers.reader(name).read(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        return f"{name}: {folder} looks like it, but: {error}"
    return f"{name}: {len(inputs):,} inputs; arl ingest {name} --root {folder} --corpus {corpus}"

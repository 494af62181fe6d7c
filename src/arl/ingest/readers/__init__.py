"""Readers of datasets as they are downloaded or dropped: one file a source, found by its name.

A reader is a module with

    LICENCE, CITATION, OBTAIN: str
    read(root: Path, ...) -> list[Input]

and a docstring that states its contract under the `HEADINGS`: layout, keys, coding, patient or
video identifier, official split, licence, and what it refuses. Beside the root, `read` takes
options of `arl ingest`, for sets of one's own. `read` lists every input before any is opened and
raises FileNotFoundError or ValueError when the layout is not there; what is wrong with one input is
that input's refusal. A clip is one input, of which `outcomes` may thin near-identical frames.
"""

import importlib
import pkgutil
import re
from types import ModuleType

from arl.corpus.record import Input
from arl.corpus.shard_writer import BatchWriter, DuplicateIdError
from arl.ingest.thinning import WHOLE
from arl.ingest.workers import Read, outcomes
from arl.progress import progress
from arl.settings import Thinning

HEADINGS = ("Layout", "Keys", "Coding", "Patient", "Split", "Licence", "Refuses")


def names() -> list[str]:
    """Sources that have a reader, as typed: bus-bra."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def reader(name: str) -> ModuleType:
    """The module that reads a source.

    Raises:
        ValueError: there is no such reader.
    """
    if name not in names():
        raise ValueError(f"source {name!r} has no reader; known: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def contract(module: ModuleType) -> dict[str, str]:
    """What the docstring of a reader states: "Title", and a paragraph for each of `HEADINGS`, each on one line.

    Raises:
        ValueError: a heading is missing.
    """
    text = module.__doc__ or ""
    parts = re.split(rf"\n({'|'.join(HEADINGS)}) +", text)
    found = {"Title": parts[0].split("\n\n")[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))
    missing = [heading for heading in HEADINGS if heading not in found]
    if missing:
        raise ValueError(f"{module.__name__}: its docstring does not state {', '.join(missing)}")
    return {heading: " ".join(paragraph.split()) for heading, paragraph in found.items()}


def write(
    inputs: list[Input],
    writer: BatchWriter,
    workers: int = 0,
    *,
    thinning: Thinning = WHOLE,
    seconds: float = 0,
) -> None:
    """Read every input, in order, and end each as accepted images or as a refusal.

    `workers` processes decode and encode (0: this one, without the limit of `seconds` an input);
    what is written does not depend on their number. Frames of clips are thinned by `thinning`, and
    counted.
    """
    writer.expect(len(inputs))
    read = outcomes(inputs, writer.store_size, workers, thinning=thinning, seconds=seconds)
    with progress(len(inputs), "ingest", "input") as bar:
        for input, outcome in zip(inputs, read, strict=True):
            if isinstance(outcome, str):
                writer.refuse(input.name, outcome)
            else:
                _append(writer, input.name, outcome)
            bar.update()


def _append(writer: BatchWriter, name: str, read: Read) -> None:
    try:
        for stored, entry in read.images:
            writer.append(stored, entry, name)
    except DuplicateIdError:
        writer.refuse(name, "an image with this id was accepted before")
    else:
        writer.thin(read.thinned)

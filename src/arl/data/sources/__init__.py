"""Readers of datasets as they are downloaded or dropped: one file a source, found by its name.

A reader is a module with

    LICENCE, CITATION: str
    read(root: Path, ...) -> list[Input]

and a docstring that states its contract: layout, keys, coding, patient or video identifier, official split, licence,
and what it refuses. `read` lists every input before any is opened and raises FileNotFoundError or ValueError when the
layout is not there; what is wrong with one input is that input's refusal.
"""

import importlib
import pkgutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from types import ModuleType

from tqdm import tqdm

from arl.data.record import Entry, Input, Refused
from arl.data.shards import BatchWriter, DuplicateIdError, Stored, store

# the images of an input as they will be stored, or the reason why there are none
Outcome = list[tuple[Stored, Entry]] | str


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


def write(inputs: list[Input], writer: BatchWriter, workers: int = 1) -> None:
    """Read every input, in order, and end each as accepted images or as a refusal.

    `workers` processes decode and encode; what is written does not depend on their number.
    """
    writer.expect(len(inputs))
    outcomes = _outcomes(inputs, writer.store_size, workers)
    for input, outcome in tqdm(zip(inputs, outcomes, strict=True), total=len(inputs), desc="ingest", unit="input"):
        if isinstance(outcome, str):
            writer.refuse(input.name, outcome)
        else:
            _append(writer, input.name, outcome)


def _append(writer: BatchWriter, name: str, images: list[tuple[Stored, Entry]]) -> None:
    try:
        for stored, entry in images:
            writer.append(stored, entry, name)
    except DuplicateIdError:
        writer.refuse(name, "an image with this id was accepted before")


def _prepare(input: Input, store_size: int) -> Outcome:
    try:
        images = [(store(record.image, record.mask, store_size), record.entry) for record in input.records()]
    except Refused as refusal:
        return str(refusal)
    return images or "it holds no image"


def _outcomes(inputs: list[Input], store_size: int, workers: int) -> Iterator[Outcome]:
    if workers <= 1:
        yield from (_prepare(input, store_size) for input in inputs)
        return
    ahead = 8 * workers  # results waiting for the writer, so that memory stays bounded
    waiting: deque[Future[Outcome]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for input in inputs:
            waiting.append(pool.submit(_prepare, input, store_size))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

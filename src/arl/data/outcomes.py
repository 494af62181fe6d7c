"""What becomes of inputs, in order, read by processes that may die.

Decoders written in C abort their process on some damaged files; the input that does so is refused and the rest goes on.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context

from arl.data.pixels import Stored, store
from arl.data.record import Entry, Input, Refused

# the images of an input as they will be stored, or the reason why there are none
Outcome = list[tuple[Stored, Entry]] | str

_AHEAD = 8  # results per worker that may wait for the writer, so that memory stays bounded
_KILLED = "reading it ended the process: its decoder crashed, or memory ran out"


def prepare(input: Input, store_size: int) -> Outcome:
    """Read one input and make its images ready to be stored."""
    try:
        images = [(store(record.image, record.mask, store_size), record.entry) for record in input.records()]
    except Refused as refusal:
        return str(refusal)
    return images or "it holds no image"


def outcomes(inputs: list[Input], store_size: int, workers: int) -> Iterator[Outcome]:
    """The outcome of each input, in their order and whatever the number of workers; 0 reads in this process."""
    if workers < 1:
        yield from (prepare(input, store_size) for input in inputs)
        return
    rest = iter(inputs)
    waiting: deque[tuple[Input, Future[Outcome]]] = deque()
    pool = _pool(workers)
    try:
        while True:
            for input in islice(rest, _AHEAD * workers - len(waiting)):
                waiting.append((input, _submit(pool, input, store_size)))
            if not waiting:
                return
            try:
                outcome = waiting[0][1].result()
            except BrokenProcessPool:
                suspects = [input for input, _ in waiting]
                waiting.clear()
                yield from _one_by_one(suspects, store_size)
                pool = _pool(workers)
                continue
            waiting.popleft()
            yield outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"))


def _submit(pool: ProcessPoolExecutor, input: Input, store_size: int) -> Future[Outcome]:
    try:
        return pool.submit(prepare, input, store_size)
    except BrokenProcessPool as error:  # by an input before this one
        failed: Future[Outcome] = Future()
        failed.set_exception(error)
        return failed


def _one_by_one(inputs: list[Input], store_size: int) -> Iterator[Outcome]:
    """The same with one input at a time, so that the one that ends its process is known."""
    pool = _pool(1)
    try:
        for input in inputs:
            try:
                yield pool.submit(prepare, input, store_size).result()
            except BrokenProcessPool:
                pool = _pool(1)
                yield _KILLED
    finally:
        pool.shutdown(cancel_futures=True)

"""Inputs read in order by worker processes, which a damaged file may kill.

Decoders written in C abort their process on some damaged files, loop for ever on others, and ask
for any amount of memory. The kernel limits each worker's memory and time. An input that kills its
worker is refused, and a new worker goes on with the next one.
"""

import resource
import struct
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import (
    ITIMER_PROF,
    ITIMER_REAL,
    SIG_IGN,
    SIGALRM,
    SIGINT,
    SIGPROF,
    setitimer,
    signal,
)
from typing import Generic, TypeVar

import cv2

from arl.corpus.limits import is_blank_image, size_problem
from arl.corpus.pixels import Stored, store
from arl.corpus.record import Entry, Input, Refused
from arl.ingest.thinning import WHOLE, Thinner
from arl.ingest.transient import TRANSIENT_REASON, is_transient
from arl.settings import Thinning

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Read:
    """An accepted input.

    Attributes:
        images: images as they will be stored.
        thinned: frames left out because they are near to others of their clip.
        blank: frames of clips left out because they show nothing.
    """

    images: list[tuple[Stored, Entry]]
    thinned: int
    blank: int = 0


# or the reason of the refusal.
Outcome = Read | str


@dataclass(frozen=True)
class Limits:
    """Limits of a worker, which the kernel enforces.

    Attributes:
        cpu_seconds: processor time for one input; 0: no limit.
        wall_factor: the wall clock may take this many times as long, for slow disks and busy
            machines.
        memory: bytes of private memory of a worker, beyond which an allocation fails; 0: no limit.
    """

    cpu_seconds: float = 0
    wall_factor: float = 10
    memory: int = 0


# With the interpreter, the decoders and the text models, which take about 0.4 GiB; code and other
# shared pages add 0.2 GiB.
WORKER_MEMORY = 5 << 28
UNLIMITED = Limits()

KILLED = "reading it ended the process: its decoder crashed, or memory ran out"
# Results per worker that may wait for the writer, so that memory stays bounded.
_AHEAD = 8
# of reading an input after an I/O error; seconds before the next one.
_TRIES, _PAUSE = 3, 0.5
# Position of a process that has not answered yet.
_STARTING = -1
# errors that a damaged file may provoke and that no reader expects
UNEXPECTED = (
    ArithmeticError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    cv2.error,
    struct.error,
    zlib.error,
)


def prepare(source: Input, store_size: int, thinning: Thinning = WHOLE) -> Outcome:
    """Read one input and make its images ready to be stored.

    A transient I/O error is tried again. Blank frames of clips are left out and counted.
    """
    for attempt in range(_TRIES):
        outcome = _attempt(source, store_size, thinning)
        if outcome != TRANSIENT_REASON:
            break
        time.sleep(_PAUSE * (attempt + 1))
    return outcome


def _attempt(source: Input, store_size: int, thinning: Thinning) -> Outcome:
    thinner = Thinner(thinning)
    images: list[tuple[Stored, Entry]] = []
    count = blank = 0
    try:
        for record in source.records():
            count += 1
            stored = store(record.image, record.mask, store_size)
            if is_blank_image(stored):
                blank += 1
            elif (problem := size_problem(stored)) is not None:
                return problem
            elif thinner.keeps(record):
                images.append((stored, record.entry))
    except Refused as refusal:
        return str(refusal)
    except UNEXPECTED as error:
        if is_transient(error):
            return TRANSIENT_REASON
        return f"reading it failed unexpectedly ({type(error).__name__} in {_origin(error)})"
    if not count:
        return "it holds no image"
    if not images:
        return "its image is blank" if count == 1 else f"all of its {count} images are blank"
    kept = [images[i] for i in thinner.chosen([entry for _, entry in images])]
    return Read(kept, count - blank - len(kept), blank)


def _origin(error: BaseException) -> str:
    """The last function of arl on the stack of an error; its message may quote a name."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "arl" in Path(frame.filename).parts
    ]
    return f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "its reader"


def outcomes(
    inputs: list[Input],
    store_size: int,
    workers: int,
    *,
    thinning: Thinning = WHOLE,
    seconds: float = 0,
) -> Iterator[Outcome]:
    """The outcome of each input, in their order and for any number of workers.

    Args:
        inputs: the inputs.
        store_size: long side of a stored image, pixels.
        workers: processes; 0 reads in this process, which a decoder that crashes or hangs takes
            down.
        thinning: rule for frames of clips.
        seconds: processor time after which reading one input is given up; 0: no limit.
    """
    read = partial(prepare, store_size=store_size, thinning=thinning)
    return isolated(read, inputs, workers, Limits(seconds, memory=WORKER_MEMORY))


def isolated(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, limits: Limits
) -> Iterator[Result | str]:
    """The function's result for each item, in their order, from processes that may die.

    Args:
        function: picklable; it returns a picklable result.
        items: picklable.
        workers: processes; 0 calls the function in this process, without limits.
        limits: of each process.

    Yields:
        The result, or the reason why the item killed its process.
    """
    if workers < 1:
        yield from map(function, items)
        return
    processes = [_Process(function, limits) for _ in range(min(workers, len(items)))]
    done: dict[int, Result | str] = {}
    sent = 0
    try:
        for position in range(len(items)):
            while position not in done:
                for idle in [process for process in processes if process.position is None]:
                    if sent < min(len(items), position + _AHEAD * workers):
                        idle.send(sent, items[sent])
                        sent += 1
                _collect(processes, done, limits)
            yield done.pop(position)
    finally:
        for process in processes:
            process.end()


def _collect(
    processes: "list[_Process[Item, Result]]", done: dict[int, Result | str], limits: Limits
) -> None:
    """Wait for results; a worker beyond its wall-clock limit is killed by its own timer."""
    busy = {process.connection: process for process in processes if process.position is not None}
    for connection in wait(list(busy)):
        process = busy[connection]  # type: ignore[index]
        position, outcome = process.receive()
        if outcome is not None:
            done[position] = outcome


class _Process(Generic[Item, Result]):
    """A process that handles one item at a time; if it dies, another one takes its place."""

    def __init__(self, function: Callable[[Item], Result], limits: Limits) -> None:
        self._function, self._limits = function, limits
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._function, self._limits), daemon=True
        )
        self._process.start()
        theirs.close()
        self.position: int | None = _STARTING

    def send(self, position: int, item: Item) -> None:
        self.position = position
        self.connection.send(item)

    def receive(self) -> tuple[int, Result | str | None]:
        """The position of the item and its result; None if the process has just started."""
        position = self.position
        assert position is not None
        try:
            outcome: Result | str | None = self.connection.recv()
        except (EOFError, OSError):
            outcome = self._death(position)
            self._start()
        else:
            self.position = None
        return position, outcome

    def _death(self, position: int) -> str:
        self._process.join()
        code = self._process.exitcode
        if position == _STARTING:
            raise RuntimeError(
                f"a process that reads inputs ended before it had begun, exit code {code}"
            )
        seconds = self._limits.cpu_seconds
        if code == -SIGPROF:
            return f"reading it took more than {seconds:g} seconds of processor time"
        if code == -SIGALRM:
            return f"reading it took more than {seconds * self._limits.wall_factor:g} seconds"
        return KILLED

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, function: Callable[[Item], Result], limits: Limits) -> None:
    """Handle items until the other end closes the connection."""
    # The terminal sends it to all processes; the first one ends the others.
    signal(SIGINT, SIG_IGN)
    if limits.memory:
        # private memory: address space would count what libraries reserve and never touch
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(None)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        # the kernel ends this process at the limit, whatever its decoder holds on to
        setitimer(ITIMER_PROF, limits.cpu_seconds)
        setitimer(ITIMER_REAL, limits.cpu_seconds * limits.wall_factor)
        result = function(item)
        setitimer(ITIMER_PROF, 0)
        setitimer(ITIMER_REAL, 0)
        connection.send(result)

"""What becomes of inputs, in order, read by processes that may die.

Decoders written in C abort their process on some damaged files, and loop for ever on others; the
input that does so is refused and the rest goes on.
"""

import struct
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import ITIMER_REAL, SIG_IGN, SIGALRM, SIGINT, setitimer, signal

import cv2

from arl.corpus.pixels import Stored, store
from arl.corpus.record import Entry, Input, Refused
from arl.ingest.thinning import WHOLE, Thinner
from arl.settings import Thinning


@dataclass(frozen=True)
class Read:
    """An input that was accepted."""

    images: list[tuple[Stored, Entry]]  # as they will be stored
    thinned: int  # frames left out since they are near to others of their clip


Outcome = Read | str  # or the reason why it is refused
_Read = Callable[[Input], Outcome]

_AHEAD = 8  # results per worker that may wait for the writer, so that memory stays bounded
_KILLED = "reading it ended the process: its decoder crashed, or memory ran out"
_STARTING = -1  # position of a process that has not answered yet
# what no reader foresaw, but a damaged file may provoke
_UNFORESEEN = (
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


def prepare(input: Input, store_size: int, thinning: Thinning = WHOLE) -> Outcome:
    """Read one input and make its images ready to be stored."""
    thinner = Thinner(thinning)
    images: list[tuple[Stored, Entry]] = []
    given = 0
    try:
        for record in input.records():
            given += 1
            if thinner.keeps(record):
                images.append((store(record.image, record.mask, store_size), record.entry))
    except Refused as refusal:
        return str(refusal)
    except _UNFORESEEN as error:
        return f"reading it failed unforeseen ({type(error).__name__} in {_place(error)})"
    kept = [images[position] for position in thinner.chosen([entry for _, entry in images])]
    return Read(kept, given - len(kept)) if given else "it holds no image"


def _place(error: BaseException) -> str:
    """The function of arl that an error came through last; no message, since it may quote a name."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "arl" in Path(frame.filename).parts
    ]
    return f"{Path(ours[-1].filename).stem}.{ours[-1].name}" if ours else "its reader"


def outcomes(
    inputs: list[Input],
    store_size: int,
    workers: int,
    *,
    thinning: Thinning = WHOLE,
    seconds: float = 0,
) -> Iterator[Outcome]:
    """The outcome of each input, in their order and whatever the number of workers.

    Args:
        workers: processes; 0 reads in this one, where a decoder that crashes or hangs takes
            everything with it.
        seconds: time after which reading one input is given up; 0: never.
    """
    read = partial(prepare, store_size=store_size, thinning=thinning)
    if workers < 1:
        yield from map(read, inputs)
        return
    processes = [_Process(read, seconds) for _ in range(min(workers, len(inputs)))]
    done: dict[int, Outcome] = {}
    given = 0
    try:
        for wanted in range(len(inputs)):
            while True:
                for idle in [process for process in processes if process.position is None]:
                    if given < min(len(inputs), wanted + _AHEAD * workers):
                        idle.give(given, inputs[given])
                        given += 1
                _collect(processes, done, block=wanted not in done)
                if wanted in done:
                    break
            yield done.pop(wanted)
    finally:
        for process in processes:
            process.end()


def _collect(processes: list["_Process"], done: dict[int, Outcome], *, block: bool) -> None:
    busy = {process.connection: process for process in processes if process.position is not None}
    for connection in wait(list(busy), None if block else 0):
        process = busy[connection]  # type: ignore[index]
        position, outcome = process.take()
        if outcome is not None:
            done[position] = outcome


class _Process:
    """A process that reads one input at a time, and may die of it: then another one takes its place."""

    def __init__(self, read: _Read, seconds: float) -> None:
        self._read, self._seconds = read, seconds
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._read, self._seconds), daemon=True
        )
        self._process.start()
        theirs.close()
        self.position: int | None = _STARTING

    def give(self, position: int, input: Input) -> None:
        self.position = position
        self.connection.send(input)

    def take(self) -> tuple[int, Outcome | None]:
        """The position that was given, and its outcome; None where the process has just started."""
        position = self.position
        assert position is not None
        try:
            outcome: Outcome | None = self.connection.recv()
        except (EOFError, OSError):
            outcome = self._lost(position)
            self._start()
        else:
            self.position = None
        return position, outcome

    def _lost(self, position: int) -> str:
        self._process.join()
        code = self._process.exitcode
        if position == _STARTING:
            raise RuntimeError(
                f"a process that reads inputs ended before it had begun, exit code {code}"
            )
        return (
            f"reading it took more than {self._seconds:g} seconds" if code == -SIGALRM else _KILLED
        )

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, read: _Read, seconds: float) -> None:
    """The life of a process: inputs come, outcomes go, until the other end is closed."""
    signal(SIGINT, SIG_IGN)  # the terminal sends it to all; the first process ends the others
    connection.send(None)
    while True:
        try:
            input = connection.recv()
        except EOFError:
            return
        setitimer(
            ITIMER_REAL, seconds
        )  # the kernel ends this process, whatever its decoder holds on to
        outcome = read(input)
        setitimer(ITIMER_REAL, 0)
        connection.send(outcome)

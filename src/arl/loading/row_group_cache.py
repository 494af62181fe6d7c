"""Stored images on square canvases, for training.

The unit of reading is the row group: one short sequential read, and a few dozen images. A corpus
larger than memory is read by row groups that are forgotten again; a small one is decoded once and
stays. What is asked for ahead of its use is read by several threads at once, which hides the time
that a store takes to answer.
"""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.corpus.pixels import in_channels, letterbox, stretch
from arl.corpus.record import Pixels
from arl.corpus.shards import Indices, Layout, RowGroup, cores

MEMORY = 4 << 30  # bytes of decoded canvases that are kept
_READERS = 8  # threads at least: a store answers late, a disk does not mind


class Taken(NamedTuple):
    """Some of the canvases.

    Images lie in memory column by column, as `resample` reads them first: turned once, when they
    are decoded.
    """

    images: Pixels  # uint8 (B, S, S), see `letterbox` and `stretch`
    extents: npt.NDArray[np.int32]  # (B, 2), height and width of the valid part
    masks: (
        Pixels | None
    )  # uint8 (B, S, S) of 0 and 1, 0 where a row has no mask; None: not asked for


class Canvases:
    """Grey images of manifest rows on square canvases, decoded a row group at a time.

    Decoded row groups are kept until `memory` bytes are full, then those not used for longest go.
    May be used from several threads.
    """

    def __init__(
        self,
        corpus: Path,
        rows: pd.DataFrame,
        size: int,
        *,
        masks: bool = False,
        stretched: bool = False,
        memory: int = MEMORY,
    ) -> None:
        """`size`: side of a canvas, pixels; `stretched`: images fill it and lose their form; `memory`: bytes."""
        self._laid = stretch if stretched else letterbox
        self.layout = Layout.of(rows)
        self._corpus, self._size, self._masks = corpus, size, masks
        self._limit = memory // (size * size * (2 if masks else 1))  # canvases
        self._place = np.empty(len(rows), np.int64)  # of a row among the members of its group
        self._place[self.layout.members] = np.arange(len(rows)) - np.repeat(
            self.layout.bounds[:-1], np.diff(self.layout.bounds)
        )
        self._kept: OrderedDict[int, Future[Taken]] = OrderedDict()
        self._count = 0  # canvases kept
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(max(cores(), _READERS), thread_name_prefix="canvases")

    def __len__(self) -> int:
        return len(self._place)

    def take(self, index: Indices) -> Taken:
        """The canvases of these rows, in their order.

        Raises:
            ValueError: a shard or an image in it is not readable.
            FileNotFoundError: a shard is missing.
        """
        taken = self._empty(len(index))
        group = self.layout.group[index]
        for number, found in self._groups(np.unique(group).tolist()):
            wanted = np.flatnonzero(group == number)
            place = self._place[index[wanted]]
            taken.images.transpose(0, 2, 1)[wanted] = found.images.transpose(0, 2, 1)[place]
            taken.extents[wanted] = found.extents[place]
            if taken.masks is not None and found.masks is not None:
                taken.masks[wanted] = found.masks[place]
        return taken

    def _empty(self, count: int) -> Taken:
        canvas = (count, self._size, self._size)
        return Taken(
            np.zeros(canvas, np.uint8).transpose(0, 2, 1),
            np.zeros((count, 2), np.int32),
            np.zeros(canvas, np.uint8) if self._masks else None,
        )

    def ask(self, index: Indices) -> None:
        """Begin to read the row groups of these rows, which `take` will want soon."""
        self._asked(np.unique(self.layout.group[index]).tolist())

    def _groups(self, numbers: list[int]) -> Iterator[tuple[int, Taken]]:
        for number, future in zip(numbers, self._asked(numbers), strict=True):
            if future.exception() is not None:
                self._forget(number, future)  # who asks again has it read again
            yield number, future.result()

    def _asked(self, numbers: list[int]) -> "list[Future[Taken]]":
        """What is kept of these row groups or being read; those used last are kept longest."""
        with self._lock:
            for number in numbers:
                if number not in self._kept:
                    self._kept[number] = self._pool.submit(self._load, number)
                    self._count += len(self.layout.rows(number))
                self._kept.move_to_end(number)
            found = [self._kept[number] for number in numbers]
            while self._count > self._limit:
                oldest, _ = self._kept.popitem(last=False)
                self._count -= len(self.layout.rows(oldest))
        return found

    def _forget(self, number: int, future: "Future[Taken]") -> None:
        with self._lock:
            if self._kept.get(number) is future:
                del self._kept[number]
                self._count -= len(self.layout.rows(number))

    def _load(self, number: int) -> Taken:
        members = self.layout.rows(number)
        shard, row_group = self.layout.places[number]
        stored = RowGroup(self._corpus, shard, row_group, masks=self._masks)
        loaded = self._empty(len(members))
        for place, row in enumerate(self.layout.inside[members].tolist()):
            canvas, loaded.extents[place] = self._laid(
                in_channels(stored.image(row), 1), self._size
            )
            cv2.transpose(canvas, dst=loaded.images[place].T)
            mask = stored.mask(row) if loaded.masks is not None else None
            if loaded.masks is not None and mask is not None:
                loaded.masks[place] = self._laid(mask, self._size, nearest=True)[0]
        return loaded

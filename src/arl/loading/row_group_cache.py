"""Stored images on square canvases, for training.

The unit of reading is the row group: one short sequential read of a few dozen images. A corpus
larger than memory is read by row groups, which are dropped again. A small corpus is decoded once
and stays in memory. Several threads read prefetched row groups, which hides the latency of a
remote store.
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
from arl.corpus.shard_reader import Indices, RowGroup, RowGroupIndex, num_cpus

MEMORY = 4 << 30  # bytes of decoded canvases in the cache
_MIN_READERS = 8  # threads: a remote store answers late, a disk does not mind


class Canvases(NamedTuple):
    """B images on canvases of side S.

    The memory order of images is column by column, because `resample` reads columns first. Each
    image is transposed once, when it is decoded.
    """

    images: Pixels  # uint8 (B, S, S), see `letterbox` and `stretch`
    extents: npt.NDArray[np.int32]  # (B, 2), height and width of the valid part, pixels
    masks: Pixels | None  # uint8 (B, S, S) of 0 and 1, 0 where a row has no mask


class RowGroupCache:
    """Grey images of manifest rows on square canvases, decoded a row group at a time.

    The cache holds decoded row groups up to `memory` bytes and drops the least recently used.
    Several threads may use one cache.
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
        """Prepare the cache; nothing is read yet.

        Args:
            corpus: folder of the corpus.
            rows: manifest rows.
            size: side of a canvas, pixels.
            masks: also decode masks.
            stretched: scale both sides of an image to `size`; otherwise keep its aspect ratio.
            memory: bytes of decoded canvases to hold.
        """
        self._fit = stretch if stretched else letterbox
        self.layout = RowGroupIndex.from_rows(rows)
        self._corpus, self._size, self._masks = corpus, size, masks
        self._max_canvases = memory // (size * size * (2 if masks else 1))
        # Position of each row among the members of its row group.
        self._position = np.empty(len(rows), np.int64)
        self._position[self.layout.members] = np.arange(len(rows)) - np.repeat(
            self.layout.bounds[:-1], np.diff(self.layout.bounds)
        )
        self._row_groups: OrderedDict[int, Future[Canvases]] = OrderedDict()
        self._num_canvases = 0
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(
            max(num_cpus(), _MIN_READERS), thread_name_prefix="canvases"
        )

    def __len__(self) -> int:
        return len(self._position)

    def take(self, index: Indices) -> Canvases:
        """The canvases of these rows, in their order.

        Raises:
            ValueError: a shard or an image in it is not readable.
            FileNotFoundError: a shard is missing.
        """
        canvases = self._empty(len(index))
        row_group = self.layout.group[index]
        for number, source in self._row_group_canvases(np.unique(row_group).tolist()):
            target = np.flatnonzero(row_group == number)
            position = self._position[index[target]]
            canvases.images.transpose(0, 2, 1)[target] = source.images.transpose(0, 2, 1)[position]
            canvases.extents[target] = source.extents[position]
            if canvases.masks is not None and source.masks is not None:
                canvases.masks[target] = source.masks[position]
        return canvases

    def prefetch(self, index: Indices) -> None:
        """Start to read the row groups of these rows, before `take` needs them."""
        self._submit(np.unique(self.layout.group[index]).tolist())

    def _empty(self, count: int) -> Canvases:
        shape = (count, self._size, self._size)
        return Canvases(
            np.zeros(shape, np.uint8).transpose(0, 2, 1),
            np.zeros((count, 2), np.int32),
            np.zeros(shape, np.uint8) if self._masks else None,
        )

    def _row_group_canvases(self, numbers: list[int]) -> Iterator[tuple[int, Canvases]]:
        for number, future in zip(numbers, self._submit(numbers), strict=True):
            # A failed read is not cached: the next call reads the row group again.
            if future.exception() is not None:
                with self._lock:
                    # Another thread may have replaced the failed read already.
                    if self._row_groups.get(number) is future:
                        del self._row_groups[number]
                        self._num_canvases -= len(self.layout.rows(number))
            yield number, future.result()

    def _submit(self, numbers: list[int]) -> "list[Future[Canvases]]":
        """Futures of these row groups, cached or being read, now the most recently used ones."""
        with self._lock:
            for number in numbers:
                if number not in self._row_groups:
                    self._row_groups[number] = self._pool.submit(self._load, number)
                    self._num_canvases += len(self.layout.rows(number))
                self._row_groups.move_to_end(number)
            futures = [self._row_groups[number] for number in numbers]
            # The futures above keep their canvases alive until the caller has copied them.
            while self._num_canvases > self._max_canvases:
                oldest, _ = self._row_groups.popitem(last=False)
                self._num_canvases -= len(self.layout.rows(oldest))
        return futures

    def _load(self, number: int) -> Canvases:
        members = self.layout.rows(number)
        shard, row_group = self.layout.row_groups[number]
        stored = RowGroup(self._corpus, shard, row_group, masks=self._masks)
        canvases = self._empty(len(members))
        for position, row in enumerate(self.layout.row_in_group[members].tolist()):
            image = in_channels(stored.image(row), 1)
            canvas, canvases.extents[position] = self._fit(image, self._size)
            cv2.transpose(canvas, dst=canvases.images[position].T)
            mask = stored.mask(row) if canvases.masks is not None else None
            if canvases.masks is not None and mask is not None:
                canvases.masks[position] = self._fit(mask, self._size, nearest=True)[0]
        return canvases

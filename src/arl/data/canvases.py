"""Stored images on square canvases, for training.

The unit of reading is the row group: one short sequential read, and a few dozen images. A corpus larger than memory is
read by row groups that are forgotten again; a small one is decoded once and stays.
"""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.data.pixels import in_channels, letterbox
from arl.data.record import Pixels
from arl.data.shards import Indices, Layout, RowGroup, cores

MEMORY = 4 << 30  # bytes of decoded canvases that are kept


class Taken(NamedTuple):
    """Some of the canvases.

    Images lie in memory column by column, as `resample` reads them first: turned once, when they are decoded.
    """

    images: Pixels  # uint8 (B, S, S), see `letterbox`
    extents: npt.NDArray[np.int32]  # (B, 2), height and width of the valid part
    masks: Pixels | None  # uint8 (B, S, S) of 0 and 1, 0 where a row has no mask; None: not asked for


class Canvases:
    """Grey images of manifest rows on square canvases, decoded a row group at a time.

    Decoded row groups are kept until `memory` bytes are full, then those not used for longest go. May be used from
    several threads.
    """

    def __init__(
        self, corpus: Path, rows: pd.DataFrame, size: int, *, masks: bool = False, memory: int = MEMORY
    ) -> None:
        """`size`: side of a canvas, pixels; `memory`: bytes."""
        self.layout = Layout.of(rows)
        self._corpus, self._size, self._masks = corpus, size, masks
        self._limit = memory // (size * size * (2 if masks else 1))  # canvases
        self._place = np.empty(len(rows), np.int64)  # of a row among the members of its group
        self._place[self.layout.members] = np.arange(len(rows)) - np.repeat(
            self.layout.bounds[:-1], np.diff(self.layout.bounds)
        )
        self._kept: OrderedDict[int, Taken] = OrderedDict()
        self._count = 0  # canvases kept
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="canvases")

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

    def _groups(self, numbers: list[int]) -> Iterator[tuple[int, Taken]]:
        with self._lock:
            missing = [number for number in numbers if number not in self._kept]
            loaded = dict(zip(missing, self._pool.map(self._load, missing), strict=True))
            found = {number: loaded[number] if number in loaded else self._kept[number] for number in numbers}
            self._keep(found)
        yield from found.items()

    def _keep(self, found: dict[int, Taken]) -> None:
        for number, group in found.items():
            self._count += 0 if number in self._kept else len(group.images)
            self._kept[number] = group
            self._kept.move_to_end(number)
        while self._count > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._count -= len(oldest.images)

    def _load(self, number: int) -> Taken:
        members = self.layout.rows(number)
        shard, row_group = self.layout.places[number]
        stored = RowGroup(self._corpus / shard, row_group, masks=self._masks)
        loaded = self._empty(len(members))
        for place, row in enumerate(self.layout.inside[members].tolist()):
            canvas, loaded.extents[place] = letterbox(in_channels(stored.image(row), 1), self._size)
            cv2.transpose(canvas, dst=loaded.images[place].T)
            mask = stored.mask(row) if loaded.masks is not None else None
            if loaded.masks is not None and mask is not None:
                loaded.masks[place] = letterbox(mask, self._size, nearest=True)[0]
        return loaded

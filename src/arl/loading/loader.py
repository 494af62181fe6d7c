"""Batches of canvases for training and evaluation.

The batch of a step is a function of (seed, step) alone: a run restarted at any step, with any
number of ranks, sees the same global batches. Training reads row groups in a random order, whole
and one after the other, and mixes the rows of many of them, so that the corpus may be larger than
memory by any factor.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from arl.corpus.anatomy import anatomy_index
from arl.corpus.shards import Indices, Layout
from arl.loading.row_group_cache import MEMORY, Canvases

LANES = 32  # sequences that are read side by side, see `TrainingOrder`
WINDOW = 512  # rows of a lane that are shuffled together; 32 x 512 canvases of 280 x 280 pixels are 1.3 GB
_AHEAD = 3  # batches read before they are asked for


@dataclass(frozen=True)
class Batch:
    """B images on canvases of side S."""

    image: Tensor  # uint8 (B, 1, S, S)
    extent: Tensor  # long (B, 2), valid height and width, pixels
    anatomy: Tensor  # long (B,)
    label: Tensor  # long (B,), -1: none
    mask: Tensor | None  # uint8 (B, 1, S, S) of 0 and 1
    index: Tensor  # long (B,), position in the rows given


class Examples:
    """Manifest rows, ready to be taken in batches."""

    def __init__(
        self,
        corpus: Path,
        rows: pd.DataFrame,
        size: int,
        *,
        classes: Sequence[str] = (),
        masks: bool = False,
        stretched: bool = False,
        memory: int = MEMORY,
    ) -> None:
        """`classes` gives labels their indices; a label outside of it, or none, is -1. The rest: see `Canvases`."""
        self.canvases = Canvases(
            corpus, rows, size, masks=masks, stretched=stretched, memory=memory
        )
        self.layout = self.canvases.layout
        self.anatomy = (
            rows["anatomy"]
            .map({name: anatomy_index(name) for name in set(rows["anatomy"])})
            .to_numpy(int)
        )
        order = {name: position for position, name in enumerate(classes)}
        self.label = np.array([order.get(label, -1) for label in rows["label"]], np.int64)

    def __len__(self) -> int:
        return len(self.canvases)

    def take(self, index: Indices) -> Batch:
        """The batch of these positions, in their order."""
        taken = self.canvases.take(index)
        return Batch(
            image=torch.from_numpy(taken.images).unsqueeze(1),
            extent=torch.from_numpy(taken.extents).long(),
            anatomy=torch.from_numpy(self.anatomy[index]),
            label=torch.from_numpy(self.label[index]),
            mask=None if taken.masks is None else torch.from_numpy(taken.masks).unsqueeze(1),
            index=torch.from_numpy(index),
        )

    def batches(self, indices: Iterable[Indices]) -> Iterator[Batch]:
        """`take` of each, a few of them ahead of time on a thread."""
        waiting: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        try:
            for index in indices:
                self.canvases.ask(index)
                waiting.append(pool.submit(self.take, index))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class TrainingOrder:
    """Which examples make the batch of a step.

    In each epoch the row groups stand in a random order, and the row of them all is cut into lanes
    of one length. A global batch takes as many examples of each lane, lane after lane, so that a
    rank reads the lanes of its own slice only. Within a lane, `WINDOW` neighbouring rows at a time
    are shuffled; windows end at other places in each lane, so that reading goes on evenly. What is
    left over, less than a batch, is dropped; it is another part in each epoch.
    """

    layout: Layout  # of the examples
    batch_size: int  # over all ranks
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise ValueError(
                f"batch size {self.batch_size} cannot be divided over {self.world} ranks"
            )
        if len(self.layout) < self.batch_size:
            raise ValueError(
                f"{len(self.layout)} training images are fewer than one batch of {self.batch_size}"
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.layout) // self.batch_size

    def indices(self, step: int) -> Indices:
        """This rank's slice of the global batch of a step counted from the start of training."""
        epoch, position = divmod(step, self.steps_per_epoch)
        lanes = math.gcd(self.batch_size, LANES)
        each = self.batch_size // lanes  # examples of a lane in a batch
        share = self.batch_size // self.world
        lane, nth = np.divmod(np.arange(self.rank * share, (self.rank + 1) * share), each)
        chosen = [
            self._of_lane(epoch, int(number), lanes, position * each + nth[lane == number])
            for number in np.unique(lane)
        ]
        return np.concatenate(chosen)

    def _of_lane(self, epoch: int, lane: int, lanes: int, places: Indices) -> Indices:
        """Examples at these places of a lane in an epoch."""
        length = len(self.layout) // lanes
        offset = lane * WINDOW // lanes
        windows = (places + offset) // WINDOW
        chosen = np.empty_like(places)
        for window in np.unique(windows).tolist():
            first, last = (
                max(0, window * WINDOW - offset),
                min(length, (window + 1) * WINDOW - offset),
            )
            here = windows == window
            order = _shuffled(last - first, self.seed, epoch, lane, window)
            sequence = _sequence(self.layout, self.seed, epoch)[
                lane * length + first : lane * length + last
            ]
            chosen[here] = sequence[order[places[here] - first]]
        return chosen


@lru_cache(maxsize=2)
def _sequence(layout: Layout, seed: int, epoch: int) -> Indices:
    """All rows, row group by row group, these in the order of an epoch."""
    groups = np.random.default_rng([seed, epoch]).permutation(len(layout.places))
    first, count = layout.bounds[groups], np.diff(layout.bounds)[groups]
    ends = np.cumsum(count)
    within = np.arange(len(layout)) - np.repeat(ends - count, count)
    sequence: Indices = layout.members[np.repeat(first, count) + within]
    return sequence


@lru_cache(maxsize=2 * LANES)
def _shuffled(count: int, seed: int, epoch: int, lane: int, window: int) -> Indices:
    return np.random.default_rng([seed, epoch, lane, window]).permutation(count)


class Placed(NamedTuple):
    """A micro-batch, its optimiser step, and its place in the step's global batch."""

    step: int
    place: TrainingOrder
    batch: Batch


def training_batches(
    examples: Examples, order: TrainingOrder, start: int, stop: int, accumulation: int = 1
) -> Iterator[Placed]:
    """This rank's micro-batches of the steps start, ..., stop - 1, `accumulation` of them a step."""
    places = list(_parts(order, accumulation))
    batches = examples.batches(
        place.indices(step) for step in range(start, stop) for place in places
    )
    for number, batch in enumerate(batches):
        step, part = divmod(number, accumulation)
        yield Placed(start + step, places[part], batch)


def _parts(order: TrainingOrder, accumulation: int) -> Iterator[TrainingOrder]:
    """An accumulation step is a rank that comes later: the global batch is the same."""
    world = order.world * accumulation
    return (
        replace(order, rank=order.rank * accumulation + part, world=world)
        for part in range(accumulation)
    )


def evaluation_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order; the last batch may be smaller."""
    starts = range(0, len(examples), batch_size)
    return examples.batches(
        np.arange(start, min(start + batch_size, len(examples))) for start in starts
    )

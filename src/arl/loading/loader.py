"""Batches of canvases for training and evaluation.

The batch of a step is a function of (seed, step) alone: a run restarted at any step, with any
number of ranks, sees the same global batches. Training reads whole row groups in a random order
and shuffles the rows of many row groups, so the corpus may be larger than memory by any factor.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from arl.corpus.anatomy import anatomy_index
from arl.corpus.shard_reader import Indices, RowGroupIndex
from arl.loading.row_group_cache import MEMORY, RowGroupCache

LANES = 32  # sequences that are read side by side, see `TrainingOrder`
# Rows of a lane that are shuffled together: 32 x 512 canvases of 280 x 280 pixels are 1.3 GB.
WINDOW = 512
_PREFETCHED = 3  # batches


@dataclass(frozen=True)
class Batch:
    """B images on canvases of side S."""

    image: Tensor  # uint8 (B, 1, S, S)
    extent: Tensor  # long (B, 2), valid height and width, pixels
    anatomy: Tensor  # long (B,)
    target: Tensor  # long (B,), -1: none, or float (B, K)
    mask: Tensor | None  # uint8 (B, 1, S, S) of 0 and 1
    index: Tensor  # long (B,), position in the rows of `Examples`


class Examples:
    """Manifest rows with their images, labels and anatomies."""

    def __init__(
        self,
        corpus: Path,
        rows: pd.DataFrame,
        size: int,
        *,
        targets: npt.NDArray[np.int64] | npt.NDArray[np.float32] | None = None,
        masks: bool = False,
        stretched: bool = False,
        memory: int = MEMORY,
    ) -> None:
        """Prepare the rows; nothing is read yet.

        Args:
            corpus, rows, size, masks, stretched, memory: as `RowGroupCache` takes them.
            targets: class indices (N,) or numbers (N, K) of the rows; None: all are -1.
        """
        self.canvases = RowGroupCache(
            corpus, rows, size, masks=masks, stretched=stretched, memory=memory
        )
        self.layout = self.canvases.layout
        self.anatomy = (
            rows["anatomy"]
            .map({name: anatomy_index(name) for name in set(rows["anatomy"])})
            .to_numpy(int)
        )
        self.targets = np.full(len(rows), -1) if targets is None else targets

    def __len__(self) -> int:
        return len(self.canvases)

    def take(self, index: Indices) -> Batch:
        """The batch of the rows at these positions, in their order."""
        canvases = self.canvases.take(index)
        return Batch(
            image=torch.from_numpy(canvases.images).unsqueeze(1),
            extent=torch.from_numpy(canvases.extents).long(),
            anatomy=torch.from_numpy(self.anatomy[index]),
            target=torch.from_numpy(self.targets[index]),
            mask=None if canvases.masks is None else torch.from_numpy(canvases.masks).unsqueeze(1),
            index=torch.from_numpy(index),
        )

    def batches(self, indices: Iterable[Indices]) -> Iterator[Batch]:
        """The batch of each index; a thread takes the next few batches in advance."""
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        try:
            for index in indices:
                self.canvases.prefetch(index)
                pending.append(pool.submit(self.take, index))
                if len(pending) > _PREFETCHED:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # The consumer may stop early, e.g. at an error: no thread outlives the batches.
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class TrainingOrder:
    """The examples of each batch.

    Each epoch puts the row groups in a random order and cuts the sequence of their rows into lanes
    of equal length. A global batch takes the same number of examples from each lane, lane after
    lane, so a rank reads only the lanes of its own slice. Within a lane, each window of `WINDOW`
    neighbouring rows is shuffled. The lanes start their windows at different offsets, which spreads
    the reads evenly over time. The remainder of an epoch, less than a batch, is dropped; each epoch
    drops other rows.
    """

    layout: RowGroupIndex  # of the examples
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
        # Every lane gives the same number of examples, so the lanes divide the batch.
        lanes = math.gcd(self.batch_size, LANES)
        per_lane = self.batch_size // lanes
        per_rank = self.batch_size // self.world
        lane, nth = np.divmod(np.arange(self.rank * per_rank, (self.rank + 1) * per_rank), per_lane)
        parts = [
            self._lane_examples(epoch, number, lanes, position * per_lane + nth[lane == number])
            for number in np.unique(lane).tolist()
        ]
        return np.concatenate(parts)

    def _lane_examples(self, epoch: int, lane: int, lanes: int, positions: Indices) -> Indices:
        """Examples at these positions of a lane in an epoch."""
        length = len(self.layout) // lanes
        offset = lane * WINDOW // lanes
        windows = (positions + offset) // WINDOW
        examples = np.empty_like(positions)
        for window in np.unique(windows).tolist():
            first, last = (
                max(0, window * WINDOW - offset),
                min(length, (window + 1) * WINDOW - offset),
            )
            in_window = windows == window
            order = _shuffled(last - first, self.seed, epoch, lane, window)
            sequence = _sequence(self.layout, self.seed, epoch)[
                lane * length + first : lane * length + last
            ]
            examples[in_window] = sequence[order[positions[in_window] - first]]
        return examples


@lru_cache(maxsize=2)
def _sequence(layout: RowGroupIndex, seed: int, epoch: int) -> Indices:
    """All rows, row group by row group, in the random order of an epoch."""
    groups = np.random.default_rng([seed, epoch]).permutation(len(layout.row_groups))
    first, count = layout.bounds[groups], np.diff(layout.bounds)[groups]
    # Row k of the epoch is row `within[k]` of its row group: one pass instead of a Python loop over
    # thousands of row groups.
    ends = np.cumsum(count)
    within = np.arange(len(layout)) - np.repeat(ends - count, count)
    sequence: Indices = layout.members[np.repeat(first, count) + within]
    return sequence


@lru_cache(maxsize=2 * LANES)
def _shuffled(count: int, seed: int, epoch: int, lane: int, window: int) -> Indices:
    return np.random.default_rng([seed, epoch, lane, window]).permutation(count)


class MicroBatch(NamedTuple):
    """One forward pass of one rank: a slice of the global batch of an optimiser step."""

    step: int
    rank_slice: TrainingOrder  # its rank and world are those of the slice
    batch: Batch


def training_batches(
    examples: Examples,
    order: TrainingOrder,
    start: int,
    stop: int,
    gradient_accumulation_steps: int = 1,
) -> Iterator[MicroBatch]:
    """This rank's micro-batches of the optimiser steps start, ..., stop - 1."""
    # Accumulation steps act as further ranks of the same global batch, so the examples of a step do
    # not depend on how many passes it takes.
    first, world = (
        order.rank * gradient_accumulation_steps,
        order.world * gradient_accumulation_steps,
    )
    slices = [
        replace(order, rank=first + i, world=world) for i in range(gradient_accumulation_steps)
    ]
    batches = examples.batches(
        rank_slice.indices(step) for step in range(start, stop) for rank_slice in slices
    )
    for number, batch in enumerate(batches):
        step, i = divmod(number, gradient_accumulation_steps)
        yield MicroBatch(start + step, slices[i], batch)


def evaluation_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Batches of all examples in order, each example once; the last batch may be smaller."""
    starts = range(0, len(examples), batch_size)
    return examples.batches(
        np.arange(start, min(start + batch_size, len(examples))) for start in starts
    )

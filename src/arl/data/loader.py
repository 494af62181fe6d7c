"""Batches of canvases for training and evaluation.

The batch of a step is a function of (seed, step) alone: a run restarted at any step, with any number of ranks, sees
the same global batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from arl.data.anatomy import anatomy_index
from arl.data.shards import Canvases

Indices = npt.NDArray[np.int64]


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
    """Manifest rows in memory, ready to be taken in batches."""

    def __init__(
        self, corpus: Path, rows: pd.DataFrame, size: int, *, classes: Sequence[str] = (), masks: bool = False
    ) -> None:
        """`classes` gives labels their indices; a label outside of it, or none, is -1."""
        self.canvases = Canvases(corpus, rows, size, masks=masks)
        self.anatomy = np.array([anatomy_index(name) for name in rows["anatomy"]], np.int64)
        order = {name: position for position, name in enumerate(classes)}
        self.label = np.array([order.get(label, -1) for label in rows["label"]], np.int64)

    def __len__(self) -> int:
        return len(self.canvases)

    def take(self, index: Indices) -> Batch:
        """The batch of these positions, in their order."""
        masks = self.canvases.masks
        return Batch(
            image=torch.from_numpy(self.canvases.images[index]).unsqueeze(1),
            extent=torch.from_numpy(self.canvases.extents[index]).long(),
            anatomy=torch.from_numpy(self.anatomy[index]),
            label=torch.from_numpy(self.label[index]),
            mask=None if masks is None else torch.from_numpy(masks[index]).unsqueeze(1),
            index=torch.from_numpy(index),
        )


@dataclass(frozen=True)
class TrainingOrder:
    """Which examples make the batch of a step: one permutation per (seed, epoch), the incomplete batch dropped."""

    length: int  # examples
    batch_size: int  # over all ranks
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise ValueError(f"batch size {self.batch_size} cannot be divided over {self.world} ranks")
        if self.length < self.batch_size:
            raise ValueError(f"{self.length} training images are fewer than one batch of {self.batch_size}")

    @property
    def steps_per_epoch(self) -> int:
        return self.length // self.batch_size

    def indices(self, step: int) -> Indices:
        """This rank's slice of the global batch of a step counted from the start of training."""
        epoch, position = divmod(step, self.steps_per_epoch)
        share = self.batch_size // self.world
        start = position * self.batch_size + self.rank * share
        return _permutation(self.length, self.seed, epoch)[start : start + share]


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> Indices:
    return np.random.default_rng([seed, epoch]).permutation(length)


def training_batches(examples: Examples, order: TrainingOrder, start: int, stop: int) -> Iterator[Batch]:
    """Batches of the steps start, ..., stop - 1."""
    for step in range(start, stop):
        yield examples.take(order.indices(step))


def evaluation_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order; the last batch may be smaller."""
    for start in range(0, len(examples), batch_size):
        yield examples.take(np.arange(start, min(start + batch_size, len(examples))))

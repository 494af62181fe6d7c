"""The base of all kinds of tasks."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from arl.evaluation.measure import Measure
from arl.evaluation.results import Metrics
from arl.loading.loader import Batch
from arl.models.encoder import Encoder
from arl.models.heads import TaskModel

Outputs = Iterable[tuple[Batch, Tensor]]
Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What a model states about one input.

    Attributes:
        called: the class or the value in words; None where nothing may be called.
        values: name -> number, such as the probability of each class.
        frames: the numbers of each output, one per image or one per unit.
        index: the output that an evidence map explains.
    """

    called: str | None
    values: dict[str, float]
    frames: list[dict[str, float]]
    index: int = 0


class Kind(Measure):
    """What a task predicts, how a model learns it, and how its predictions are judged."""

    word: ClassVar[str]  # `task.<name>.kind` in params.yaml
    dense: ClassVar[bool] = False  # a map of the image, learned from masks
    one_class_each: ClassVar[bool] = False  # `targets` are class indices

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The names of the outputs, for pages and cards; empty if one number has no name."""

    @property
    @abstractmethod
    def labels_in_words(self) -> str:
        """What a row needs, for errors: the label and its valid values."""

    @abstractmethod
    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The manifest rows with a valid label of the task, with their `target`."""

    @abstractmethod
    def build(self, encoder: Encoder, upernet_channels: int) -> TaskModel:
        """An encoder with the head of the task, untrained."""

    @abstractmethod
    def loss(
        self, outputs: Tensor, target: Tensor, *, label_smoothing: float, weights: Tensor | None
    ) -> dict[str, Tensor]:
        """`loss` and its terms.

        Args:
            outputs: of the network, float32.
            target: as `targets`, or masks (B, K, S, S) in {0, 1}.
            label_smoothing: of a classification with exclusive classes.
            weights: of the classes (K,); None: all are 1.
        """

    @abstractmethod
    def table(self, rows: pd.DataFrame, outputs: Outputs) -> pd.DataFrame:
        """The table of predictions of rows; batches name their rows by `index`."""

    @abstractmethod
    def answer(self, outputs: Tensor, evaluation: Metrics | None) -> Prediction:
        """The statement about one input from the network's outputs (N, ...) of its images."""

    def targets(self, rows: pd.DataFrame) -> Targets:
        """The targets of selected rows, (n,) class indices or (n, K) numbers."""
        return rows["target"].to_numpy(np.int64)

    def fit(self, network: TaskModel, targets: Targets) -> None:
        """Store in a new network what a kind learns of the training targets before training."""

    def missing(self, rows: pd.DataFrame) -> list[str]:
        """The classes without a row among selected rows."""
        return []

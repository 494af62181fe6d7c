"""The base of all kinds of tasks, as far as evaluation and the gate need it.

A measure reads tables of predictions. It names the main metric, gives its weighted statistic, and
lists the further metrics. Every main metric lies within 0..1 and is better when it is larger, so
the gate compares models of any kind with the same margins and limits.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from arl.evaluation.metrics import Floats, Ints
from arl.evaluation.results import Estimate
from arl.evaluation.statistics import Statistic

if TYPE_CHECKING:
    from arl.evaluation.summary import Summary


class Measure(ABC):
    """How the predictions of one task are judged."""

    has_probabilities: ClassVar[bool] = False  # calibrated scores of exclusive classes

    @property
    @abstractmethod
    def main(self) -> str:
        """The metric that the gate judges, a key of `metrics.TITLES`."""

    @property
    @abstractmethod
    def truth_columns(self) -> Sequence[str]:
        """The columns of a table that hold what is true; no model changes them."""

    @property
    @abstractmethod
    def output_columns(self) -> Sequence[str]:
        """The columns of a table that hold the numbers of a model."""

    @abstractmethod
    def statistic(self, table: pd.DataFrame) -> Statistic:
        """The weighted main metric of a table.

        Raises:
            ValueError: the metric is undefined on the table, e.g. a class is missing.
        """

    @abstractmethod
    def estimates(self, summary: "Summary") -> dict[str, Estimate]:
        """Name -> value and limits of every metric of a table."""

    def outputs(self, table: pd.DataFrame) -> Floats:
        """All numbers of a model (n, columns)."""
        return table[list(self.output_columns)].to_numpy(np.float64)

    def units(self, table: pd.DataFrame) -> int:
        """Independent trials behind the main metric: patients, unless a kind has fewer."""
        return int(table["patient"].nunique())

    def slice_metric(self, table: pd.DataFrame) -> str:
        """The metric of a subgroup; another than `main` where the subgroup cannot have that."""
        return self.main

    def slice_statistic(
        self, table: pd.DataFrame, metric: str, threshold: float | None
    ) -> Statistic:
        """The weighted `metric` that `slice_metric` named, with the threshold of the model."""
        return self.statistic(table)

    def fit_threshold(self, validation: pd.DataFrame) -> float | None:
        """The score from which the second of two classes is called; None for other kinds."""
        return None

    def called(self, table: pd.DataFrame, threshold: float | None) -> Ints | None:
        """The class that each row is called (n,); None for a kind without classes."""
        return None

    def confusion(self, table: pd.DataFrame, threshold: float | None) -> list[list[int]] | None:
        """Counts, truth in rows; None for a kind without classes."""
        return None

    def delong(self, table: pd.DataFrame, confidence: float) -> Estimate | None:
        """AUROC of two classes with DeLong's interval over patients; None for other kinds."""
        return None

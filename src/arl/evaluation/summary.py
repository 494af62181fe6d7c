"""From a table of predictions to the figures of a model, each with its interval over patients."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from arl.evaluation.measure import Measure
from arl.evaluation.metrics import Bools, Floats, Ints
from arl.evaluation.predictions import slice_columns
from arl.evaluation.results import Estimate, SliceMetric
from arl.evaluation.statistics import (
    Resampled,
    Statistic,
    bootstrap_interval,
    cluster_bootstrap,
    clustered_proportion,
    detectable_difference,
    unseen_loss,
)


class Summary:
    """Metrics of one model on the images of one table, with intervals of the same settings."""

    def __init__(
        self,
        table: pd.DataFrame,
        measure: Measure,
        *,
        threshold: float | None,
        resamples: int,
        confidence: float,
        seed: int,
    ) -> None:
        """`threshold`: of score_1, from validation images; None for other than two classes."""
        self.table = table
        self.measure = measure
        self.threshold = threshold
        self.resamples = resamples
        self.seed = seed
        self.confidence = confidence

    @property
    def patients(self) -> int:
        """Number of patients of the table."""
        return int(self.table["patient"].nunique())

    def metrics(self) -> dict[str, Estimate]:
        """Name -> value, low and high of every metric.

        Raises:
            ValueError: an output is not a number, or there are fewer than two patients.
        """
        return self.measure.estimates(self)

    def confusion(self) -> list[list[int]] | None:
        """Counts, truth in rows; None for a kind without classes."""
        return self.measure.confusion(self.table, self.threshold)

    def delong(self) -> Estimate | None:
        """AUROC of two classes with DeLong's interval over patients; None for other kinds."""
        return self.measure.delong(self.table, self.confidence)

    def proportion(self, right: Bools, where: Bools) -> Estimate:
        """The fraction of the rows `where` that are `right`, with an interval over patients."""
        patients = self.table.loc[where, "patient"]
        return Estimate.of(clustered_proportion(right[where], patients, self.confidence))

    def estimates(self, wanted: Mapping[str, tuple[Statistic, int]]) -> dict[str, Estimate]:
        """Name -> estimate of statistics with their numbers of independent units."""
        statistics = [statistic for statistic, _ in wanted.values()]
        drawn = cluster_bootstrap(
            statistics, self.table["patient"], resamples=self.resamples, seed=self.seed
        )
        return {
            name: self._estimate(resampled, units)
            for (name, (_, units)), resampled in zip(wanted.items(), drawn, strict=True)
        }

    def _estimate(self, resampled: Resampled, units: int) -> Estimate:
        return Estimate.of(bootstrap_interval(resampled, units, self.confidence))

    def detectable(self) -> float:
        """The smallest true distance from a fixed value that these patients show (power 80 %).

        The difference of two models on the same images is found sooner, by what their answers have
        in common.
        """
        statistic, units = (
            self.measure.statistic(self.table),
            self.measure.units(self.table),
        )
        drawn = cluster_bootstrap(
            [statistic], self.table["patient"], resamples=self.resamples, seed=self.seed
        )[0]
        return max(
            detectable_difference(drawn.error(), self.confidence),
            unseen_loss(units, 1 - self.confidence),
        )

    def slices(self) -> dict[str, dict[str, SliceMetric]]:
        """The main metric by site, probe, device and further groups."""
        return {
            origin: {
                str(name): self._slice(part) for name, part in self.table.groupby(origin, sort=True)
            }
            for origin in slice_columns(self.table)
        }

    def _slice(self, part: pd.DataFrame) -> SliceMetric:
        images, patients = len(part), int(part["patient"].nunique())
        estimate = None
        try:
            statistic = self.measure.statistic(part)
            estimate = Estimate(float(statistic(np.ones((1, len(part))))[0]))
            resampled = cluster_bootstrap(
                [statistic], part["patient"], resamples=self.resamples, seed=self.seed
            )
            estimate = self._estimate(resampled[0], self.measure.units(part))
        except ValueError as reason:
            return SliceMetric(images, patients, estimate, note=str(reason))
        return SliceMetric(images, patients, estimate)


def calibration_pairs(y: Ints, s: Floats) -> tuple[Ints, Floats]:
    """Outcome and probability of the positive class, or of the called one of several classes.

    `y` are class indices (n,), `s` class probabilities (n, k).
    """
    if s.shape[1] == 2:
        return y, s[:, 1]
    return (s.argmax(axis=1) == y).astype(np.int64), s.max(axis=1)

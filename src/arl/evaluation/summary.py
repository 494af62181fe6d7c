"""From a table of predictions to the figures of a model, each with its interval over patients."""

import numpy as np
import pandas as pd

from arl.evaluation import metrics
from arl.evaluation.metrics import Bools, Floats, Ints
from arl.evaluation.predictions import (
    independent_units,
    labels,
    main_statistic,
    scores,
    slice_columns,
)
from arl.evaluation.results import Estimate, SliceMetric
from arl.evaluation.statistics import (
    Resampled,
    Statistic,
    bootstrap_interval,
    cluster_bootstrap,
    clustered_interval,
    clustered_proportion,
    detectable_difference,
    mean_statistic,
    unseen_loss,
)


class Summary:
    """Metrics of one model on the images of one table, with intervals of the same settings."""

    def __init__(
        self,
        table: pd.DataFrame,
        main: str,
        *,
        threshold: float | None,
        resamples: int,
        confidence: float,
        seed: int,
    ) -> None:
        """`threshold`: of score_1, from validation images; None for other than two classes.

        Raises:
            ValueError: a score is not a number, a class is missing, or there are fewer than two
                patients.
        """
        self.table = table
        self.main = main
        self.threshold = threshold
        self.resamples = resamples
        self.seed = seed
        self.confidence = confidence

    def metrics(self) -> dict[str, Estimate]:
        """Name -> value, low and high of every figure."""
        if self.main != "dice":
            return self._classification()
        patients = self.table["patient"].nunique()
        return self._estimates(
            {name: (mean_statistic(self.table[name]), patients) for name in ("dice", "iou")}
        )

    def confusion(self) -> list[list[int]] | None:
        """Counts, truth in rows; None for segmentation."""
        if self.main == "dice":
            return None
        k = scores(self.table).shape[1]
        return [
            [int(n) for n in row]
            for row in metrics.confusion_matrix(labels(self.table), self._called(), k)
        ]

    def _called(self) -> Ints:
        s = scores(self.table)
        return (
            s.argmax(axis=1)
            if self.threshold is None
            else (s[:, 1] >= self.threshold).astype(np.int64)
        )

    def _classification(self) -> dict[str, Estimate]:
        y, s = labels(self.table), scores(self.table)
        right = np.asarray(self._called() == y)
        everyone = np.ones(len(y), bool)
        estimates = self._estimates(
            {
                "auroc": (
                    main_statistic(self.table, "auroc"),
                    independent_units(self.table, "auroc"),
                ),
                "brier": (
                    mean_statistic(metrics.brier_losses(y, s)),
                    self.table["patient"].nunique(),
                ),
            }
        )
        # Proportions have exact limits over patients; the bootstrap's are too short near 1.
        estimates["accuracy"] = self._proportion(right, everyone)
        if self.threshold is not None:
            estimates["sensitivity"] = self._proportion(right, y == 1)
            estimates["specificity"] = self._proportion(right, y == 0)
        else:
            # Top-3 of three classes is always 1.
            for k in [1, 3] if s.shape[1] > 3 else [1]:
                estimates[f"top{k}"] = self._proportion(metrics.top_k_hits(y, s, k), everyone)
        outcomes, probabilities = calibration_pairs(y, s)
        error = metrics.expected_calibration_error(outcomes, probabilities)
        # no interval: resampling an absolute error biases it upwards
        return {**estimates, "ece": Estimate(error)}

    def _proportion(self, right: Bools, where: Bools) -> Estimate:
        patients = self.table.loc[where, "patient"]
        return Estimate.of(clustered_proportion(right[where], patients, self.confidence))

    def delong(self) -> Estimate | None:
        """AUROC of two classes with DeLong's interval over patients; None for other tasks."""
        if self.main == "dice" or scores(self.table).shape[1] != 2:
            return None
        y, s = labels(self.table), scores(self.table)[:, 1]
        return Estimate.of(clustered_interval(y, s, self.table["patient"], self.confidence))

    def _estimates(self, wanted: dict[str, tuple[Statistic, int]]) -> dict[str, Estimate]:
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
            main_statistic(self.table, self.main),
            independent_units(self.table, self.main),
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
            statistic = main_statistic(part, self.main)
            estimate = Estimate(float(statistic(np.ones((1, len(part))))[0]))
            resampled = cluster_bootstrap(
                [statistic], part["patient"], resamples=self.resamples, seed=self.seed
            )
            estimate = self._estimate(resampled[0], independent_units(part, self.main))
        # A small slice stands in the table with its point and the reason why it has no interval.
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

"""One of several classes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from arl.evaluation import metrics
from arl.evaluation.calibration import with_temperature
from arl.evaluation.metrics import Ints
from arl.evaluation.predictions import (
    classification_table,
    independent_units,
    labels,
    scores,
)
from arl.evaluation.results import Estimate, Metrics
from arl.evaluation.statistics import (
    Statistic,
    clustered_interval,
    macro_auroc_statistic,
    mean_statistic,
)
from arl.evaluation.summary import Summary, calibration_pairs
from arl.models.encoder import Encoder
from arl.models.heads import Classifier, TaskModel
from arl.tasks.kind import Kind, Outputs, Prediction
from arl.tasks.labels import as_text, label_values

# The paper judges up to three classes by AUROC, and its cardiac views by Top-1 and Top-3.
_AUROC_CLASSES = 3


@dataclass(frozen=True)
class Classification(Kind):
    """Two or more exclusive classes.

    Attributes:
        names: the classes in the order of the logits. Of two, the first is the negative one.
        label: name of the label that holds the class; "" is the class of the main task.
    """

    word: ClassVar[str] = "classification"
    has_probabilities: ClassVar[bool] = True
    one_class_each: ClassVar[bool] = True

    names: tuple[str, ...]
    label: str = ""

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise ValueError(f"a {self.word} needs at least 2 classes, got {len(self.names)}")

    @property
    def classes(self) -> list[str]:
        return list(self.names)

    @property
    def labels_in_words(self) -> str:
        return f"label {self.label or 'of the main task'}, one of {', '.join(self.names)}"

    @property
    def main(self) -> str:
        return "auroc" if len(self.names) <= _AUROC_CLASSES else "top1"

    @property
    def truth_columns(self) -> list[str]:
        return ["label"]

    @property
    def output_columns(self) -> list[str]:
        return [f"score_{c}" for c in range(len(self.names))]

    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        text = label_values(rows, self.label).map(as_text)
        index = {name: number for number, name in enumerate(self.names)}
        chosen = text.isin(index)
        return rows[chosen].assign(target=text[chosen].map(index))

    def missing(self, rows: pd.DataFrame) -> list[str]:
        present = set(rows["target"])
        return [name for number, name in enumerate(self.names) if number not in present]

    def build(self, encoder: Encoder, upernet_channels: int) -> TaskModel:
        return Classifier(encoder, num_classes=len(self.names))

    def loss(
        self, outputs: Tensor, target: Tensor, *, label_smoothing: float, weights: Tensor | None
    ) -> dict[str, Tensor]:
        loss = F.cross_entropy(outputs, target, weight=weights, label_smoothing=label_smoothing)
        return {"loss": loss}

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Class probabilities (B, K), float64, of the network's outputs."""
        return outputs.double().softmax(dim=1)

    def table(self, rows: pd.DataFrame, outputs: Outputs) -> pd.DataFrame:
        return classification_table(rows, outputs, len(self.names))

    def answer(self, outputs: Tensor, evaluation: Metrics | None) -> Prediction:
        single = self.probabilities(outputs).numpy()
        mean = single.mean(axis=0)
        probabilities, called = mean, None
        if evaluation is not None:
            if evaluation.temperature is not None:
                probabilities = with_temperature(mean, evaluation.temperature)
            called = int(self._called(mean[None], evaluation.threshold)[0])
        values = zip(self.names, probabilities, strict=True)
        return Prediction(
            None if called is None else self.names[called],
            {name: round(float(p), 4) for name, p in values},
            [dict(zip(self.names, map(float, row.round(6)), strict=True)) for row in single],
            int(mean.argmax()) if called is None else called,
        )

    def _called(self, s: metrics.Floats, threshold: float | None) -> Ints:
        if threshold is None:
            return np.asarray(s.argmax(axis=1))
        return (s[:, 1] >= threshold).astype(np.int64)

    def called(self, table: pd.DataFrame, threshold: float | None) -> Ints:
        return self._called(scores(table), threshold)

    def confusion(self, table: pd.DataFrame, threshold: float | None) -> list[list[int]]:
        called = self.called(table, threshold)
        counts = metrics.confusion_matrix(labels(table), called, len(self.names))
        return [[int(count) for count in row] for row in counts]

    def fit_threshold(self, validation: pd.DataFrame) -> float | None:
        if len(self.names) != 2:
            return None
        return metrics.youden_threshold(labels(validation), scores(validation)[:, 1])

    def statistic(self, table: pd.DataFrame) -> Statistic:
        y, s = labels(table), scores(table)
        if self.main == "top1":
            return mean_statistic(metrics.top_k_hits(y, s, 1))
        return macro_auroc_statistic(y, s)

    def units(self, table: pd.DataFrame) -> int:
        return independent_units(table, self.main)

    def slice_metric(self, table: pd.DataFrame) -> str:
        """The main metric, or the one that a slice without all classes can be judged by."""
        present = sorted(set(labels(table)))
        if self.main != "auroc" or len(present) == len(self.names):
            return self.main
        if len(self.names) > 2:
            return "accuracy"
        return "sensitivity" if present == [1] else "specificity"

    def slice_statistic(
        self, table: pd.DataFrame, metric: str, threshold: float | None
    ) -> Statistic:
        if metric == self.main:
            return self.statistic(table)
        return mean_statistic(self.called(table, threshold) == labels(table))

    def estimates(self, summary: Summary) -> dict[str, Estimate]:
        table, y, s = summary.table, labels(summary.table), scores(summary.table)
        losses = metrics.brier_losses(y, s)
        estimates = summary.estimates(
            {
                "auroc": (macro_auroc_statistic(y, s), independent_units(table, "auroc")),
                "brier": (mean_statistic(losses), summary.patients),
            }
        )
        right = np.asarray(self.called(table, summary.threshold) == y)
        everyone = np.ones(len(y), bool)
        # Proportions have exact limits over patients; the bootstrap's are too short near 1.
        estimates["accuracy"] = summary.proportion(right, everyone)
        if summary.threshold is not None:
            estimates["sensitivity"] = summary.proportion(right, y == 1)
            estimates["specificity"] = summary.proportion(right, y == 0)
        else:
            # Top-3 of three classes is always 1.
            for k in [1, 3] if s.shape[1] > _AUROC_CLASSES else [1]:
                estimates[f"top{k}"] = summary.proportion(metrics.top_k_hits(y, s, k), everyone)
        # No interval: resampling an absolute error biases it upwards.
        error = metrics.expected_calibration_error(*calibration_pairs(y, s))
        return {**estimates, "ece": Estimate(error)}

    def delong(self, table: pd.DataFrame, confidence: float) -> Estimate | None:
        if len(self.names) != 2:
            return None
        y, s = labels(table), scores(table)[:, 1]
        return Estimate.of(clustered_interval(y, s, table["patient"], confidence))


def balanced_weights(targets: Ints, classes: int) -> Tensor:
    """Weights (K,) of classes, inversely proportional to their counts, with a mean of 1 per row.

    As scikit-learn's `compute_class_weight("balanced")`. A class without a row has the weight 0.
    """
    counts = np.bincount(targets, minlength=classes)
    present = int((counts > 0).sum())
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, len(targets) / (present * counts), 0.0)
    return torch.from_numpy(weights).float()

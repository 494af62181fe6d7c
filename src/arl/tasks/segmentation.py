"""A mask of a structure."""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from arl.evaluation.predictions import segmentation_table
from arl.evaluation.results import Estimate, Metrics
from arl.evaluation.statistics import Statistic, mean_statistic
from arl.evaluation.summary import Summary
from arl.models.encoder import Encoder
from arl.models.heads import TaskModel
from arl.models.upernet import Segmenter
from arl.tasks.kind import Kind, Outputs, Prediction
from arl.tasks.losses import dice_loss


@dataclass(frozen=True)
class Segmentation(Kind):
    """The outline of one structure.

    Attributes:
        structure: name of the mask in the manifest, e.g. "lv".
    """

    word: ClassVar[str] = "segmentation"
    dense: ClassVar[bool] = True

    structure: str

    @property
    def classes(self) -> list[str]:
        return []

    @property
    def labels_in_words(self) -> str:
        return f"mask {self.structure}"

    @property
    def main(self) -> str:
        return "dice"

    @property
    def truth_columns(self) -> list[str]:
        return []

    @property
    def output_columns(self) -> list[str]:
        return ["dice", "iou"]

    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["mask"] == self.structure].assign(target=-1)

    def build(self, encoder: Encoder, upernet_channels: int) -> TaskModel:
        return Segmenter(encoder, channels=upernet_channels)

    def loss(
        self, outputs: Tensor, target: Tensor, *, label_smoothing: float, weights: Tensor | None
    ) -> dict[str, Tensor]:
        cross_entropy = F.binary_cross_entropy_with_logits(outputs, target)
        dice = dice_loss(outputs, target)
        return {"loss": cross_entropy + dice, "cross_entropy": cross_entropy, "dice_loss": dice}

    def table(self, rows: pd.DataFrame, outputs: Outputs) -> pd.DataFrame:
        return segmentation_table(rows, outputs)

    def answer(self, outputs: Tensor, evaluation: Metrics | None) -> Prediction:
        name = self.structure
        fractions = [float(mask.double().mean()) for mask in outputs[:, 0] > 0]
        mean = round(sum(fractions) / len(fractions), 4)
        frames = [{name: round(fraction, 6)} for fraction in fractions]
        return Prediction(None, {f"share inside {name}": mean}, frames)

    def statistic(self, table: pd.DataFrame) -> Statistic:
        return mean_statistic(table["dice"])

    def estimates(self, summary: Summary) -> dict[str, Estimate]:
        return summary.estimates(
            {
                name: (mean_statistic(summary.table[name]), summary.patients)
                for name in ("dice", "iou")
            }
        )

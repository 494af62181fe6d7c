"""Tables of predictions with one row an image.

They hold what it takes to compare models and to slice by origin.

Columns `id`, `patient` (the patient, else the clip, else the image itself), `site`, `probe`,
`device`, `synthetic`; then `label` and `score_0` ... of a classification, or `dice` and `iou` of a
segmentation.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from arl.corpus.splits import groups
from arl.evaluation import metrics
from arl.evaluation.metrics import Floats, Ints
from arl.evaluation.statistics import (
    Statistic,
    disjoint_pairs,
    macro_auroc_statistic,
    mean_statistic,
)
from arl.files import atomic_file
from arl.loading.loader import Batch

ORIGINS = ("site", "probe", "device")
_UNKNOWN = "unknown"
_SCORE_DECIMALS = 6  # float32 has no more; rounding makes equal what differs by the order of a sum

Outputs = Iterable[tuple[Batch, Tensor]]


def _origin(rows: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"id": rows["id"], "patient": groups(rows)})
    for column in ORIGINS:
        table[column] = rows[column].fillna(_UNKNOWN)
    return table.assign(synthetic=rows["synthetic"].astype(bool)).reset_index(drop=True)


def classification_table(rows: pd.DataFrame, outputs: Outputs, classes: int) -> pd.DataFrame:
    """Softmax scores of every row; `outputs` are batches with logits (B, classes) in any order."""
    labels, scores = np.full(len(rows), -1), np.full((len(rows), classes), np.nan)
    for batch, logits in outputs:
        labels[batch.index.numpy()] = batch.label.numpy()
        scores[batch.index.numpy()] = logits.double().softmax(dim=1).numpy()
    return score_table(rows, labels, scores)


def score_table(rows: pd.DataFrame, labels: Ints, scores: Floats) -> pd.DataFrame:
    """The table of rows with class indices (n,) and class probabilities (n, classes)."""
    table = _origin(rows).assign(label=labels)
    return table.assign(
        **{f"score_{c}": column.round(_SCORE_DECIMALS) for c, column in enumerate(scores.T)}
    )


def segmentation_table(rows: pd.DataFrame, outputs: Outputs) -> pd.DataFrame:
    """Dice and IoU of every row; `outputs` are batches with logits (B, 1, S, S), cut at 0.5.

    Images and masks are stretched to the square, which changes no share of an area.
    """
    overlap = np.full((len(rows), 2), np.nan)
    for batch, logits in outputs:
        assert batch.mask is not None
        for index, seen, truth in zip(batch.index, logits, batch.mask, strict=True):
            if not bool(seen.isfinite().all()):
                continue  # stays nan: a mask of undefined logits would look merely empty
            predicted, mask = seen[0].numpy() > 0, truth[0].numpy() > 0
            overlap[int(index)] = metrics.dice(predicted, mask), metrics.iou(predicted, mask)
    return _origin(rows).assign(
        dice=overlap[:, 0].round(_SCORE_DECIMALS), iou=overlap[:, 1].round(_SCORE_DECIMALS)
    )


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet, atomically."""
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), partial)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not parquet, or a column is missing.
    """
    try:
        table = pq.read_table(path).to_pandas()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    wanted = ["id", "patient", *ORIGINS, "synthetic"]
    measured = ["label", "score_0", "score_1"] if "label" in table else ["dice", "iou"]
    missing = [column for column in [*wanted, *measured] if column not in table]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; a table of predictions needs it"
        )
    return pd.DataFrame(table)


def scores(table: pd.DataFrame) -> Floats:
    """The scores (n, k) of a table of classifications."""
    columns = [
        f"score_{c}" for c in range(sum(str(name).startswith("score_") for name in table.columns))
    ]
    return table[columns].to_numpy(np.float64)


def measured(table: pd.DataFrame) -> Floats:
    """All numbers that a model gave, (n, columns): the scores, or Dice and IoU."""
    return scores(table) if "label" in table else table[["dice", "iou"]].to_numpy(np.float64)


def labels(table: pd.DataFrame) -> Ints:
    """The class indices (n,) of a table of classifications."""
    return table["label"].to_numpy(np.int64)


def main_statistic(table: pd.DataFrame, main: str) -> Statistic:
    """The weighted main metric of a table: `auroc`, `top1` or `dice`.

    Raises:
        ValueError: the metric is undefined on the table, e.g. a class is missing.
    """
    if main == "dice":
        return mean_statistic(table["dice"])
    if main == "top1":
        return mean_statistic(metrics.top_k_hits(labels(table), scores(table), 1))
    return macro_auroc_statistic(labels(table), scores(table))


def independent_units(table: pd.DataFrame, main: str) -> int:
    """Independent trials: patients, or for AUROC the disjoint patient pairs of the rarest class."""
    if main != "auroc":
        return int(table["patient"].nunique())
    y = labels(table)
    return min(
        disjoint_pairs((y == c).astype(int), table["patient"])
        for c in range(scores(table).shape[1])
    )

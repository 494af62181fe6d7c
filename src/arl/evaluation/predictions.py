"""Tables of predictions with one row an image.

They hold what it takes to compare models and to slice by origin.

Columns `id`, `patient` (the patient, else the clip, else the image itself), `site`, `probe`,
`device`, those of `GROUPS` that the manifest has, `synthetic`; then `label` and `score_0` ... of a
classification, or `dice` and `iou` of a
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
from arl.evaluation.statistics import disjoint_pairs
from arl.files import atomic_file
from arl.loading.loader import Batch

ORIGINS = ("site", "probe", "device")
# Further slices, for images whose manifest has them among its labels.
GROUPS = ("anatomy", "age_group", "sex", "pathology")
_AGE_LIMITS = (18, 40, 60)  # years
_FORMAT = b"arl.predictions/2"
_UNKNOWN = "unknown"
_SCORE_DECIMALS = 6  # float32 has no more; rounding makes equal what differs by the order of a sum

Outputs = Iterable[tuple[Batch, Tensor]]


def slice_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table that divide its images into slices."""
    return [column for column in (*ORIGINS, *GROUPS) if column in table]


def _origin(rows: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"id": rows["id"], "patient": groups(rows)})
    for column in ORIGINS:
        table[column] = rows[column].fillna(_UNKNOWN)
    for column, values in _group_columns(rows).items():
        table[column] = values
    return table.assign(synthetic=rows["synthetic"].astype(bool)).reset_index(drop=True)


def _group_columns(rows: pd.DataFrame) -> dict[str, "pd.Series[str]"]:
    """The columns of `GROUPS` for which some row of the manifest has a value."""
    columns: dict[str, pd.Series[str]] = {}
    if "anatomy" in rows and rows["anatomy"].nunique() > 1:
        columns["anatomy"] = rows["anatomy"].astype(str)
    if "labels" not in rows:
        return columns
    labels_of = [
        {label["name"]: label for label in entry} if entry is not None else {}
        for entry in rows["labels"]
    ]
    for name in ("sex", "pathology", "age_group"):
        texts = [(by_name.get(name) or {}).get("text") for by_name in labels_of]
        columns[name] = pd.Series(texts, rows.index, dtype=object)
    ages = [(by_name.get("age") or {}).get("number") for by_name in labels_of]
    # A stated group is kept as it is: its limits are the sender's and need not be ours.
    if columns["age_group"].isna().all():
        columns["age_group"] = pd.Series(
            [_age_group(age) for age in ages], rows.index, dtype=object
        )
    return {
        name: values.fillna(_UNKNOWN) for name, values in columns.items() if values.notna().any()
    }


def _age_group(age: float | None) -> str | None:
    """A group of ages in years, as the gate reports them."""
    if age is None or not np.isfinite(age):
        return None
    # Right: whoever is 18 belongs to the adults.
    index = int(np.searchsorted(_AGE_LIMITS, age, "right"))
    edges = ["0", *map(str, _AGE_LIMITS)]
    return f"{edges[index]}+" if index == len(_AGE_LIMITS) else f"{edges[index]}-{edges[index + 1]}"


def classification_table(rows: pd.DataFrame, outputs: Outputs, classes: int) -> pd.DataFrame:
    """Softmax scores of every row; `outputs` are batches with logits (B, classes) in any order."""
    labels, scores = np.full(len(rows), -1), np.full((len(rows), classes), np.nan)
    for batch, logits in outputs:
        labels[batch.index.numpy()] = batch.target.numpy()
        # In double precision: a softmax in float32 gives sums that differ from 1 in the sixth
        # decimal.
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
    content = pa.Table.from_pandas(table, preserve_index=False)
    # The format stands in the file's schema, so that a table of an older version is refused by
    # name.
    content = content.replace_schema_metadata({**content.schema.metadata, b"format": _FORMAT})
    with atomic_file(path) as partial:
        pq.write_table(content, partial)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not parquet, or a column is missing.
    """
    try:
        content = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    written = (content.schema.metadata or {}).get(b"format", b"none")
    if written != _FORMAT:
        raise ValueError(
            f"{path} has format {written.decode()}, expected {_FORMAT.decode()}: evaluate again"
        )
    table = content.to_pandas()
    required = ["id", "patient", *ORIGINS, "synthetic"]
    outputs = ["label", "score_0", "score_1"] if "label" in table else ["dice", "iou"]
    missing = [column for column in [*required, *outputs] if column not in table]
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


def labels(table: pd.DataFrame) -> Ints:
    """The class indices (n,) of a table of classifications."""
    return table["label"].to_numpy(np.int64)


def independent_units(table: pd.DataFrame, main: str) -> int:
    """Independent trials: patients, or for AUROC the disjoint patient pairs of the rarest class."""
    if main != "auroc":
        return int(table["patient"].nunique())
    y = labels(table)
    return min(
        disjoint_pairs((y == c).astype(int), table["patient"])
        for c in range(scores(table).shape[1])
    )

"""Compute a sample of stored predictions again."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from arl.evaluation.predictions import read_predictions
from arl.params import Params
from arl.stages._scoring import score
from arl.tasks.make import make_kind

SAMPLE = 16  # test images whose predictions the gate computes again
TOLERANCE = 2e-3  # of a score: another CPU rounds differently


def check_predictions(
    params: Params, task: str, corpus: Path, rows: pd.DataFrame, model: Path, evaluation: Path
) -> None:
    """Compute the predictions of a sample of test images again and compare.

    Raises:
        ValueError: the stored predictions are not those of the model with the organ as its input.
    """
    stored = read_predictions(evaluation / "predictions.parquet")
    count = min(SAMPLE, len(rows))
    sample = rows.sample(count, random_state=int.from_bytes(os.urandom(4), "big"))
    fresh = score(model, corpus, sample, params.task[task]).set_index("id")
    kind = make_kind(params.task[task])
    columns = [*kind.truth_columns, *kind.output_columns]
    kept = stored.set_index("id").reindex(fresh.index)
    if kept[columns].isna().any(axis=None):
        raise ValueError(f"{evaluation} lacks predictions of test images: evaluate again")
    difference = np.abs(kept[columns].to_numpy(float) - fresh[columns].to_numpy(float)).max()
    if difference > TOLERANCE:
        raise ValueError(
            f"the predictions in {evaluation} are not those of {model}: they differ by "
            f"{difference:.3f} on a sample of {count} test images. Evaluate again"
        )

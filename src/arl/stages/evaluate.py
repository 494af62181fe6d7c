"""Measure a fine-tuned model on the test images of its task."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from arl.corpus.location import ReadableCorpus
from arl.corpus.splits import grouping
from arl.evaluation.calibration import fit_temperature, with_temperature
from arl.evaluation.metrics import (
    brier_losses,
    expected_calibration_error,
    main_metric,
    rounded,
    youden_threshold,
)
from arl.evaluation.predictions import labels, scores, write_predictions
from arl.evaluation.summary import Summary, calibration_pairs
from arl.files import atomic_directory, tree_hash, write_json
from arl.params import Params
from arl.stages._scoring import rows_of_task, score


def evaluate(
    params: Params, *, task: str, corpus: ReadableCorpus, model: Path, evaluation: Path
) -> None:
    """Measure a fine-tuned model on the test images of its task.

    Reads the corpus and the model folder. Writes a folder with metrics.json (figures with intervals
    over patients, rounded; slices by site, probe and device) and predictions.parquet (one row a
    test image). A threshold and a temperature come from the validation images only.

    Raises:
        ValueError: the corpus cannot serve the task, the model is of another task, or a prediction
            is not a number.
    """
    torch.set_num_threads(params.pretrain.threads)
    rows = rows_of_task(params, task, corpus)
    settings = params.task[task]
    told = params.evaluate.anatomy
    tables = {
        split: score(
            model, corpus, rows[rows["split"] == split], settings, anatomy=told, seed=params.seed
        )
        for split in ("val", "test")
    }
    main = main_metric(settings.kind, len(settings.classes))
    threshold = _threshold(tables["val"]) if main != "dice" and len(settings.classes) == 2 else None
    summary = Summary(
        tables["test"],
        main,
        threshold=threshold,
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
        seed=params.seed,
    )
    try:
        found = _found(summary, rows[rows["split"] == "test"])
    except ValueError as error:
        raise ValueError(f"task {task}, model {model}: {error}") from error
    about = {
        "task": task,
        "kind": settings.kind,
        "classes": settings.classes,
        "model": tree_hash(model),
    }
    with atomic_directory(evaluation) as folder:
        # a threshold is half-way between two scores, and rounding it could move an image across
        exact = {"threshold": threshold, **_temperature(tables, main)}
        write_json(folder / "metrics.json", {**about, **rounded(found), **exact})
        write_predictions(tables["test"], folder / "predictions.parquet")


def _threshold(validation: pd.DataFrame) -> float:
    return youden_threshold(labels(validation), scores(validation)[:, 1])


def _temperature(tables: dict[str, pd.DataFrame], main: str) -> dict[str, Any]:
    """The temperature that validation images give, and the calibration of the test images with it; None for masks."""
    if main == "dice":
        return {"temperature": None, "calibrated": None}
    test = tables["test"]
    temperature = fit_temperature(labels(tables["val"]), scores(tables["val"]))
    s = with_temperature(scores(test), temperature)
    error = expected_calibration_error(*calibration_pairs(labels(test), s))
    found = {"ece": error, "brier": float(brier_losses(labels(test), s).mean())}
    return {"temperature": temperature, "calibrated": rounded(found)}


def _found(summary: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    table = summary.table
    return {
        "n": len(table),
        "patients": int(table["patient"].nunique()),
        "grouping": grouping(
            rows
        ),  # what `patients` counts: a source without patients has clips or images
        "synthetic": bool(table["synthetic"].any()),
        "main": summary.main,
        "confidence": summary.confidence,
        "metrics": summary.metrics(),
        "delong": summary.delong(),
        "detectable": summary.detectable(),
        "confusion": summary.confusion(),
        "slices": summary.slices(),
    }

"""Measure a fine-tuned model on the test images of its task."""

from pathlib import Path

import pandas as pd
import torch

from arl import console
from arl.corpus.location import ReadableCorpus
from arl.corpus.splits import grouping
from arl.evaluation.calibration import at_limit, fit_temperature, with_temperature
from arl.evaluation.metrics import brier_losses, expected_calibration_error
from arl.evaluation.predictions import labels, scores, write_predictions
from arl.evaluation.results import Calibration, Metrics
from arl.evaluation.summary import Summary, calibration_pairs
from arl.files import atomic_directory, tree_hash
from arl.params import Params
from arl.stages._scoring import rows_of_task, score
from arl.tasks.kind import Kind
from arl.tasks.make import make_kind


def evaluate(
    params: Params, *, task: str, corpus: ReadableCorpus, model: Path, evaluation: Path
) -> None:
    """Evaluate a task model on the test images of its task.

    Writes metrics.json (metrics with intervals over patients, and subgroups by site, probe and
    device)
    and predictions.parquet (one row per test image). Threshold and temperature come from the
    validation images only.

    Args:
        task: A task of params.yaml.
        corpus: Folder of the corpus, or s3://bucket/prefix.
        model: Folder of the task model.
        evaluation: Folder of the results.

    Raises:
        ValueError: the corpus cannot serve the task, the model is of another task, or a prediction
            is not a number.

    Writes:
        evaluation

    Next:
        arl gate --corpus {corpus} --models {model} --evaluations {evaluation}
            --registry registry --decision out/decision

    Examples:
        arl evaluate --task breast --corpus data --model out/finetune/breast
            --evaluation out/evaluate/breast
    """
    # Another number of threads sums in another order and changes the last bits of a score.
    torch.set_num_threads(params.pretrain.threads)
    rows = rows_of_task(params, task, corpus)
    settings = params.task[task]
    anatomy = params.evaluate.anatomy
    tables = {
        split: score(
            model, corpus, rows[rows["split"] == split], settings, anatomy=anatomy, seed=params.seed
        )
        for split in ("val", "test")
    }
    kind = make_kind(settings)
    # A threshold from the test images would flatter sensitivity and specificity.
    threshold = kind.fit_threshold(tables["val"])
    summary = Summary(
        tables["test"],
        kind,
        threshold=threshold,
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
        seed=params.seed,
    )
    test_rows = rows[rows["split"] == "test"]
    try:
        temperature, calibrated = _temperature(tables, kind)
        metrics = Metrics(
            task=task,
            kind=kind.word,
            classes=kind.classes,
            model_hash=tree_hash(model),
            images=len(test_rows),
            patients=int(tables["test"]["patient"].nunique()),
            grouping=grouping(test_rows),
            synthetic=bool(tables["test"]["synthetic"].any()),
            main_metric=kind.main,
            confidence=summary.confidence,
            metrics=summary.metrics(),
            delong=summary.delong(),
            detectable_difference=summary.detectable(),
            confusion=summary.confusion(),
            slices=summary.slices(),
            threshold=threshold,
            temperature=temperature,
            calibrated=calibrated,
            temperature_at_limit=temperature is not None and at_limit(temperature),
        )
    except ValueError as error:
        raise ValueError(f"task {task}, model {model}: {error}") from error
    # Metrics and predictions appear together, so the gate never reads half an evaluation.
    with atomic_directory(evaluation) as folder:
        metrics.write(folder / Metrics.FILE)
        write_predictions(tables["test"], folder / "predictions.parquet")
    estimate = metrics.main
    limits = "" if estimate.low is None else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    console.info(
        f"{task}: {kind.main} {estimate.value:.3f}{limits} on {metrics.images:,} test images of "
        f"{metrics.patients:,} patients."
    )


def _temperature(
    tables: dict[str, pd.DataFrame], kind: Kind
) -> tuple[float | None, Calibration | None]:
    """The temperature of the validation images and the calibration of the test images with it."""
    if not kind.has_probabilities:
        return None, None
    test = tables["test"]
    # Fitted where no metric is reported, for the same reason as the threshold.
    temperature = fit_temperature(labels(tables["val"]), scores(tables["val"]))
    probabilities = with_temperature(scores(test), temperature)
    ece = expected_calibration_error(*calibration_pairs(labels(test), probabilities))
    brier = float(brier_losses(labels(test), probabilities).mean())
    return temperature, Calibration(ece, brier)

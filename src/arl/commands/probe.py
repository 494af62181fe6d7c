"""Measure what the frozen encoder's features know of a classification task."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import subset
from arl.corpus.splits import grouping, groups
from arl.evaluation.metrics import Floats, youden_threshold
from arl.evaluation.predictions import score_table, write_predictions
from arl.evaluation.probe import Part, Probed, knn_scores, linear_probe, sgd_probe
from arl.evaluation.results import Estimate, ProbeMetrics
from arl.evaluation.summary import Summary
from arl.files import tree_hash
from arl.loading.loader import Examples, evaluation_batches
from arl.models.heads import Pooled
from arl.params import Params
from arl.stages._scoring import rows_of_task
from arl.training.checkpoint import load_encoder
from arl.training.engine import predict

_BATCH = 64


def probe(
    params: Params,
    *,
    task: str,
    corpus: ReadableCorpus,
    checkpoint: Path,
    metrics: Path,
    predictions: Path | None = None,
) -> None:
    """Measure what the frozen encoder's features know of a classification task.

    Reads the corpus and the encoder's checkpoint folder; writes AUROC, Top-1 and calibration on the
    test images, with intervals over patients, of a linear probe (its penalty or learning rate
    chosen on the validation images) and of weighted nearest neighbours; and the linear probe's
    predictions as a table. Nothing of the encoder is trained.

    Raises:
        ValueError: the corpus cannot serve the task, or the task is no classification.
    """
    torch.set_num_threads(params.pretrain.threads)
    rows = rows_of_task(params, task, corpus)
    settings = params.task[task]
    if settings.kind != "classification":
        raise ValueError(f"task {task!r} is no classification: a probe needs classes")
    encoder, config = load_encoder(checkpoint)
    parts = {
        split: rows[rows["split"] == split].reset_index(drop=True)
        for split in ("train", "val", "test")
    }
    parts["train"] = subset(parts["train"], params.probe.fraction, params.seed)
    known = {
        split: _features(Pooled(encoder, params.probe.pooling), corpus, part, config.size)
        for split, part in parts.items()
    }
    linear = _linear(params, known)
    neighbours = knn_scores(known["train"], known["test"].features, params.probe.neighbours)
    result = ProbeMetrics(
        task=task,
        classes=settings.classes,
        encoder_hash=tree_hash(checkpoint),
        pooling=params.probe.pooling,
        images=len(parts["test"]),
        patients=int(groups(parts["test"]).nunique()),
        grouping=grouping(parts["test"]),
        synthetic=bool(parts["test"]["synthetic"].any()),
        fraction=params.probe.fraction,
        solver=params.probe.solver,
        batch_norm=params.probe.batch_norm,
        strength=linear.strength,
        linear=_measured(params, parts["test"], known["test"], linear.scores),
        knn=_measured(params, parts["test"], known["test"], neighbours),
        threshold=_threshold(known["val"], linear),
    )
    if predictions is not None:
        write_predictions(
            score_table(parts["test"], known["test"].labels, linear.scores), predictions
        )
    result.write(metrics)


def _threshold(val: Part, linear: Probed) -> float | None:
    return (
        youden_threshold(val.labels, linear.validation[:, 1])
        if linear.validation.shape[1] == 2
        else None
    )


def _linear(params: Params, known: dict[str, Part]) -> Probed:
    train, val, test = known["train"], known["val"], known["test"]
    if params.probe.solver == "logistic":
        return linear_probe(train, val, test, batch_norm=params.probe.batch_norm)
    if params.probe.solver == "sgd":
        return sgd_probe(train, val, test, batch_norm=params.probe.batch_norm, seed=params.seed)
    raise ValueError(f"probe.solver {params.probe.solver!r} is neither logistic nor sgd")


def _features(model: Pooled, corpus: Path, rows: pd.DataFrame, size: int) -> Part:
    examples = Examples(corpus, rows, size, stretched=True)
    outputs = predict(model, evaluation_batches(examples, _BATCH), size=size)
    features = torch.cat([pooled for _, pooled in outputs]).double().numpy()
    return Part(features, rows["target"].to_numpy(np.int64))


def _measured(
    params: Params, rows: pd.DataFrame, test: Part, scores: Floats
) -> dict[str, Estimate]:
    summary = Summary(
        score_table(rows, test.labels, scores),
        "auroc",
        threshold=None,
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
        seed=params.seed,
    )
    return summary.metrics()

"""The linear probe and k-NN of a frozen encoder on one task of a corpus."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from arl.corpus.selection import subset
from arl.corpus.splits import grouping, groups
from arl.evaluation.metrics import Floats, youden_threshold
from arl.evaluation.predictions import score_table
from arl.evaluation.probe import Part, ProbeScores, knn_scores, linear_probe, sgd_probe
from arl.evaluation.results import Estimate, ProbeMetrics
from arl.evaluation.summary import Summary
from arl.files import tree_hash
from arl.loading.loader import Examples, evaluation_batches
from arl.loading.transforms import TrainView
from arl.models.heads import Pooled
from arl.params import Params
from arl.stages._scoring import rows_of_task
from arl.tasks.kind import Kind
from arl.tasks.make import make_kind
from arl.training.checkpoint import load_encoder
from arl.training.engine import predict

_BATCH = 64


def probe_encoder(
    params: Params, task: str, corpus: Path, checkpoint: Path
) -> tuple[ProbeMetrics, pd.DataFrame]:
    """The metrics on the test images, and the predictions of the linear probe.

    The validation images choose the penalty, the learning rate and the threshold.

    Raises:
        ValueError: the corpus cannot serve the task, or the task is no classification.
    """
    torch.set_num_threads(params.pretrain.threads)
    rows = rows_of_task(params, task, corpus)
    settings = params.task[task]
    kind = make_kind(settings)
    if not kind.one_class_each:
        raise ValueError(f"task {task!r} is no classification: a probe needs classes")
    splits = {
        split: rows[rows["split"] == split].reset_index(drop=True)
        for split in ("train", "val", "test")
    }
    splits["train"] = subset(splits["train"], params.probe.fraction, params.seed)
    encoder, config = load_encoder(checkpoint)
    config.check_size(params.data.size, checkpoint)
    model = Pooled(encoder, params.probe.pooling)
    parts = {split: _features(model, corpus, part, config.size) for split, part in splits.items()}
    test_rows, test = splits["test"], parts["test"]
    views = None
    if params.probe.solver == "sgd" and params.probe.augmented_views:
        views = _augmented_views(params, model, corpus, splits["train"], config.size)
    linear = _fit(params, parts, views)
    neighbours = knn_scores(parts["train"], test.features, params.probe.neighbours)
    metrics = ProbeMetrics(
        task=task,
        classes=kind.classes,
        encoder_hash=tree_hash(checkpoint),
        pooling=params.probe.pooling,
        images=len(test_rows),
        patients=int(groups(test_rows).nunique()),
        grouping=grouping(test_rows),
        synthetic=bool(test_rows["synthetic"].any()),
        fraction=params.probe.fraction,
        solver=params.probe.solver,
        batch_norm=params.probe.batch_norm,
        strength=linear.strength,
        linear=_metrics(params, kind, test_rows, test, linear.scores),
        knn=_metrics(params, kind, test_rows, test, neighbours),
        threshold=_threshold(parts["val"], linear),
    )
    return metrics, score_table(test_rows, test.labels, linear.scores)


def _threshold(val: Part, linear: ProbeScores) -> float | None:
    if linear.validation.shape[1] != 2:
        return None
    return youden_threshold(val.labels, linear.validation[:, 1])


def _fit(params: Params, parts: dict[str, Part], views: Floats | None) -> ProbeScores:
    train, val, test = parts["train"], parts["val"], parts["test"]
    if params.probe.solver == "logistic":
        return linear_probe(train, val, test, batch_norm=params.probe.batch_norm)
    if params.probe.solver == "sgd":
        return sgd_probe(
            train, val, test, batch_norm=params.probe.batch_norm, seed=params.seed, views=views
        )
    raise ValueError(f"probe.solver {params.probe.solver!r} is neither logistic nor sgd")


def _features(model: Pooled, corpus: Path, rows: pd.DataFrame, size: int) -> Part:
    examples = Examples(corpus, rows, size, stretched=True)
    outputs = predict(model, evaluation_batches(examples, _BATCH), size=size)
    features = torch.cat([pooled for _, pooled in outputs]).double().numpy()
    return Part(features, rows["target"].to_numpy(np.int64))


@torch.inference_mode()
def _augmented_views(
    params: Params, model: Pooled, corpus: Path, rows: pd.DataFrame, size: int
) -> Floats:
    """Features (V, n, d) of random crops and flips of the training images (appendix B)."""
    # Crops need stored pixels beyond the input size, as in fine-tuning.
    examples = Examples(corpus, rows, size + size // 4)
    view = TrainView(size, seed=params.seed)
    model.eval()
    # The views of a batch at different steps have different draws.
    views = [
        [
            model(view(batch, step).image, batch.anatomy)
            for step in range(params.probe.augmented_views)
        ]
        for batch in evaluation_batches(examples, _BATCH)
    ]
    stacked = [torch.cat(column).double().numpy() for column in zip(*views, strict=True)]
    return np.stack(stacked)


def _metrics(
    params: Params, kind: Kind, rows: pd.DataFrame, test: Part, scores: Floats
) -> dict[str, Estimate]:
    summary = Summary(
        score_table(rows, test.labels, scores),
        kind,
        threshold=None,
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
        seed=params.seed,
    )
    return summary.metrics()

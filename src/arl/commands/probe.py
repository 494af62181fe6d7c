"""Measure what the frozen encoder's features know of a classification task."""

from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.evaluation.predictions import write_predictions
from arl.experiments.probing import probe_encoder
from arl.params import Params


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
    measured, table = probe_encoder(params, task, corpus, checkpoint)
    if predictions is not None:
        write_predictions(table, predictions)
    measured.write(metrics)

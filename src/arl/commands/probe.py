"""Measure the features of a frozen encoder."""

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
    """Measure the frozen features of an encoder on a classification task.

    Trains a linear probe, whose penalty or learning rate the validation images choose, and a
    weighted
    k-NN classifier. Writes AUROC, top-1 accuracy and calibration on the test images, with intervals
    over patients. The encoder is not trained.

    Args:
        task: A classification task of params.yaml.
        corpus: Folder of the corpus, or s3://bucket/prefix.
        checkpoint: Folder of the encoder.
        metrics: The JSON file of the metrics.
        predictions: The parquet table of the linear probe's predictions.

    Raises:
        ValueError: the corpus cannot serve the task, or the task is no classification.

    Writes:
        metrics, predictions

    Next:
        arl finetune --task {task} --corpus {corpus} --checkpoint {checkpoint}
            --model out/finetune/{task}

    Examples:
        arl probe --task breast --corpus data --checkpoint out/pretrain --metrics out/probe.json
    """
    measured, table = probe_encoder(params, task, corpus, checkpoint)
    # The table is for comparisons of encoders on the same patients.
    if predictions is not None:
        write_predictions(table, predictions)
    measured.write(metrics)

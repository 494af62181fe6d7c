"""One way to score a task's images, for a new model and for the one in use."""

from pathlib import Path

import pandas as pd

from arl.data.loader import Examples, evaluation_batches
from arl.data.selection import task_rows
from arl.evaluation.predictions import classification_table, segmentation_table
from arl.params import Params, Task
from arl.training.checkpoint import load_task_model
from arl.training.engine import predict

_BATCH = 64  # images at a time


def rows_of_task(params: Params, task: str, corpus: Path) -> pd.DataFrame:
    """The task's rows of the corpus with their `split`.

    Raises:
        ValueError: the task is unknown, or the corpus cannot serve it; see `task_rows`.
    """
    if task not in params.task:
        raise ValueError(f"unknown task {task!r}: params.yaml defines {', '.join(sorted(params.task))}")
    settings = params.task[task]
    return task_rows(
        corpus,
        kind=settings.kind,
        sources=settings.sources,
        anatomy=settings.anatomy,
        classes=settings.classes,
        mask=settings.mask,
        protocols=params.data.splits,
    )


def score(model: Path, corpus: Path, rows: pd.DataFrame, settings: Task) -> pd.DataFrame:
    """Predictions of a stored model on these rows; see `evaluation.predictions`.

    Raises:
        ValueError: the model was made for another kind of task, or for other classes.
    """
    network, config = load_task_model(model)
    made_for = (config["task"]["kind"], config["task"]["classes"])
    if made_for != (settings.kind, settings.classes):
        raise ValueError(f"{model} was made for {made_for}, the task is {(settings.kind, settings.classes)}")
    rows = rows.reset_index(drop=True)
    segmentation = settings.kind == "segmentation"
    examples = Examples(corpus, rows, config["size"], classes=settings.classes, masks=segmentation)
    outputs = predict(network, evaluation_batches(examples, _BATCH), size=config["size"])
    if segmentation:
        return segmentation_table(rows, outputs)
    return classification_table(rows, outputs, len(settings.classes))

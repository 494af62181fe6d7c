"""One way to score a task's images, for a new model and for the one in use."""

from pathlib import Path

import numpy as np
import pandas as pd

from arl.corpus.anatomy import NULL_ANATOMY
from arl.corpus.selection import task_rows
from arl.corpus.testsets import read_test_set
from arl.evaluation.input_check import InputCheck, appearances, pooled_tokens
from arl.evaluation.metrics import Floats, Ints
from arl.loading.loader import Examples, evaluation_batches
from arl.loading.transforms import eval_view
from arl.models.encoder import Encoder
from arl.params import Params
from arl.settings import Task
from arl.tasks.make import make_kind
from arl.training.engine import predict
from arl.training.task_models import load_task_model

_BATCH = 64  # images at a time


def rows_of_task(params: Params, task: str, corpus: Path) -> pd.DataFrame:
    """The task's rows of the corpus with their `split`.

    Raises:
        ValueError: the task is unknown, or the corpus cannot serve it; see `task_rows`.
    """
    if task not in params.task:
        raise ValueError(
            f"unknown task {task!r}: params.yaml defines {', '.join(sorted(params.task))}"
        )
    settings = params.task[task]
    kind = make_kind(settings)
    return task_rows(
        corpus,
        sources=settings.sources,
        anatomy=settings.anatomy,
        choose=kind.select,
        description=kind.labels_in_words,
        protocols=params.data.splits,
        test_set=read_test_set(corpus, task),
        contradictory=params.data.contradictory,
    )


def score(
    model: Path,
    corpus: Path,
    rows: pd.DataFrame,
    settings: Task,
    *,
    anatomy: str = "given",
    seed: int = 0,
) -> pd.DataFrame:
    """Predictions of a stored model on these rows; see `evaluation.predictions`.

    Args:
        anatomy: what the model is told of each image: what is "given", "none", or "shuffled": any
            other anatomy.

    Raises:
        ValueError: the model was made for another kind of task, or for other classes; or an unknown
            `anatomy`.
    """
    network, config = load_task_model(model)
    kind = make_kind(settings)
    if make_kind(config.task) != kind:
        raise ValueError(
            f"{model} was made for another task: it needs {make_kind(config.task).labels_in_words},"
            f" the task has {kind.labels_in_words}"
        )
    rows = rows.reset_index(drop=True)
    examples = Examples(
        corpus,
        rows,
        config.size,
        targets=kind.targets(rows),
        masks=kind.dense,
        stretched=True,
    )
    # What the model is told may differ from the rows, whose anatomy stays that of the image.
    examples.anatomy = _anatomy_input(examples.anatomy, anatomy, seed)
    return kind.table(
        rows, predict(network, evaluation_batches(examples, _BATCH), size=config.size)
    )


def fit_input_check(
    encoder: Encoder, corpus: Path, training: pd.DataFrame, validation: pd.DataFrame, size: int
) -> InputCheck:
    """Fit the check of inputs to a task's training images; its validation images set the limits."""
    usual = _check_vectors(encoder, corpus, training, size)
    return InputCheck.fit(usual, _check_vectors(encoder, corpus, validation, size))


def _check_vectors(
    encoder: Encoder, corpus: Path, rows: pd.DataFrame, size: int
) -> tuple[Floats, Floats]:
    """Appearances and pooled tokens of the images of these rows."""
    encoder.eval()
    examples = Examples(corpus, rows.reset_index(drop=True), size, stretched=True)
    looks, tokens = [], []
    for batch in evaluation_batches(examples, _BATCH):
        looks.append(appearances(batch.image[:, 0].numpy()))
        tokens.append(pooled_tokens(encoder, eval_view(batch, size).image, batch.anatomy))
    return np.concatenate(looks), np.concatenate(tokens)


def _anatomy_input(truth: Ints, what: str, seed: int) -> Ints:
    """Anatomy indices (n,) for an audit of the conditioning."""
    if what == "given":
        return truth
    if what == "none":
        return np.full_like(truth, NULL_ANATOMY)
    if what == "shuffled":
        # A shift of 1..15 of 16 never returns the true anatomy.
        shift = np.random.default_rng(seed).integers(1, NULL_ANATOMY, len(truth))
        return (truth + shift) % NULL_ANATOMY
    raise ValueError(f"evaluate.anatomy {what!r} is not given, none or shuffled")

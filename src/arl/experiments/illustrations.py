"""The pictures and tables that an experiment file lists under `illustrations`."""

import pandas as pd
import torch

from arl.corpus.selection import select
from arl.evaluation.panels import Section
from arl.experiments import pictures
from arl.experiments.runner import Runner
from arl.experiments.spec import Experiment
from arl.models.avit import AViT
from arl.params import Params
from arl.training.checkpoint import load_encoder
from arl.training.reconstruction import load_reconstructor

_REPEATS = 7  # of a latency


def illustrate(experiment: Experiment, scale: str, runner: Runner) -> list[Section]:
    """The sections that `experiment.illustrations` names, of the first replicate.

    Raises:
        ValueError: the corpus has no test images, or a row's encoder was pretrained without a
            decoder.
    """
    if not experiment.illustrations:
        return []
    params = runner.params_of(experiment, scale, None, 0)
    torch.set_num_threads(params.pretrain.threads)
    rows = select(runner.corpus, sources=params.data.sources, protocols=params.data.splits)
    return [
        section
        for name in experiment.illustrations
        for section in _illustrate(name, experiment, scale, runner, params, rows)
    ]


def _illustrate(
    name: str,
    experiment: Experiment,
    scale: str,
    runner: Runner,
    params: Params,
    rows: pd.DataFrame,
) -> list[Section]:
    if name == "cost":
        return [pictures.cost(_REPEATS)]
    if name == "corpus":
        return [pictures.corpus_by_anatomy(rows)]
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    # Training images would flatter the reconstructions.
    if test.empty:
        raise ValueError(f"corpus {runner.corpus} has no test images: there is nothing to show")
    encoders = {
        row.label: runner.encoder(runner.params_of(experiment, scale, row, 0), row)
        for row in experiment.rows
    }
    # A published encoder whose weights are missing is left out of the pictures.
    folders = {label: folder for label, folder in encoders.items() if folder is not None}
    size = params.data.size
    if name == "reconstructions":
        models = {label: load_reconstructor(folder)[0] for label, folder in folders.items()}
        return [pictures.reconstructions(models, runner.corpus, test, size, params.seed)]
    chosen = pictures.some(test, pictures.EACH, params.seed)
    networks = {label: load_encoder(folder)[0] for label, folder in folders.items()}
    if name == "components":
        return [pictures.components(networks, runner.corpus, chosen, size)]
    if name == "planes":
        return [pictures.planes(networks, runner.corpus, chosen, size, params.seed)]
    return [
        pictures.offsets(network, runner.corpus, chosen, size)
        for network in networks.values()
        if isinstance(network, AViT) and pictures.has_offsets(network)
    ]

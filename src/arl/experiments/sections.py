"""The pictures that an experiment file asks for, of the encoders of its rows."""

import pandas as pd
import torch

from arl.corpus.selection import select
from arl.evaluation.panels import Section
from arl.experiments import pictures as _pictures
from arl.experiments.runner import Runner
from arl.experiments.spec import Experiment
from arl.models.avit import AViT
from arl.params import Params
from arl.training.checkpoint import load_encoder
from arl.training.reconstruction import load_reconstructor

_REPEATS = 7  # of a latency


def shown(found: Experiment, scale: str, runner: Runner) -> list[Section]:
    """What `found.shows` names, in its order, by the first replicate.

    Raises:
        ValueError: the corpus has no test images, or a row's encoder was pretrained without a
            decoder.
    """
    if not found.shows:
        return []
    params = runner.params_of(found, scale, None, 0)
    torch.set_num_threads(params.pretrain.threads)
    rows = select(runner.corpus, sources=params.data.sources, protocols=params.data.splits)
    return [one for name in found.shows for one in _one(name, found, scale, runner, params, rows)]


def _one(
    name: str, found: Experiment, scale: str, runner: Runner, params: Params, rows: pd.DataFrame
) -> list[Section]:
    if name == "cost":
        return [_pictures.cost(_REPEATS)]
    if name == "corpus":
        return [_pictures.corpus_by_anatomy(rows)]
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise ValueError(f"corpus {runner.corpus} has no test images: there is nothing to show")
    folders = {
        row.label: runner.encoder(runner.params_of(found, scale, row, 0), row) for row in found.rows
    }
    there = {label: folder for label, folder in folders.items() if folder is not None}
    size = params.data.size
    if name == "reconstructions":
        models = {label: load_reconstructor(folder)[0] for label, folder in there.items()}
        return [_pictures.reconstructions(models, runner.corpus, test, size, params.seed)]
    chosen = _pictures.some(test, _pictures.EACH, params.seed)
    networks = {label: load_encoder(folder)[0] for label, folder in there.items()}
    if name == "components":
        return [_pictures.components(networks, runner.corpus, chosen, size)]
    if name == "planes":
        return [_pictures.planes(networks, runner.corpus, chosen, size, params.seed)]
    return [
        _pictures.offsets(network, runner.corpus, chosen, size)
        for network in networks.values()
        if isinstance(network, AViT) and _pictures.has_offsets(network)
    ]

"""Pretrain the anatomy-aware encoder (section 3)."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from arl.corpus.anatomy import NULL_ANATOMY
from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import select, subset
from arl.corpus.shard_reader import Indices, RowGroupIndex
from arl.corpus.splits import groups
from arl.evaluation.probe import NEIGHBOURS, knn_accuracy
from arl.files import write_json
from arl.loading.augment import step_generator
from arl.loading.loader import Examples, TrainingOrder, training_batches
from arl.loading.transforms import MultiCrop
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.models.heads import Pooled
from arl.models.reconstructor import Reconstructor
from arl.objectives.collapse_metrics import rankme
from arl.params import Params
from arl.stages._training import runs, state_folder
from arl.training import distributed, engine, optim
from arl.training.engine import predict
from arl.training.pretrainer import Pretrainer, PretrainInputs, decoder_config
from arl.training.reconstruction import save_pretrained

_EXAMINED = ("rankme", "knn")
_OF_GROUP = 8  # images of a row group among those examined: many would be frames of few clips


def pretrain(params: Params, *, corpus: ReadableCorpus, checkpoint: Path, metrics: Path) -> None:
    """Pretrain the encoder on the training images of the corpus.

    Reads the corpus; writes the encoder (safetensors and config.json) into the checkpoint folder,
    with the decoder and its encoder beside it for pictures, and the history of the losses into the
    metrics file. A run that was killed goes on from its last checkpoint under $ARL_RUNS (default:
    runs/).
    """
    torch.set_num_threads(params.pretrain.threads)
    distributed.initialize()
    rows = select(
        corpus,
        sources=params.data.sources,
        held_out=params.data.held_out,
        protocols=params.data.splits,
    )
    rows = subset(
        rows[rows["split"] == "train"].reset_index(drop=True), params.pretrain.fraction, params.seed
    )
    examples = Examples(corpus, rows, params.data.size + params.data.size // 4)
    order = _order(params, examples.layout)
    settings = params.pretrain
    steps = settings.max_steps or settings.epochs * order.steps_per_epoch
    torch.manual_seed(params.seed)
    pretrainer = _pretrainer(params)
    sections = [asdict(params.model), asdict(params.objective), asdict(settings)]
    state = state_folder(
        "pretrain", params.seed, params.data.size, sections, "".join(rows["pixel_sha256"])
    )
    history = engine.fit(
        pretrainer,
        optim.parameter_groups(pretrainer, weight_decay=settings.weight_decay),
        lambda start: _inputs(params, examples, order, start, steps),
        settings,
        steps=steps,
        seed=params.seed,
        state=state,
        log=runs() / "tensorboard" / state.name,
        evaluate=_evaluation(params, pretrainer, examples, rows),
        eval_every=settings.eval_every,
        title="pretraining",
    )
    if distributed.rank() == 0:
        _write(params, pretrainer, history, len(rows), checkpoint, metrics)
    engine.forget(state)


def _pretrainer(params: Params) -> Pretrainer:
    encoder = AViT(img_size=params.data.size, **asdict(params.model))
    pretrainer = Pretrainer(encoder, params.objective)
    encoder.set_grad_checkpointing(params.pretrain.grad_checkpointing)
    if params.pretrain.compile:
        encoder.compile_blocks()
    return pretrainer


def _evaluation(
    params: Params, pretrainer: Pretrainer, examples: Examples, rows: pd.DataFrame
) -> Callable[[], dict[str, float]]:
    """RankMe of a fixed pool of training images and, where labels are, k-NN among other patients' (`health`)."""
    count = min(params.pretrain.eval_images, len(rows))
    pool = _pool(examples.layout, count, params.seed)
    labelled = _labelled(rows.iloc[pool])

    def evaluate() -> dict[str, float]:
        batches = (examples.take(part) for part in np.array_split(pool, -(-count // 64)))
        outputs = predict(
            Pooled(pretrainer.released_encoder(), "gap"), batches, size=params.data.size
        )
        features = torch.cat([pooled for _, pooled in outputs])
        found = {"rankme": rankme(features)}
        if labelled.any():
            known = rows.iloc[pool[labelled]]
            found["knn"] = knn_accuracy(
                features[labelled].double().numpy(), known["label"], groups(known)
            )
        return found

    return evaluate


def _pool(layout: RowGroupIndex, count: int, seed: int) -> Indices:
    """Positions of `count` images, a few of each of some row groups: all of a group are decoded to have one of them."""
    rng = np.random.default_rng(seed)
    shuffled, turn = rng.permutation(len(layout)), rng.permutation(len(layout.row_groups))
    nth = np.empty(len(layout), np.int64)
    nth[shuffled] = pd.Series(layout.group[shuffled]).groupby(layout.group[shuffled]).cumcount()
    order = np.lexsort((nth, turn[layout.group], nth // _OF_GROUP))
    chosen: Indices = np.sort(order[:count])
    return chosen


def _labelled(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """The rows with a label of the anatomy that has most of them, if it has two labels and enough patients."""
    known = rows[rows["label"].notna()]
    if known.empty:
        return np.zeros(len(rows), bool)
    anatomy = known["anatomy"].value_counts().index[0]
    chosen = (rows["label"].notna() & (rows["anatomy"] == anatomy)).to_numpy(copy=True)
    enough = rows[chosen]["label"].nunique() > 1 and groups(rows[chosen]).nunique() > NEIGHBOURS
    return chosen if enough else np.zeros(len(rows), bool)


def _order(params: Params, layout: RowGroupIndex) -> TrainingOrder:
    return TrainingOrder(
        layout,
        batch_size=params.pretrain.batch_size,
        seed=params.seed,
        rank=distributed.rank(),
        world=distributed.world_size(),
    )


def _inputs(
    params: Params, examples: Examples, order: TrainingOrder, start: int, steps: int
) -> Iterator[PretrainInputs]:
    """Micro-batches from a step on; their randomness is a function of (seed, step, position in the global batch)."""
    objective = params.objective
    views = MultiCrop(
        global_size=params.data.size,
        local_size=objective.local_crops_size,
        global_crops_scale=objective.global_crops_scale,
        local_crops_scale=objective.local_crops_scale,
        local_crops_number=objective.local_crops_number if objective.self_distillation else 0,
        global_crops_number=objective.global_crops_number,
        seed=params.seed,
    )
    patches = (params.data.size // params.model.patch_size) ** 2
    for step, place, batch in training_batches(
        examples, order, start, steps, params.pretrain.gradient_accumulation_steps
    ):
        crops = views(batch, step, rank=place.rank, world_size=place.world)
        noise, dropped = _noise(params, objective.global_crops_number, place, step, patches)
        anatomy = crops.anatomy.masked_fill(dropped, NULL_ANATOMY)
        yield PretrainInputs(crops.global_crops, crops.local_crops, anatomy, noise)


def _noise(
    params: Params, crops: int, place: TrainingOrder, step: int, patches: int
) -> tuple[Tensor, Tensor]:
    """Mask noise (G*B, N) and which labels are dropped (B,): one draw for the global batch, of which this is a part."""
    generator = step_generator(params.seed, step, "masks")
    noise = torch.rand(crops, place.batch_size, patches, generator=generator)
    dropped = torch.rand(place.batch_size, generator=generator) < params.objective.anatomy_dropout
    share = slice(
        place.rank * place.batch_size // place.world,
        (place.rank + 1) * place.batch_size // place.world,
    )
    return noise[:, share].flatten(0, 1), dropped[share]


def _write(
    params: Params,
    pretrainer: Pretrainer,
    history: list[dict[str, float]],
    images: int,
    folder: Path,
    metrics: Path,
) -> None:
    arguments = {"img_size": params.data.size, **asdict(params.model)}
    config = EncoderConfig(params.data.size, arguments)
    released = pretrainer.released_encoder()
    save_pretrained(folder, released, config, trained=_reconstructor(pretrainer))
    steps = [
        {name: value for name, value in record.items() if name not in _EXAMINED}
        for record in history
    ]
    health = [
        {"step": record["step"], **examined}
        for record in history
        if (examined := _only_examined(record))
    ]
    about = {"images": images, "steps": len(history)}
    write_json(metrics, {**about, "history": steps, "health": health, "final": history[-1]})


def _reconstructor(pretrainer: Pretrainer) -> Reconstructor | None:
    """The student with the decoder: the teacher, where there is one, never saw a mask."""
    if not pretrainer.objective.mim:
        return None
    return Reconstructor(
        pretrainer.encoder, pretrainer.decoder, decoder_config(pretrainer.objective)
    )


def _only_examined(record: dict[str, float]) -> dict[str, float]:
    return {name: record[name] for name in _EXAMINED if name in record}

"""Pretrain the anatomy-aware encoder (section 3)."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from arl import console
from arl.corpus.anatomy import NULL_ANATOMY
from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import select, subset
from arl.corpus.shard_reader import Indices, RowGroupIndex
from arl.corpus.splits import groups
from arl.evaluation.pretraining import PretrainingMetrics
from arl.evaluation.probe import NEIGHBOURS, knn_accuracy
from arl.loading.augment import step_generator
from arl.loading.loader import Examples, TrainingOrder, training_batches
from arl.loading.transforms import MultiCrop
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.models.heads import Pooled
from arl.models.reconstructor import Reconstructor
from arl.objectives.collapse_metrics import clamped_fraction, collapse_warnings, rankme
from arl.params import Params
from arl.stages._training import RunKey, rows_digest, runs
from arl.training import distributed, engine, optim
from arl.training.engine import predict
from arl.training.node import make_per_node
from arl.training.pretrainer import Pretrainer, PretrainInputs, decoder_config
from arl.training.reconstruction import save_pretrained

_FEATURE_METRICS = ("rankme", "knn")
_BLOCK_TRIES = 10  # rectangles that `block_masking` tries
_MAX_OF_GROUP = 8  # images of a row group in the pool; more would be frames of few clips


def pretrain(params: Params, *, corpus: ReadableCorpus, checkpoint: Path, metrics: Path) -> None:
    """Pretrain the encoder on the training images of the corpus.

    Reads the corpus. Writes the encoder (safetensors and config.json) and a decoder for figures
    into the checkpoint folder, and the history of the losses into the metrics file. An interrupted
    run resumes from its last checkpoint in $ARL_RUNS (default: runs/).

    Args:
        params: the parameters.
        corpus: folder of the corpus.
        checkpoint: folder of the encoder, to be written.
        metrics: file of the metrics, to be written.

    Raises:
        ValueError: the corpus has fewer training images than one batch.

    Writes:
        checkpoint, metrics

    Next:
        arl finetune --task breast --corpus {corpus} --checkpoint {checkpoint}
            --model out/finetune/breast

    Examples:
        arl pretrain --corpus data --checkpoint out/pretrain
            --metrics out/pretrain.json pretrain.epochs=1
    """
    torch.set_num_threads(params.pretrain.threads)
    distributed.initialize()
    # The search for leaks compares millions of images, so one rank of a node does it for all.
    rows = make_per_node(lambda: training_rows(params, corpus))
    examples = Examples(corpus, rows, params.data.size + params.data.size // 4)
    # All ranks draw the same order from the seed, and each takes its slice of every batch.
    order = TrainingOrder(
        examples.layout,
        batch_size=params.pretrain.batch_size,
        seed=params.seed,
        rank=distributed.rank(),
        world=distributed.world_size(),
    )
    settings = params.pretrain
    steps = settings.max_steps or settings.epochs * order.steps_per_epoch
    if distributed.rank() == 0:
        print(
            f"pretraining: {len(rows):,} training images, batch {settings.batch_size}, "
            f"{order.steps_per_epoch:,} steps an epoch, {steps:,} steps, "
            f"learning rate {settings.lr:.2g}"
        )
    torch.manual_seed(params.seed)
    pretrainer = _pretrainer(params)
    state = RunKey.make(
        "pretrain",
        seed=params.seed,
        data={"size": params.data.size, "rows": rows_digest(rows)},
        model=asdict(params.model),
        objective=asdict(params.objective),
        pretrain=asdict(settings),
    ).open()
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


def training_rows(params: Params, corpus: ReadableCorpus) -> pd.DataFrame:
    """The rows that a pretraining learns from: no patient of a validation or test split."""
    rows = select(
        corpus,
        sources=params.data.sources,
        held_out=params.data.held_out,
        protocols=params.data.splits,
        contradictory=params.data.contradictory,
    )
    training = rows[rows["split"] == "train"].reset_index(drop=True)
    return subset(training, params.pretrain.fraction, params.seed)


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
    """Return a function that measures RankMe and k-NN on a fixed pool of training images.

    k-NN needs labels, and takes its neighbours from other patients.
    """
    count = min(params.pretrain.eval_images, len(rows))
    pool = _pool(examples.layout, count, params.seed)
    labelled = _labelled(rows.iloc[pool])

    def evaluate() -> dict[str, float]:
        batches = (examples.take(part) for part in np.array_split(pool, -(-count // 64)))
        outputs = predict(
            Pooled(pretrainer.released_encoder(), "gap"), batches, size=params.data.size
        )
        features = torch.cat([pooled for _, pooled in outputs])
        measured = {"rankme": rankme(features)}
        # Neighbours of the same patient would measure memory and not features.
        if labelled.any():
            labelled_rows = rows.iloc[pool[labelled]]
            measured["knn"] = knn_accuracy(
                features[labelled].double().numpy(),
                labelled_rows["label"],
                groups(labelled_rows),
            )
        return measured

    return evaluate


def _pool(index: RowGroupIndex, count: int, seed: int) -> Indices:
    """Draw the positions of `count` images, a few from each of some row groups."""
    # Reading one image decodes its whole row group, so the pool takes several from each.
    rng = np.random.default_rng(seed)
    shuffled, group_order = rng.permutation(len(index)), rng.permutation(len(index.row_groups))
    nth = np.empty(len(index), np.int64)
    nth[shuffled] = pd.Series(index.group[shuffled]).groupby(index.group[shuffled]).cumcount()
    order = np.lexsort((nth, group_order[index.group], nth // _MAX_OF_GROUP))
    positions: Indices = np.sort(order[:count])
    return positions


def _labelled(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Select the labelled rows of the anatomy with the most labels.

    The selection is empty if the anatomy has one label only, or too few patients.
    """
    labelled = rows[rows["label"].notna()]
    if labelled.empty:
        return np.zeros(len(rows), bool)
    anatomy = labelled["anatomy"].value_counts().index[0]
    chosen = (rows["label"].notna() & (rows["anatomy"] == anatomy)).to_numpy(copy=True)
    enough = rows[chosen]["label"].nunique() > 1 and groups(rows[chosen]).nunique() > NEIGHBOURS
    return chosen if enough else np.zeros(len(rows), bool)


def _inputs(
    params: Params, examples: Examples, order: TrainingOrder, start: int, steps: int
) -> Iterator[PretrainInputs]:
    """Yield the micro-batches from a step on.

    Their randomness is a function of (seed, step, position in the global batch).
    """
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
    for step, rank_slice, batch in training_batches(
        examples, order, start, steps, params.pretrain.gradient_accumulation_steps
    ):
        crops = views(batch, step, rank=rank_slice.rank, world_size=rank_slice.world)
        noise, block_noise, dropped = _noise(params, rank_slice, step, patches)
        anatomy = crops.anatomy.masked_fill(dropped, NULL_ANATOMY)
        yield PretrainInputs(crops.global_crops, crops.local_crops, anatomy, noise, block_noise)


def _noise(
    params: Params, rank_slice: TrainingOrder, step: int, patches: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the noise of masks (G*B, N) and block masks (G*B, T, 4), and dropped labels (B,).

    Every rank draws for the global batch and returns its own slice.
    """
    generator = step_generator(params.seed, step, "masks")
    batch_size, rank, world = rank_slice.batch_size, rank_slice.rank, rank_slice.world
    crops = params.objective.global_crops_number
    noise = torch.rand(crops, batch_size, patches, generator=generator)
    dropped = torch.rand(batch_size, generator=generator) < params.objective.anatomy_dropout
    own = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
    # Drawn last, so that both strategies get the same noise and dropped labels.
    tries = _BLOCK_TRIES if params.objective.mask_strategy == "block" else 0
    block_noise = torch.rand(crops, batch_size, tries, 4, generator=generator)
    return noise[:, own].flatten(0, 1), block_noise[:, own].flatten(0, 1), dropped[own]


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
    # The teacher, whose averaged weights give better features than the student's.
    released = pretrainer.released_encoder()
    save_pretrained(folder, released, config, trained=_reconstructor(pretrainer))
    losses = [
        {name: value for name, value in record.items() if name not in _FEATURE_METRICS}
        for record in history
    ]
    features = [
        {name: record[name] for name in ("step", *_FEATURE_METRICS) if name in record}
        for record in history
        if "rankme" in record
    ]
    warnings = collapse_warnings(history, pretrainer.encoder.embed_dim)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    PretrainingMetrics(
        images=images,
        steps=len(history),
        history=losses,
        features=features,
        final=history[-1],
        clamped_fraction=clamped_fraction(history),
        warnings=warnings,
    ).write(metrics)
    loss = history[-1]["loss"]
    console.info(f"{len(history)} steps on {images:,} images, last loss {loss:.3f}.")


def _reconstructor(pretrainer: Pretrainer) -> Reconstructor | None:
    if not pretrainer.objective.mim:
        return None
    # The decoder belongs to the student: a teacher never encodes masked images.
    return Reconstructor(
        pretrainer.encoder, pretrainer.decoder, decoder_config(pretrainer.objective)
    )

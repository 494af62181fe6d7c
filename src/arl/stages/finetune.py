"""Fine-tune the pretrained encoder for one task."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import subset
from arl.files import tree_hash
from arl.loading.loader import Batch, Examples, TrainingOrder, training_batches
from arl.loading.transforms import TrainView
from arl.model_config import TaskHead, TaskModelConfig
from arl.params import Params
from arl.settings import Finetune
from arl.stages._scoring import fit_input_check, rows_of_task
from arl.stages._training import RunKey, rows_digest
from arl.tasks.make import make_kind
from arl.training import distributed, engine, optim
from arl.training.checkpoint import load_encoder, save_model
from arl.training.finetuner import FineTuner, TaskInputs
from arl.training.node import make_per_node


def finetune(
    params: Params, *, task: str, corpus: ReadableCorpus, checkpoint: Path, model: Path
) -> None:
    """Fine-tune the pretrained encoder for one task.

    Reads the corpus and the encoder's checkpoint folder. Writes the task's model folder:
    safetensors, config.json, and the check that tells foreign inputs from images of the task. The
    training patients are finetune.fraction of the task's, and all weights are trained (appendix
    B). An interrupted run resumes from its last checkpoint in $ARL_RUNS (default: runs/).

    Args:
        params: the parameters.
        task: name of the task.
        corpus: folder of the corpus.
        checkpoint: folder of the pretrained encoder.
        model: folder of the fine-tuned model, to be written.

    Raises:
        ValueError: the task is unknown, or the corpus cannot serve it.

    Writes:
        model

    Next:
        arl evaluate --task {task} --corpus {corpus} --model {model}
            --evaluation out/evaluate/{task}

    Examples:
        arl finetune --task breast --corpus data --checkpoint out/pretrain
            --model out/finetune/breast
    """
    torch.set_num_threads(params.pretrain.threads)
    distributed.initialize()
    # The search for leaks compares millions of images, so one rank of a node does it for all.
    task_rows = make_per_node(lambda: rows_of_task(params, task, corpus))
    settings = params.task[task]
    rows = subset(
        task_rows[task_rows["split"] == "train"].reset_index(drop=True),
        params.finetune.fraction,
        params.seed,
    )
    encoder, config = load_encoder(checkpoint)
    config.check_size(params.data.size, checkpoint)
    torch.manual_seed(params.seed)
    # The gate's settings of the task (margin and floor) may change without a new training.
    head, kind = TaskHead.of(settings), make_kind(settings)
    network = kind.build(encoder, params.finetune.upernet_channels)
    targets = kind.targets(rows)
    kind.fit(network, targets)
    examples = Examples(
        corpus,
        rows,
        config.size + config.size // 4,
        targets=targets,
        masks=kind.dense,
    )
    # Printed before the first step, while a wrong plan costs nothing.
    finetune_settings, steps = plan_finetuning(params, task, len(rows))
    if distributed.rank() == 0:
        print(describe_plan(task, len(rows), finetune_settings, steps))
    order = TrainingOrder(
        examples.layout,
        finetune_settings.batch_size,
        params.seed,
        distributed.rank(),
        distributed.world_size(),
    )
    accumulation = finetune_settings.gradient_accumulation_steps
    tuner = FineTuner(network, kind, label_smoothing=params.finetune.label_smoothing)
    groups = optim.parameter_groups(
        tuner,
        weight_decay=params.finetune.weight_decay,
        layer_decay=params.finetune.layer_decay,
        depth=len(encoder.blocks),
    )
    view = TrainView(config.size, seed=params.seed)
    state = RunKey.make(
        f"finetune-{task}",
        seed=params.seed,
        data={"rows": rows_digest(rows, "label", "mask")},
        task=asdict(head),
        finetune=asdict(finetune_settings),
        encoder=tree_hash(checkpoint),
    ).open()
    engine.fit(
        tuner,
        groups,
        lambda start: _inputs(view, training_batches(examples, order, start, steps, accumulation)),
        finetune_settings,
        steps=steps,
        seed=params.seed,
        state=state,
        title=task,
    )
    if distributed.rank() == 0:
        trained = TaskModelConfig(
            config.size, config.encoder, task, head, params.finetune.upernet_channels
        )
        validation = task_rows[task_rows["split"] == "val"]
        save_model(model, network, trained)
        fit_input_check(encoder, corpus, rows, validation, config.size).write(model)
    engine.forget(state)


def plan_finetuning(params: Params, task: str, images: int) -> tuple[Finetune, int]:
    """Return the settings of a task's fine-tuning and its number of optimiser steps.

    The task's own batch_size and base_lr replace those of `finetune`. A batch is never larger than
    the training set, so that a small set loses no image of an epoch.

    Raises:
        ValueError: there are fewer images than ranks and accumulation steps.
    """
    settings, overrides = params.finetune, params.task[task]
    parts = distributed.world_size() * settings.gradient_accumulation_steps
    batch_size = min(overrides.batch_size or settings.batch_size, images // parts * parts)
    if not batch_size:
        raise ValueError(
            f"task {task} has {images} training images, fewer than {parts} "
            "ranks x gradient_accumulation_steps: use fewer of them"
        )
    base_lr = overrides.base_lr or settings.base_lr
    # Epochs of whole batches, as in appendix B, or `min_steps` where the task is small.
    steps = max(settings.epochs * (images // batch_size), settings.min_steps)
    return replace(settings, batch_size=batch_size, base_lr=base_lr), steps


def describe_plan(task: str, images: int, settings: Finetune, steps: int) -> str:
    """Describe the plan of a fine-tuning in one line."""
    per_epoch = images // settings.batch_size
    return (
        f"{task}: {images:,} training images, batch {settings.batch_size}, {per_epoch:,} steps an "
        f"epoch, {steps:,} steps ({steps / per_epoch:.0f} epochs), learning rate {settings.lr:.2g}"
    )


def _inputs(
    view: TrainView, batches: Iterator[tuple[int, TrainingOrder, Batch]]
) -> Iterator[TaskInputs]:
    for step, rank_slice, batch in batches:
        augmented = view(batch, step, rank=rank_slice.rank, world_size=rank_slice.world)
        target = batch.target if augmented.mask is None else augmented.mask.float()
        yield TaskInputs(augmented.image, batch.anatomy, target)

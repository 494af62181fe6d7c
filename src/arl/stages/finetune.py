"""Fine-tune the pretrained encoder for one task."""

from collections.abc import Iterator
from pathlib import Path

import torch

from arl.data.loader import Examples, TrainingOrder, training_batches
from arl.data.selection import subset
from arl.data.views import TrainView
from arl.params import Params
from arl.stages._scoring import rows_of_task
from arl.training import engine, optim
from arl.training.checkpoint import build_task_model, load_encoder, save_model
from arl.training.finetuner import FineTuner, TaskInputs


def finetune(params: Params, *, task: str, corpus: Path, checkpoint: Path, model: Path) -> None:
    """Fine-tune the pretrained encoder for one task.

    Reads the corpus and the encoder's checkpoint folder; writes the task's model folder
    (safetensors and config.json). All weights are trained (appendix B), on finetune.share of the training patients.
    """
    torch.set_num_threads(params.pretrain.threads)
    rows = rows_of_task(params, task, corpus)
    settings = params.task[task]
    rows = subset(rows[rows["split"] == "train"].reset_index(drop=True), params.finetune.share, params.seed)
    encoder, config = load_encoder(checkpoint)
    torch.manual_seed(params.seed)
    # what the model is; margin and floor are the gate's business and may change without a new training
    about = {"kind": settings.kind, "classes": settings.classes, "anatomy": settings.anatomy, "mask": settings.mask}
    network = build_task_model(encoder, about, params.finetune.upernet_channels)
    segmentation = settings.kind == "segmentation"
    examples = Examples(
        corpus, rows, config["size"] + config["size"] // 4, classes=settings.classes, masks=segmentation
    )
    order = TrainingOrder(examples.layout, min(params.finetune.batch_size, len(rows)), params.seed)
    recipe = _recipe(params, order)
    groups = optim.parameter_groups(
        tuner := FineTuner(network, label_smoothing=params.finetune.label_smoothing),
        weight_decay=params.finetune.weight_decay,
        layer_decay=params.finetune.layer_decay,
        depth=len(encoder.blocks),
    )
    view = TrainView(config["size"], seed=params.seed)
    engine.fit(tuner, groups, lambda start: _inputs(examples, order, view, start, recipe.steps), recipe, title=task)
    head = {"task": about, "upernet_channels": params.finetune.upernet_channels}
    save_model(model, network, {**config, **head, "kind": "task", "name": task})


def _recipe(params: Params, order: TrainingOrder) -> engine.Recipe:
    settings = params.finetune
    return engine.Recipe(
        steps=settings.epochs * order.steps_per_epoch,
        batch_size=order.batch_size,
        lr=settings.base_lr * order.batch_size / 256,
        min_lr=settings.min_lr,
        warmup=settings.warmup,
        clip_grad=settings.clip_grad,
        precision=settings.precision,
        zero_stage=settings.zero_stage,
        seed=params.seed,
    )


def _inputs(examples: Examples, order: TrainingOrder, view: TrainView, start: int, stop: int) -> Iterator[TaskInputs]:
    for step, batch in enumerate(training_batches(examples, order, start, stop), start):
        seen = view(batch, step)
        target = batch.label if seen.mask is None else seen.mask.float()
        yield TaskInputs(seen.image, batch.anatomy, target)

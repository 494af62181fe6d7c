"""What the stages that train share: the recipe of their settings, and where a killed run finds its states."""

import hashlib
import json
import os
from pathlib import Path

from arl.params import Finetune, Pretrain
from arl.training.engine import Recipe


def recipe(
    settings: Pretrain | Finetune, *, steps: int, batch_size: int, seed: int, examine_every: int = 0
) -> Recipe:
    """How long and how fast; the learning rate grows with the batch, as in MAE."""
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        lr=settings.base_lr * batch_size / 256,
        min_lr=settings.min_lr,
        warmup=settings.warmup,
        clip_grad=settings.clip_grad,
        precision=settings.precision,
        zero_stage=settings.zero_stage,
        seed=seed,
        accumulation=settings.accumulation,
        checkpoint_every=settings.checkpoint_every,
        examine_every=examine_every,
    )


def runs() -> Path:
    """The folder of training states and logs."""
    return Path(os.environ.get("ARL_RUNS", "runs"))


def state_folder(stage: str, *inputs: object) -> Path:
    """Where a run of a stage with these inputs (settings, hashes of data) keeps its training states."""
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return runs() / f"{stage}-{digest[:16]}"

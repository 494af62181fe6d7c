"""The training loop and the prediction loop."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from arl.loading.loader import Batch
from arl.loading.transforms import eval_view
from arl.progress import progress
from arl.settings import Training
from arl.training import checkpoint, distributed, optim


class Inputs(Protocol):
    """A micro-batch that can move to a device."""

    def to(self, device: torch.device) -> "Inputs": ...


class Trainable(Protocol):
    """An `nn.Module` for `fit`: its forward returns named scalars, with `loss` among them."""

    def __call__(self, inputs: Any, progress: float) -> dict[str, Tensor]: ...

    def after_step(self, progress: float) -> None:
        """Run after an optimiser step, e.g. to update the teacher."""


def fit(
    module: nn.Module,
    groups: list[optim.ParameterGroup],
    inputs: Callable[[int], Iterator[Inputs]],
    settings: Training,
    *,
    steps: int,
    seed: int,
    state: Path | None = None,
    log: Path | None = None,
    evaluate: Callable[[], dict[str, float]] = dict,
    eval_every: int = 0,
    title: str = "training",
) -> list[dict[str, float]]:
    """Train `module` (a `Trainable`) for `steps` optimiser steps and return their history.

    Args:
        inputs: function from an optimiser step to the micro-batches from that step on.
        seed: seed of the random numbers that the module draws in a step.
        state: folder of resumable checkpoints. An interrupted run resumes from the newest one.
        log: folder for TensorBoard, which also gets the images per second; None: no log.
        evaluate: measures the module on rank 0; its numbers join the history of that step.
        eval_every: steps between two calls of `evaluate`, which also follows the last step.
            0: no calls.

    Raises:
        ValueError: there is no step to train, or the batch does not divide over the ranks.
        FloatingPointError: the loss is not finite; the message names the last good checkpoint.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: training needs at least one")
    distributed.initialize()
    engine = distributed.engine(
        module,
        optim.adamw(groups),
        micro_batch_size=micro_batch_size(settings),
        accumulation=settings.gradient_accumulation_steps,
        clip_grad=settings.clip_grad,
        zero_stage=settings.zero_stage,
    )
    history = checkpoint.resume(engine, state) if state else []
    engine.train()
    batches = inputs(len(history))
    first = distributed.rank() == 0
    if first and settings.precision == "bf16" and not computes_in_bf16(engine.device):
        print(
            f"{title}: this processor has no bfloat16 instructions, precision=fp32 is much faster",
            file=sys.stderr,
        )
    bar = progress(steps, title, "step", initial=len(history), visible=first)
    with _logbook(log if first else None, len(history)) as write:
        for step in range(len(history), steps):
            start = time.perf_counter()
            record = _train_step(
                engine, batches, step, settings, steps=steps, seed=seed, state=state
            )
            speed = settings.batch_size / (time.perf_counter() - start)
            if first and eval_every and ((step + 1) % eval_every == 0 or step + 1 == steps):
                record |= _evaluated(engine.module, evaluate)
            history.append(record)
            # The history must be reproducible, so the speed goes to the log only.
            write(step + 1, record | {"images_per_second": speed})
            bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
            bar.update()
            if state and settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0:
                checkpoint.save(engine, state, history)
    bar.close()
    return history


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 instructions; a CPU without them is slow at it."""
    features = torch.cpu.get_capabilities()
    return device.type != "cpu" or any(features[name] for name in features if "bf16" in name)


def _evaluated(module: nn.Module, evaluate: Callable[[], dict[str, float]]) -> dict[str, float]:
    numbers = evaluate()
    # `evaluate` leaves the module in evaluation mode.
    module.train()
    return numbers


def micro_batch_size(settings: Training) -> int:
    """Return the number of images of one forward pass on one rank.

    Raises:
        ValueError: the batch does not divide over the ranks and accumulation steps.
    """
    ranks, parts = distributed.world_size(), settings.gradient_accumulation_steps
    if settings.batch_size % (ranks * parts):
        raise ValueError(
            f"batch_size {settings.batch_size} is not divisible by {ranks} ranks x {parts} "
            "gradient_accumulation_steps"
        )
    return settings.batch_size // (ranks * parts)


@contextmanager
def _logbook(folder: Path | None, done: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Open a writer of a step's named numbers to TensorBoard.

    Entries that an interrupted run wrote after step `done` are purged.
    """
    if folder is None:
        yield lambda step, record: None
        return
    # Only this function needs the import, which takes half a second.
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder, purge_step=done + 1) as writer:

        def write(step: int, record: dict[str, float]) -> None:
            for name, value in record.items():
                writer.add_scalar(name, value, step)

        yield write


def _train_step(
    engine: Any,
    batches: Iterator[Inputs],
    step: int,
    settings: Training,
    *,
    steps: int,
    seed: int,
    state: Path | None,
) -> dict[str, float]:
    lr = optim.lr_at(
        step,
        steps=steps,
        lr=settings.lr,
        min_lr=settings.min_lr,
        warmup_steps=math.ceil(settings.warmup * steps),
    )
    optim.set_lr(engine.optimizer, lr)
    # Drop path and the like are a function of the step, so a resumed run has no state to restore.
    torch.manual_seed(seed + step * distributed.world_size() + distributed.rank())
    terms = [
        _micro_step(engine, next(batches), step / steps, settings)
        for _ in range(settings.gradient_accumulation_steps)
    ]
    engine.module.after_step((step + 1) / steps)
    mean = {name: sum(term[name] for term in terms) / len(terms) for name in terms[0]}
    # The last micro-step has the norm of the accumulated gradient.
    mean["grad_norm"] = terms[-1]["grad_norm"]
    record = {"step": step + 1, "lr": lr, **distributed.mean_over_ranks(mean)}
    _refuse_nan(record, state)
    return record


def _micro_step(
    engine: Any, inputs: Inputs, elapsed: float, settings: Training
) -> dict[str, float]:
    # Autocast leaves weights, optimiser and the teacher in float32. In bfloat16 the teacher's
    # momentum of 0.996 would round to 1.
    with torch.autocast(engine.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        terms = engine(inputs.to(engine.device), elapsed)
    engine.backward(terms["loss"])
    norm = distributed.step(engine)
    return {**{name: float(value.detach()) for name, value in terms.items()}, "grad_norm": norm}


def _refuse_nan(record: dict[str, float], state: Path | None) -> None:
    if math.isfinite(record["loss"]):
        return
    good = checkpoint.latest(state) if state else None
    newest = f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint"
    raise FloatingPointError(f"the loss is {record['loss']} at step {record['step']:.0f}; {newest}")


def forget(state: Path) -> None:
    """Remove the resumable checkpoints of a completed run."""
    distributed.barrier()
    if distributed.rank() == 0:
        shutil.rmtree(state, ignore_errors=True)


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable[Batch], *, size: int
) -> Iterator[tuple[Batch, Tensor]]:
    """Run `model(x, anatomy)` over batches, resized to `size`, in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    for batch in batches:
        image = eval_view(batch, size).image
        yield batch, model(image.to(device), batch.anatomy.to(device)).cpu()

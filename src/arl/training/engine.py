"""The training loop and the prediction loop."""

import math
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from arl.loading.loader import Batch
from arl.loading.transforms import eval_view
from arl.models.avit import check_anatomy
from arl.progress import progress
from arl.settings import Training
from arl.training import checkpoint, distributed, optim

# Exit code of a training that SIGTERM ended: it has left a state, and the same command resumes.
EXIT_PREEMPTED = 75
MAX_SKIPPED = 3  # steps in a row without an update after which a training ends
_PREFETCHED = 2  # micro-batches made beside the step on a GPU


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
        state: folder of resumable checkpoints. A run that was killed at any moment resumes from
            the newest one. One process at a time may train in it.
        log: folder for TensorBoard, which also gets the images a second; None: no log.
        evaluate: measures the module on rank 0; its numbers join the history of that step.
        eval_every: steps between two calls of `evaluate`, which also follows the last step.
            0: no calls.

    Raises:
        ValueError: there is no step to train, the batch does not divide over the ranks, the device
            lacks the precision, another process trains in `state`, or all states are damaged.
        FloatingPointError: `MAX_SKIPPED` steps in a row had a loss or a gradient that is not
            finite; the message names the last good checkpoint.
        OSError: a state cannot be written; the message names the last good one.
        SystemExit: SIGTERM ended the training after it wrote a state, with `EXIT_PREEMPTED`.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: training needs at least one")
    distributed.initialize()
    require_precision(settings.precision, distributed.local_device())
    engine = distributed.engine(
        module,
        optim.adamw(groups, betas=(settings.betas[0], settings.betas[1])),
        micro_batch_size=micro_batch_size(settings),
        accumulation=settings.gradient_accumulation_steps,
        clip_grad=settings.clip_grad,
        zero_stage=settings.zero_stage,
    )
    first = distributed.rank() == 0
    if first and settings.precision == "bf16" and not computes_in_bf16(engine.device):
        print(
            f"{title}: this processor has no bfloat16 instructions, precision=fp32 is much faster",
            file=sys.stderr,
        )
    in_bf16 = settings.precision == "bf16"
    # The lock comes last. Who holds it answers SIGTERM by a state.
    with (
        _termination() as terminated,
        autocast_inside(module, engine.device.type, enabled=in_bf16),
        checkpoint.states(state) as states,
    ):
        history = states.resume(engine)
        engine.train()
        batches = _on_device(inputs(len(history)), engine.device)
        bar = progress(steps, title, "step", initial=len(history), visible=first)
        with _logbook(log if first else None, len(history)) as write:
            for step in range(len(history), steps):
                start = time.perf_counter()
                record, stop = _train_step(
                    engine, batches, step, settings, steps=steps, seed=seed, terminated=terminated
                )
                speed = settings.batch_size / (time.perf_counter() - start)
                if first and eval_every and ((step + 1) % eval_every == 0 or step + 1 == steps):
                    record |= _evaluated(engine.module, evaluate)
                history.append(record)
                _require_updates(history, states)
                # The history must be reproducible, so the speed goes to the log only.
                write(step + 1, record | {"images_per_second": speed})
                bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
                bar.update()
                every = settings.checkpoint_every
                if stop or (every and (step + 1) % every == 0):
                    states.save(engine, history)
                if stop and step + 1 < steps:
                    _leave(title, step + 1, states)
        bar.close()
    return history


@contextmanager
def autocast_inside(module: nn.Module, device_type: str, *, enabled: bool) -> Iterator[None]:
    """Run the module's forward pass under bfloat16 autocast that opens inside of DeepSpeed's
    engine.

    DeepSpeed switches an outer autocast off when CUDA's autocast flag is set and its own
    `torch_autocast` is not configured (deepspeed 0.19.8, runtime/torch_autocast.py,
    `autocast_if_enabled`). Its own one would also add gradients in bfloat16.
    """
    if not enabled:
        yield
        return
    forward = module.forward

    def forward_in_bf16(*args: Any, **kwargs: Any) -> Any:
        # Autocast leaves weights, optimiser and the teacher in float32. In bfloat16 the teacher's
        # momentum of 0.996 would round to 1.
        with torch.autocast(device_type, torch.bfloat16):
            return forward(*args, **kwargs)

    module.forward = forward_in_bf16
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM has come; only a main thread may listen to it."""
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    # Only a flag: a handler that wrote the state itself could run in the middle of an update.
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(title: str, step: int, states: "checkpoint.States") -> None:
    if distributed.rank() == 0:
        newest = states.newest()
        kept = f"its state is {newest}" if newest else "it has no folder for states"
        print(
            f"{title}: SIGTERM ended the training after step {step}; {kept}. "
            "The same command resumes.",
            file=sys.stderr,
        )
    raise SystemExit(EXIT_PREEMPTED)


def _on_device(batches: Iterator[Inputs], device: torch.device) -> Iterator[Inputs]:
    """Move micro-batches to the device; for a GPU a thread makes and pins the next ones meanwhile.

    A CPU has no use for it: the thread would take the cores that the step needs.
    """
    if device.type == "cpu":
        yield from batches
        return
    for batch in prefetch(_pinned(batches), _PREFETCHED):
        yield batch.to(device)


def _pinned(batches: Iterator[Inputs]) -> Iterator[Inputs]:
    for batch in batches:
        for name, value in vars(batch).items():
            # a copy to the device is asynchronous from pinned memory only
            setattr(batch, name, value.pin_memory())
        yield batch


def prefetch(items: Iterator[Any], depth: int) -> Iterator[Any]:
    """Yield the items in order while a thread makes up to `depth` more, and raise its errors."""
    made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: Any, error: BaseException | None) -> bool:
        while not closed.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    # A daemon, so that an error in the step ends the process although the thread waits.
    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        closed.set()


def require_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device does not have.

    Raises:
        ValueError: bf16 on a GPU without bfloat16.
    """
    if (
        precision == "bf16"
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < (8, 0)
    ):
        raise ValueError(
            f"precision=bf16 needs a GPU of compute capability 8.0 or later, but "
            f"{torch.cuda.get_device_name(device)} has less: set precision=fp32"
        )


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
    terminated: Callable[[], bool],
) -> tuple[dict[str, float], bool]:
    """Do one optimiser step; its record, and whether any rank was told to stop.

    A loss or a gradient that is not finite is seen before the update. The step then leaves
    weights, moments and buffers as they were, and its record has `skipped` 1.
    """
    lr = optim.lr_at(
        step,
        steps=steps,
        lr=settings.lr,
        min_lr=settings.min_lr,
        warmup_steps=math.ceil(settings.warmup * steps),
    )
    optim.set_lr(engine.optimizer, lr)
    if settings.weight_decay_end is not None:
        weight_decay = optim.weight_decay_at(
            step, steps=steps, start=settings.weight_decay, end=settings.weight_decay_end
        )
        optim.set_weight_decay(engine.optimizer, weight_decay)
    # Drop path and the like are a function of the step, so a resumed run has no state to restore.
    torch.manual_seed(seed + step * distributed.world_size() + distributed.rank())
    # the centre of the teacher's outputs moves in the forward pass, and a NaN would stay in it
    buffers = [(b, b.clone()) for b in engine.module.buffers() if b.is_floating_point()]
    parts = settings.gradient_accumulation_steps
    terms: list[dict[str, Tensor]] = []
    for part in range(parts):
        inputs = next(batches)
        outputs = engine(inputs, step / steps)
        engine.backward(outputs["loss"])
        terms.append({name: value.detach().double() for name, value in outputs.items()})
        if part + 1 < parts:
            engine.step()
    mean = {name: sum(term[name] for term in terms) / parts for name in terms[0]}
    shared = distributed.mean_over_ranks(
        {**mean, "grad_norm": distributed.gradient_norm(engine), "stop": float(terminated())}
    )
    stopped = shared.pop("stop") > 0
    finite = math.isfinite(shared["loss"]) and math.isfinite(shared["grad_norm"])
    if finite:
        engine.step()
        engine.module.after_step((step + 1) / steps)
    else:
        distributed.skip_step(engine)
        for buffer, value in buffers:
            buffer.copy_(value)
    return {"step": step + 1, "lr": lr, **shared, "skipped": float(not finite)}, stopped


def _require_updates(history: list[dict[str, float]], states: "checkpoint.States") -> None:
    last = history[-MAX_SKIPPED:]
    if len(last) < MAX_SKIPPED or not all(record.get("skipped") for record in last):
        return
    good = states.newest()
    where = f"the last good checkpoint is {good}" if good else "no checkpoint was written before it"
    raise FloatingPointError(
        f"the loss or its gradient was not finite in {MAX_SKIPPED} steps in a row, the last is "
        f"step "
        f"{last[-1]['step']:.0f} (loss {last[-1]['loss']}, gradient norm {last[-1]['grad_norm']}); "
        f"{where}. Lower base_lr or clip_grad, or set precision=fp32, and start again."
    )


def forget(state: Path) -> None:
    """Remove the resumable checkpoints of a run that has ended well."""
    distributed.barrier()
    if distributed.rank() == 0:
        shutil.rmtree(state, ignore_errors=True)


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable[Batch], *, size: int
) -> Iterator[tuple[Batch, Tensor]]:
    """Run `model(x, anatomy)` over batches that are stretched to `size`, on this process's device.

    The model moves there and goes into evaluation mode.
    """
    device = distributed.local_device()
    model.to(device).eval()
    for batch in batches:
        image = eval_view(batch, size).image
        # On a GPU nothing checks the indices any more.
        check_anatomy(batch.anatomy)
        yield batch, model(image.to(device), batch.anatomy.to(device)).cpu()

"""Print what a pretraining costs before it is started."""

from pathlib import Path

from arl.composition import compose
from arl.console import info
from arl.params import Params
from arl.stages.pretrain import training_rows
from arl.training.plan import Plan, make_plan, measure_step, read_devices

_PAPER_IMAGES = 5_200_000
_DEVICES = Path("conf/devices.yaml")


def plan(
    choices: list[str],
    *,
    gpus: int = 1,
    gpu: str = "",
    images: int = 0,
    corpus: Path | None = None,
    cpus: int = 8,
) -> None:
    """Print steps, hours, memory, bytes and cost of a pretraining.

    Nothing is trained. Without --gpu, a few steps are timed on this machine. With --gpu, the time
    is
    that of the products at 35 % of the device's peak rate, which is an assumption.

    Args:
        choices: Words of the form group=file or key=value, as `arl configure` takes them.
        gpus: Devices of the training, all nodes together.
        gpu: A device of conf/devices.yaml. Without it, this machine is measured.
        images: Training images. 0 takes those of --corpus, or the paper's 5.2 million.
        corpus: The corpus whose training images are counted.
        cpus: CPU cores for each GPU, which make the views.

    Raises:
        ValueError: the device is unknown, or the batch does not divide over the devices.

    Examples:
        arl plan experiment=paper --gpus 64 --gpu h100-80gb
        arl plan experiment=busbra --corpus data
    """
    params = compose(choices)
    devices = read_devices(_DEVICES)
    if gpu and gpu not in devices:
        raise ValueError(f"device {gpu!r} is not in {_DEVICES}, which has {', '.join(devices)}")
    count = images or (len(training_rows(params, corpus)) if corpus else _PAPER_IMAGES)
    size = params.data.size
    measured = (
        None if gpu else measure_step(params.model, params.objective, params.pretrain, size=size)
    )
    answer = make_plan(
        params.model,
        params.objective,
        params.pretrain,
        size=size,
        images=count,
        ranks=gpus,
        device=devices.get(gpu),
        measured=measured,
        cpus_per_rank=cpus,
    )
    for line in _lines(params, answer, count, gpus, gpu or "this machine"):
        info(line)


def _lines(params: Params, plan: Plan, images: int, ranks: int, device: str) -> list[str]:
    measured = plan.dollars is None
    how = "measured on two small batches" if measured else "products at 35 % of the peak, assumed"
    # The longest part of a step is what a faster machine has to improve.
    bends = {
        "products and gradients": plan.step_compute + plan.step_all_reduce,
        "kernel launches": plan.step_launches,
        "views": plan.step_views,
    }
    # A tenth stays free for the workspace of cuBLAS, fragments and NCCL's buffers.
    fits = plan.device_gib is not None and plan.memory_gib <= 0.9 * plan.device_gib
    verdict = "fits" if fits else "does not fit"
    limit = "" if plan.device_gib is None else f" of {plan.device_gib:.0f}: {verdict}"
    longest = max(bends, key=lambda name: bends[name])
    rows = [
        (
            "training",
            f"{images:,} images, batch {params.pretrain.batch_size:,}, {plan.steps:,} steps",
        ),
        ("devices", f"{ranks} x {device}, {plan.images_per_rank} images each a step"),
        ("work", f"{plan.macs_per_image / 1e9:,.1f} GMAC an image, both directions"),
        ("one step", f"{plan.step:.3f} s ({how}); the longest part: {longest}"),
        ("time", f"{plan.hours:,.1f} h, {plan.device_hours:,.0f} device hours"),
        ("memory", f"{plan.memory_gib:.1f} GiB a device{limit}"),
        ("reading", f"{plan.bytes_read / 1e12:,.2f} TB in all"),
        (
            "checkpoints",
            f"{plan.checkpoints:,} of {plan.checkpoint_bytes / 1e9:.1f} GB; two are kept",
        ),
    ]
    if plan.dollars is not None:
        rows.append(("cost", f"${plan.dollars:,.0f} at the price in {_DEVICES}"))
    rows += [("advice", sentence) for sentence in plan.advice]
    return [f"{name:12s} {text}" for name, text in rows]

"""What a pretraining costs before it is paid for: steps, seconds, memory, bytes and money.

Two sources give the seconds of a step. For a device that is not here, the multiply-accumulates of
the step are divided by the device's peak rate times `UTILISATION`, which is an assumption. For the
device that is here, `measure_step` times steps of two small batches, and a line through them gives
the fixed and the per-image part.
"""

import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from arl.loading.loader import Batch
from arl.loading.transforms import MultiCrop
from arl.models.avit import AViT
from arl.models.cost import count_macs
from arl.settings import Model, Objective, Pretrain
from arl.training import distributed, engine, optim
from arl.training.pretrainer import Pretrainer, PretrainInputs

UTILISATION = 0.35  # of the peak rate; assumed, plain ViT trainings report 0.3 to 0.5
LAUNCH_SECONDS = 5e-6  # a kernel launch that nothing hides; assumed
VIEW_SECONDS = 3.8e-3  # views of one image on one CPU core: 2 x 224 and 8 x 96 pixels, measured
IMAGE_BYTES = 97_000  # a stored image, long side 512; measured on BUS-BRA and FALLMUD
_KERNELS = 40  # launches of a block, forward and backward
_BACKWARD = 3  # a forward and a backward pass cost three forward passes
_ADAM_BYTES, _WEIGHT_BYTES = 8, 4


@dataclass(frozen=True)
class Device:
    """An accelerator of conf/devices.yaml."""

    memory_gib: float
    bf16_tflops: float
    tf32_tflops: float
    link_gb_s: float  # all-reduce bandwidth of one device
    dollars_per_hour: float


@dataclass(frozen=True)
class Plan:
    """The answer of `make_plan`; times are seconds, sizes bytes."""

    steps: int
    images_per_rank: int
    macs_per_image: float
    step_compute: float
    step_launches: float
    step_views: float
    step_all_reduce: float
    hours: float
    device_hours: float
    dollars: float | None
    memory_gib: float
    device_gib: float | None
    bytes_read: float
    checkpoints: int
    checkpoint_bytes: float
    advice: tuple[str, ...]

    @property
    def step(self) -> float:
        """Seconds of one step: views are made beside it, gradients are added after it."""
        return max(self.step_compute + self.step_all_reduce, self.step_launches, self.step_views)


@dataclass(frozen=True)
class MeasuredStep:
    """Seconds of a step on this device: `fixed + per_image * images`."""

    fixed: float
    per_image: float

    def seconds(self, images: int) -> float:
        """Return the seconds of a step of so many images."""
        return self.fixed + self.per_image * images


def read_devices(file: Path) -> dict[str, Device]:
    """Read the table of devices.

    Raises:
        ValueError: the file is no table of devices.
    """
    try:
        return {name: Device(**row) for name, row in yaml.safe_load(file.read_text()).items()}
    except (TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is no table of devices: {error}") from error


class _Encode(nn.Module):
    """An encoder on float indices, since `count_macs` makes float inputs."""

    def __init__(self, encoder: AViT, *, cls_only: bool) -> None:
        super().__init__()
        self.encoder, self.cls_only = encoder, cls_only

    def forward(self, x: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        ids = None if ids_keep is None else ids_keep.long()
        return self.encoder.forward_features(x, ids_keep=ids, cls_only=self.cls_only)


class _Decode(nn.Module):
    """A decoder on float indices."""

    def __init__(self, decoder: nn.Module, patches: int, *, drop_masked: bool) -> None:
        super().__init__()
        self.decoder, self.patches, self.drop_masked = decoder, patches, drop_masked

    def forward(self, tokens: Tensor, ids_keep: Tensor, ids_masked: Tensor) -> Tensor:
        keep = ids_keep.long() if self.drop_masked else None
        prediction: Tensor = self.decoder(tokens, keep, self.patches, ids_masked.long())
        return prediction


def step_macs(model: Model, objective: Objective, size: int) -> float:
    """Count the multiply-accumulates of a training step for one image, both directions."""
    encoder = AViT(img_size=size, **asdict(model))
    pretrainer = Pretrainer(encoder, objective)
    patches = (size // model.patch_size) ** 2
    globals_ = objective.global_crops_number
    image = (1, model.in_chans, size, size)
    unmasked = count_macs(_Encode(encoder, cls_only=not objective.patch_distillation), image)
    student = unmasked
    if objective.masks and objective.drop_masked:
        visible = patches - int(patches * objective.mask_ratio)
        student = count_macs(_Encode(encoder, cls_only=False), image, (1, visible))
    macs: float = _BACKWARD * globals_ * student
    if objective.has_teacher:
        macs += globals_ * unmasked
        views = globals_ * (_BACKWARD + 1)
        if objective.self_distillation:
            side = objective.local_crops_size
            local = count_macs(_Encode(encoder, cls_only=True), (1, model.in_chans, side, side))
            macs += _BACKWARD * objective.local_crops_number * local
            views += _BACKWARD * objective.local_crops_number
        macs += views * count_macs(pretrainer.head, (1, model.embed_dim))
    if objective.mim:
        masked = int(patches * objective.mask_ratio)
        seen = patches - masked if objective.drop_masked else patches
        decoder = count_macs(
            _Decode(pretrainer.decoder, patches, drop_masked=objective.drop_masked),
            (1, 1 + seen, model.embed_dim),
            (1, seen),
            (1, masked),
        )
        macs += _BACKWARD * min(objective.max_reconstructed_crops, globals_) * decoder
    if objective.adversarial:
        side, crops = 2 * model.patch_size, min(objective.max_reconstructed_crops, globals_)
        patch = count_macs(pretrainer.discriminator, (1, model.in_chans, side, side))
        # real and fake, each forward and backward, and the gradient at the fake patches
        macs += (2 * _BACKWARD + 1) * crops * objective.discriminator_patches * patch
    return float(macs)


def make_plan(
    model: Model,
    objective: Objective,
    settings: Pretrain,
    *,
    size: int,
    images: int,
    ranks: int,
    device: Device | None,
    measured: MeasuredStep | None = None,
    cpus_per_rank: int = 8,
) -> Plan:
    """Plan a pretraining of `images` images on `ranks` devices.

    Raises:
        ValueError: the batch does not divide over the ranks, or neither a device nor a measurement
            is given.
    """
    parts = ranks * settings.gradient_accumulation_steps
    if settings.batch_size % parts:
        fits = settings.batch_size - settings.batch_size % parts or parts
        raise ValueError(
            f"batch_size {settings.batch_size} does not divide over {ranks} ranks x "
            f"{settings.gradient_accumulation_steps} gradient_accumulation_steps: "
            f"pretrain.batch_size={fits} would"
        )
    steps = settings.max_steps or settings.epochs * max(1, images // settings.batch_size)
    own = settings.batch_size // ranks
    macs = step_macs(model, objective, size)
    weights = _trained_parameters(model, objective, size)
    launches = _KERNELS * _blocks(model, objective) * LAUNCH_SECONDS
    launches *= settings.gradient_accumulation_steps
    if measured is not None:
        compute, launches, reduce_, views = measured.seconds(own), 0.0, 0.0, 0.0
    elif device is not None:
        # float32 runs as TF32 on a GPU, see `use_fast_float32`.
        peak = device.bf16_tflops if settings.precision == "bf16" else device.tf32_tflops
        compute = 2 * macs * own / (peak * 1e12 * UTILISATION)
        # A ring all-reduce sends the gradient twice: once to add it, once to distribute the sum.
        sent = 2 * weights * _WEIGHT_BYTES * (ranks - 1) / ranks
        reduce_ = sent / (device.link_gb_s * 1e9)
        views = own * VIEW_SECONDS / cpus_per_rank
    else:
        raise ValueError("a plan needs a device of conf/devices.yaml, or a measured step")
    seconds = steps * max(compute + reduce_, launches, views)
    memory = memory_per_rank(model, objective, settings, size=size, ranks=ranks)
    return Plan(
        steps=steps,
        images_per_rank=own,
        macs_per_image=macs,
        step_compute=compute,
        step_launches=launches,
        step_views=views,
        step_all_reduce=reduce_,
        hours=seconds / 3600,
        device_hours=seconds / 3600 * ranks,
        dollars=None if device is None else seconds / 3600 * ranks * device.dollars_per_hour,
        memory_gib=memory,
        device_gib=None if device is None else device.memory_gib,
        bytes_read=float(steps) * settings.batch_size * IMAGE_BYTES,
        checkpoints=steps // settings.checkpoint_every if settings.checkpoint_every else 0,
        checkpoint_bytes=weights * (_WEIGHT_BYTES * 2 + _ADAM_BYTES),
        advice=_advice(settings, device, memory, compute + reduce_, launches, views, cpus_per_rank),
    )


def _advice(
    settings: Pretrain,
    device: Device | None,
    memory: float,
    busy: float,
    launches: float,
    views: float,
    cpus: int,
) -> tuple[str, ...]:
    advice = []
    if device is not None and memory > 0.9 * device.memory_gib:
        advice.append(
            f"{memory:.0f} GiB do not fit into {device.memory_gib:.0f} GiB: set "
            "pretrain.grad_checkpointing=true, raise pretrain.gradient_accumulation_steps, or use "
            "more GPUs"
        )
    if views > busy:
        needed = round(cpus * views / busy + 0.5)
        advice.append(
            f"views take longer than the step: give each GPU {needed} CPUs instead of {cpus}"
        )
    if launches > busy:
        advice.append(
            "kernel launches take longer than the products: use fewer GPUs, a larger batch_size, "
            "or "
            "pretrain.compile=true"
        )
    if settings.precision == "fp32" and device is not None:
        advice.append("pretrain.precision=bf16 halves the time of the products")
    return tuple(advice)


def _blocks(model: Model, objective: Objective) -> int:
    """Count the transformer blocks that one step runs, with the teacher's and the decoder's."""
    passes = 1 + objective.has_teacher + objective.self_distillation
    return passes * model.depth + (objective.decoder_depth if objective.mim else 0)


def _trained_parameters(model: Model, objective: Objective, size: int) -> int:
    pretrainer = Pretrainer(AViT(img_size=size, **asdict(model)), objective)
    return sum(p.numel() for p in pretrainer.parameters() if p.requires_grad)


def memory_per_rank(
    model: Model, objective: Objective, settings: Pretrain, *, size: int, ranks: int
) -> float:
    """Estimate the GiB of one rank: weights, gradients, moments, teacher and activations.

    Activations are those of a plain transformer without checkpointing: 34 numbers of the width a
    token and block at 16 bits, half as many again in float32 (Korthikanti et al., 2022, without the
    attention matrix, which fused attention does not store).
    """
    trained = _trained_parameters(model, objective, size)
    sharded = ranks if settings.zero_stage else 1
    gradients = trained * _WEIGHT_BYTES / (ranks if settings.zero_stage == 2 else 1)
    states = trained * _WEIGHT_BYTES + gradients + trained * _ADAM_BYTES / sharded
    teacher = trained * _WEIGHT_BYTES if objective.has_teacher else 0
    own = settings.batch_size // ranks // settings.gradient_accumulation_steps
    patches = (size // model.patch_size) ** 2
    visible = patches * (1 - objective.mask_ratio) if objective.masks else patches
    tokens = objective.global_crops_number * (visible if objective.drop_masked else patches)
    if objective.self_distillation:
        local = (objective.local_crops_size // model.patch_size) ** 2
        tokens += objective.local_crops_number * local
    width = 34 * (1 if settings.precision == "bf16" else 1.5)
    layers = 2 if settings.grad_checkpointing else model.depth
    activations = own * tokens * layers * model.embed_dim * width
    if objective.mim:
        crops = min(objective.max_reconstructed_crops, objective.global_crops_number)
        activations += (
            own * crops * patches * objective.decoder_depth * objective.decoder_dim * width
        )
    if objective.self_distillation:
        views = 2 * objective.global_crops_number + objective.local_crops_number
        activations += own * views * objective.prototypes * 3 * _WEIGHT_BYTES
    return (states + teacher + activations) / 2**30


def measure_step(
    model: Model,
    objective: Objective,
    settings: Pretrain,
    *,
    size: int,
    images: tuple[int, int] = (4, 12),
    repeats: int = 3,
) -> MeasuredStep:
    """Time whole steps of two small batches on this device, views included.

    On a CPU the processor's time counts, so that other processes do not matter much.
    """
    small, large = (_step_seconds(model, objective, settings, size, n, repeats) for n in images)
    return line_through((images[0], small), (images[1], large))


def line_through(small: tuple[int, float], large: tuple[int, float]) -> MeasuredStep:
    """The line of two measured steps `(images, seconds)`.

    Other processes can slow the small step below the speed of the large one, or make the line start
    below zero. Neither is a property of the training: the line then goes through zero.
    """
    per_image = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - per_image * small[0]
    # A line that starts below zero would predict nonsense for one image.
    if per_image <= 0 or fixed < 0:
        return MeasuredStep(0.0, (small[1] + large[1]) / (small[0] + large[0]))
    return MeasuredStep(fixed, per_image)


def _step_seconds(
    model: Model, objective: Objective, settings: Pretrain, size: int, images: int, repeats: int
) -> float:
    distributed.initialize()
    torch.manual_seed(0)
    pretrainer = Pretrainer(AViT(img_size=size, **asdict(model)), objective)
    wrapped = distributed.engine(
        pretrainer,
        optim.adamw(optim.parameter_groups(pretrainer, weight_decay=settings.weight_decay)),
        micro_batch_size=images,
        accumulation=1,
        clip_grad=settings.clip_grad,
        zero_stage=0,
    )
    views = MultiCrop(
        global_size=size,
        local_size=objective.local_crops_size,
        global_crops_scale=objective.global_crops_scale,
        local_crops_scale=objective.local_crops_scale,
        local_crops_number=objective.local_crops_number if objective.self_distillation else 0,
        global_crops_number=objective.global_crops_number,
        seed=0,
    )
    canvas = size + size // 4
    batch = Batch(
        torch.randint(0, 256, (images, 1, canvas, canvas), dtype=torch.uint8),
        torch.full((images, 2), canvas),
        torch.arange(images) % 16,
        torch.full((images,), -1),
        None,
        torch.arange(images),
    )
    patches = (size // model.patch_size) ** 2
    seconds = []
    in_bf16 = settings.precision == "bf16"
    with engine.autocast_inside(pretrainer, wrapped.device.type, enabled=in_bf16):
        for step in range(repeats + 1):
            start = _clock()
            crops = views(batch, step)
            noise = torch.rand(objective.global_crops_number * images, patches)
            blocks = torch.rand(len(noise), 10, 4)
            inputs = PretrainInputs(
                crops.global_crops, crops.local_crops, crops.anatomy, noise, blocks
            )
            # late in the training, when the discriminator trains the decoder
            loss = wrapped(inputs.to(wrapped.device), 0.5)["loss"]
            wrapped.backward(loss)
            distributed.mean_over_ranks({"norm": distributed.gradient_norm(wrapped)})
            wrapped.step()
            pretrainer.after_step(0.5)
            if step:
                seconds.append(_clock() - start)
    return sorted(seconds)[len(seconds) // 2]


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    # Both times of the processor. Page faults of the allocator count as system time.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

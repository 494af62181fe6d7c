"""The schema of params.yaml. Values live in conf/ and params.yaml, the schema lives here.

Only stages see `Params`; the layers below take plain arguments.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

PARAMS_FILE = Path("params.yaml")


@dataclass
class Thinning:
    """Which frames of a clip ingest keeps; masked and official ones always."""

    every: int  # frames from one kept to the next; 1: all
    distance: int  # bits of the 64-bit perceptual hash in which a frame differs at least from the last one kept; 0: off
    most: int  # frames of a clip; 0: no limit


@dataclass
class Data:
    """Which part of the corpus is used, and how images are stored and read."""

    size: int  # side of the square network input, pixels
    store_size: int  # long side an ingested image is scaled down to, pixels; never up
    sources: list[str]  # sources used for pretraining; empty: all of the corpus
    held_out: list[
        str
    ]  # sources of downstream tasks, which pretraining does not see, not even their training split
    pretrain_on_tasks: bool  # let pretraining see the training split of sources that a task names
    splits: dict[str, str]  # source -> split protocol; a source not named uses "default"
    workers: int  # decoding processes of ingest; 0: this process, which a decoder that crashes or hangs takes with it
    input_seconds: int  # after which ingest gives up reading one input; 0: never
    thinning: dict[str, Thinning]  # source -> rule; "default" is for those not named


@dataclass
class AnatomyWord:
    """One rule: files whose text holds `word` show `anatomy`."""

    word: str  # regular expression, in any case
    anatomy: str


@dataclass
class Dicom:
    """What is read out of hospital DICOM beside its pixels."""

    burnt_in_text: str  # quarantine | mask
    anatomy_from: list[
        list[str]
    ]  # attributes, in order: the first group that names an anatomy decides
    anatomy_words: list[AnatomyWord]  # in order: the first word that is found decides
    image_types: dict[str, str]  # third value of ImageType -> anatomy


@dataclass
class Sample:
    """The sample corpus: synthetic phantoms and the real ultrasound files of pydicom-data."""

    images_per_anatomy: int
    images_per_task: int
    size: int  # height of a phantom image, pixels


@dataclass
class Model:
    """A-ViT (section 3.3)."""

    patch_size: int
    in_chans: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    conditioning: str  # acdt | cross_attention | film | lora | none
    deform_kernel: int  # side of the deformable kernel, patches
    anatomy_hidden: int  # width of the once-per-image anatomy MLP in each block


@dataclass
class Objective:
    """Which terms of eq. 6 are on, and their constants."""

    mim: bool  # L_MIM, eq. 3
    adversarial: bool  # L_adv, eq. 4
    self_distillation: bool  # L_SD, eq. 5
    patch_distillation: bool  # iBOT's loss on masked tokens; needs drop_masked: false
    contrastive: bool  # MoCo v3's loss
    weighting: str  # adaptive (eq. 6) | constant
    adversarial_weight: float  # the constant, or a factor on the adaptive weight
    max_adversarial_weight: float  # clamp of lambda
    mim_weight: float  # of L_MIM, a mean over a patch's pixels; eq. 3 is their sum, which is patch_size ** 2 here
    discriminator_start: (
        float  # share of the steps after which the generator sees the discriminator
    )
    reconstructed_crops: int  # global crops of an image that L_MIM and L_adv look at, at most
    mask_ratio: float
    drop_masked: bool  # encode visible tokens only; otherwise put a mask token in the grid
    norm_pix_loss: bool
    anatomy_dropout: float  # probability of the null condition in training
    prototypes: int  # K of L_SD
    head_hidden: int  # width of the projection head of L_SD, or of MoCo v3
    student_temp: float
    teacher_temp: float
    warmup_teacher_temp: float
    teacher_temp_warmup: float  # share of the steps
    teacher_momentum: float  # at step 0; rises to 1 by a cosine
    center_momentum: float
    centering: str  # center | sinkhorn
    contrastive_temp: float
    global_crops_scale: list[float]
    local_crops_scale: list[float]
    local_crops_number: int
    local_crops_size: int  # pixels
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    discriminator_dim: int
    discriminator_patches: int  # masked patches of an image that the discriminator judges


@dataclass
class Pretrain:
    batch_size: int  # images over all ranks
    share: float  # of the patients of the training split; smaller shares are parts of larger ones
    epochs: int
    max_steps: int  # 0: as many as `epochs` gives
    base_lr: float  # lr = base_lr * batch_size / 256
    min_lr: float
    warmup: float  # share of the steps
    weight_decay: float
    clip_grad: float
    precision: str  # fp32 | bf16
    zero_stage: int
    accumulation: int
    checkpoint_every: int  # steps
    examine_every: int  # steps between looks at the health of the features; 0: never
    examine_images: int  # of the training split, fixed by the seed
    grad_checkpointing: bool  # compute each block twice instead of keeping its activations
    compile: bool  # torch.compile of each block; needs a C++ compiler, or a GPU
    threads: int  # CPU threads of torch; part of the result, since sums are rounded per thread


@dataclass
class Finetune:
    share: float  # of the training patients of each label, for label efficiency
    epochs: int
    batch_size: int
    base_lr: float
    min_lr: float
    warmup: float  # share of the steps
    layer_decay: float  # 1 is the paper's recipe
    weight_decay: float
    clip_grad: float
    label_smoothing: float
    upernet_channels: int  # of a segmentation head
    precision: str
    zero_stage: int
    accumulation: int
    checkpoint_every: int  # steps


@dataclass
class Task:
    """A downstream task on the rows of the corpus."""

    kind: str  # classification | segmentation
    sources: list[str]
    anatomy: str
    classes: list[str]  # negative class first in a two-class task; ignored for segmentation
    mask: str  # what the mask shows (segmentation), e.g. "lv"
    margin: float  # largest loss of the main metric that still counts as not worse
    floor: float  # lowest main metric a release may have


@dataclass
class Probe:
    """Frozen features, `arl probe`."""

    pooling: str  # gap: the mean of the patch tokens | cls
    share: float  # as finetune.share
    solver: str  # logistic: to its end, for each of many penalties | sgd: for each of many learning rates
    batch_norm: bool  # features standardised before the head, as in MAE's linear probing
    neighbours: int  # of the k-NN classifier


@dataclass
class Evaluate:
    bootstrap: int  # resamples
    confidence: float
    anatomy: str  # what the model is told: given | none | shuffled, an audit of the conditioning


@dataclass
class Gate:
    bootstrap: int
    alpha: float
    min_slice_patients: int  # smaller slices are reported and not tested


@dataclass
class Release:
    signed: bool  # versions are signed with the key of $ARL_SIGNING_KEY, and none is used that $ARL_VERIFY_KEY refuses


@dataclass
class Drift:
    batches: list[str]  # "source/batch"; empty: the newest batch of each source that has several
    alpha: float
    drift_share: float  # share of drifted columns that makes a batch drift
    min_images: int


@dataclass
class Watch:
    """The loop on arriving data, `arl watch` and pipelines/arl_monitor.py."""

    source: str  # reader of what arrives; one that knows sites
    quiet_seconds: float  # a batch in a folder is complete when nothing in it changed for so long; 0: by its marker only
    cooldown_hours: float  # between the starts of two trainings
    max_refused: float  # share of its inputs above which a batch is refused as a whole
    attempts: int  # a run that failed so often is given up
    lease_hours: float  # a run on a cluster that gives no sign for so long is taken over


@dataclass
class Params:
    seed: int
    experiment: str
    data: Data
    dicom: Dicom
    sample: Sample
    model: Model
    objective: Objective
    pretrain: Pretrain
    finetune: Finetune
    tasks: list[str]  # the ones that run
    task: dict[str, Task]  # all that are defined
    probe: Probe
    evaluate: Evaluate
    gate: Gate
    release: Release
    drift: Drift
    watch: Watch


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def from_config(config: DictConfig, origin: str) -> Params:
    """Check a composed configuration against the schema.

    Raises:
        ValueError: an unknown key, a missing key or a wrong type, with its name.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Params), config)
        params = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"{origin}: {_one_line(error)}") from error
    assert isinstance(params, Params)
    undefined = [name for name in params.tasks if name not in params.task]
    if undefined:
        raise ValueError(
            f"{origin}: tasks names {undefined}, which task does not define; it has {sorted(params.task)}"
        )
    if len(set(params.tasks)) < len(params.tasks):
        raise ValueError(f"{origin}: tasks names a task twice: {params.tasks}")
    _refuse_leak(params, origin)
    return params


def _refuse_leak(params: Params, origin: str) -> None:
    """A set that a task is judged on is held out of pretraining, unless someone said otherwise."""
    data = params.data
    for task in params.tasks:
        for source in params.task[task].sources:
            seen = (not data.sources or source in data.sources) and source not in data.held_out
            if seen and not data.pretrain_on_tasks:
                rule = "put it into data.held_out, or set data.pretrain_on_tasks=true"
                raise ValueError(
                    f"{origin}: pretraining would see {source}, on which task {task} is judged: {rule}"
                )


def load(overrides: list[str], path: Path = PARAMS_FILE) -> Params:
    """Read params.yaml and apply `key=value` overrides.

    Raises:
        ValueError: the file or an override breaks the schema.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: run inside the project, or `arl configure` to write it"
        )
    try:
        config = OmegaConf.load(path)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path} is a list, not keys with values: `arl configure` writes it")
    base = from_config(config, str(path))
    known = OmegaConf.structured(base)
    for override in overrides:
        _apply(known, override)
    return from_config(known, "overrides")


def _apply(config: DictConfig, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ValueError(f"override {override!r} is not key=value")
    try:
        OmegaConf.update(
            config, key, OmegaConf.create(f"v: {text}").v, merge=False, force_add=False
        )
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"override {override!r}: {_one_line(error)}") from error


def to_literals(params: Params) -> dict[str, Any]:
    """Plain dictionaries and lists, for params.yaml: DVC does not see through interpolations."""
    literals = OmegaConf.to_container(OmegaConf.structured(params))
    assert isinstance(literals, dict)
    return {str(key): value for key, value in literals.items()}

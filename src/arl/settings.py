"""The settings of ARL: one class per section of params.yaml.

The engine, the objective and the thinning take these classes directly. Each field carries its
type, its valid range and its description; `arl.params` checks them and the reference lists them.
Values live in conf/ and params.yaml. This module imports nothing heavy, so that every layer may
use it.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, Interval(gt=0.0, le=1.0)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0.0)]
NonNegativeFloat = Annotated[float, Ge(0.0)]

Approval = Literal["automatic", "manual"]
Precision = Literal["fp32", "bf16"]
AnatomyInput = Literal["given", "none", "shuffled"]
Conditioning = Literal["acdt", "cross_attention", "film", "lora", "none"]


class Section:
    """A section of params.yaml: unknown keys, other types and non-finite numbers are errors."""

    # Strict: YAML gives numbers and booleans their types, so "1" for 1 is a mistake.
    __pydantic_config__: ClassVar[dict[str, str | bool]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
    }


@dataclass
class Thinning(Section):
    """Which frames of a clip ingest keeps. Stills, masked and official frames always stay."""

    every: Annotated[PositiveInt, "Keep every n-th frame of a clip. 1 keeps all."] = 1
    distance: Annotated[
        int,
        Interval(ge=0, le=64),
        "Drop a frame whose 64-bit perceptual hash differs from the last kept frame's in fewer "
        "bits. 0 turns this rule off.",
    ] = 0
    max_frames: Annotated[
        NonNegativeInt, "Largest number of frames of a clip, evenly spaced. 0 sets no limit."
    ] = 0


@dataclass
class Data(Section):
    """The part of the corpus to use, and how images are stored and read."""

    size: Annotated[PositiveInt, "Side of the square network input, in pixels."]
    store_size: Annotated[
        PositiveInt,
        "Long side of a stored image, in pixels. Ingest scales larger images down and never up.",
    ]
    sources: Annotated[list[str], "Sources used for pretraining. Empty: all of the corpus."]
    held_out: Annotated[
        list[str], "Sources that pretraining never reads, not even their training split."
    ]
    pretrain_on_tasks: Annotated[
        bool, "Let pretraining read the training split of sources that a task names."
    ]
    splits: Annotated[dict[str, str], "Split protocol of each source. Other sources use `default`."]
    workers: Annotated[
        NonNegativeInt,
        "Decoding processes of ingest. 0 decodes in the main process, without isolation from a "
        "decoder that crashes.",
    ]
    input_seconds: Annotated[
        NonNegativeInt, "Time limit for reading one input, in seconds. 0 sets no limit."
    ]
    max_refused: Annotated[
        Fraction,
        "Largest fraction of refused inputs with which ingest writes a batch. 1 also accepts a "
        "batch that loses a whole class.",
    ]
    thinning: Annotated[
        dict[str, Thinning], "Thinning of each source. `default` holds for other sources."
    ]
    contradictory: Annotated[
        Literal["keep", "withhold"],
        "Near-identical images with different labels: keep them, or withhold them from training "
        "and validation. Test images always stay.",
    ] = "keep"


@dataclass
class AnatomyWord(Section):
    """One rule: files whose text matches `word` show `anatomy`."""

    word: Annotated[str, "Regular expression, matched without regard to case."]
    anatomy: Annotated[str, "An anatomy of the vocabulary."]


@dataclass
class Dicom(Section):
    """What ingest reads from hospital DICOM beside the pixels."""

    burnt_in_text: Annotated[
        Literal["mask", "quarantine"],
        "Mask text in the pixels, or quarantine every file that has some.",
    ]
    unidentified: Annotated[
        Literal["refuse", "accept"],
        "Files that name neither a patient nor a study: refuse them, or accept each as a group of "
        "its own, for training only.",
    ]
    anatomy_from: Annotated[
        list[list[str]],
        "Groups of DICOM attributes. The first group that names an anatomy decides.",
    ]
    anatomy_words: Annotated[list[AnatomyWord], "Rules in order. The first match decides."]
    image_types: Annotated[dict[str, str], "Third value of ImageType and the anatomy it means."]
    labels: Annotated[
        str,
        "CSV table of labels with one key column (patient, study, series, instance or file). "
        "Empty: no table.",
    ] = ""
    reports: Annotated[
        str, "Folder of DICOM structured reports whose findings become labels. Empty: none."
    ] = ""
    segmentations: Annotated[
        str, "Folder of DICOM segmentations (SEG) that become masks. Empty: none."
    ] = ""
    structure: Annotated[
        str,
        "Structure that masks from segmentations show, e.g. `nodule`. Empty: the only one of each "
        "image.",
    ] = ""


@dataclass
class Sample(Section):
    """The sample corpus: synthetic phantoms and the public ultrasound files of pydicom-data."""

    images_per_anatomy: Annotated[NonNegativeInt, "Synthetic images of each anatomy."]
    images_per_task: Annotated[NonNegativeInt, "Synthetic images of each task."]
    size: Annotated[PositiveInt, "Height of a synthetic image, in pixels."]


@dataclass
class Model(Section):
    """The encoder A-ViT (section 3.3)."""

    patch_size: Annotated[int, Ge(2), "Side of a patch, in pixels."]
    in_chans: Annotated[PositiveInt, "Input channels."]
    embed_dim: Annotated[PositiveInt, "Width of the tokens."]
    depth: Annotated[PositiveInt, "Number of blocks."]
    num_heads: Annotated[PositiveInt, "Attention heads of a block."]
    mlp_ratio: Annotated[PositiveFloat, "Hidden width of the MLP, as a multiple of embed_dim."]
    conditioning: Annotated[Conditioning, "How the blocks use the anatomy."]
    deform_kernel: Annotated[PositiveInt, "Side of the deformable kernel, in patches."]
    anatomy_hidden: Annotated[PositiveInt, "Width of the anatomy MLP of each block."]
    deform_normalize: Annotated[
        bool,
        "Normalise the deformable sampling by the visible part of its kernel while patches are "
        "masked.",
    ]
    drop_path_rate: Annotated[
        float, Interval(ge=0.0, lt=1.0), "Stochastic depth of the last block; zero at the first."
    ]

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not divisible by num_heads {self.num_heads}"
            )


@dataclass
class Objective(Section):
    """The terms of eq. 6 and their constants."""

    mim: Annotated[bool, "Masked image modelling: L_MIM, eq. 3."]
    adversarial: Annotated[bool, "Adversarial reconstruction: L_adv, eq. 4. Needs mim."]
    self_distillation: Annotated[bool, "Self-distillation of the CLS token: L_SD, eq. 5."]
    patch_distillation: Annotated[bool, "iBOT's loss on masked tokens. Needs drop_masked=false."]
    contrastive: Annotated[bool, "MoCo v3's loss. Excludes both distillation terms."]
    self_distillation_tokens: Annotated[
        Literal["cls", "all"],
        "Output tokens of eq. 5: the CLS token, or also the student's patch tokens.",
    ]
    weighting: Annotated[
        Literal["adaptive", "constant"], "Lambda of eq. 6: adaptive, or constant_weight."
    ]
    constant_weight: Annotated[NonNegativeFloat, "Lambda of weighting=constant."]
    adversarial_weight: Annotated[
        NonNegativeFloat, "Factor of lambda * L_adv, outside of lambda. Paper: 1."
    ]
    max_adversarial_weight: Annotated[
        NonNegativeFloat, "Upper limit of the adaptive lambda. 0: no limit, as in the paper."
    ]
    mim_weight: Annotated[
        NonNegativeFloat,
        "Weight of L_MIM + lambda * L_adv against L_SD. Paper: 1. L_MIM is a mean over the "
        "pixels of a patch; the sum of eq. 3 equals patch_size ** 2.",
    ]
    discriminator_start: Annotated[
        Fraction, "Fraction of the steps after which L_adv trains the decoder."
    ]
    max_reconstructed_crops: Annotated[
        PositiveInt, "Largest number of global crops of an image for L_MIM and L_adv."
    ]
    mask_ratio: Annotated[
        float, Interval(ge=0.0, lt=1.0), "Fraction of the patches that are masked."
    ]
    mask_strategy: Annotated[
        Literal["random", "block"], "Random patches as in MAE, or blocks as in BEiT and iBOT."
    ]
    drop_masked: Annotated[
        bool, "Encode visible tokens only. Otherwise a mask token replaces masked ones."
    ]
    norm_pix_loss: Annotated[bool, "Normalise the pixels of each target patch, as MAE does."]
    anatomy_dropout: Annotated[Fraction, "Probability of hiding an image's anatomy in training."]
    prototypes: Annotated[PositiveInt, "Output size K of the self-distillation head."]
    head_hidden: Annotated[PositiveInt, "Hidden width of the projection head."]
    freeze_last_layer: Annotated[
        Fraction, "Fraction of the steps during which the prototypes are frozen, as in DINO."
    ]
    stop_grad_conv1: Annotated[
        bool, "Freeze the patch embedding at its random initialisation, as MoCo v3 does."
    ]
    student_temp: Annotated[PositiveFloat, "Temperature of the student."]
    teacher_temp: Annotated[PositiveFloat, "Temperature of the teacher after its warm-up."]
    warmup_teacher_temp: Annotated[PositiveFloat, "Temperature of the teacher at step 0."]
    teacher_temp_warmup: Annotated[Fraction, "Warm-up of the temperature: fraction of the steps."]
    teacher_momentum: Annotated[
        Fraction, "Momentum of the teacher at step 0. It rises to 1 along a cosine."
    ]
    center_momentum: Annotated[Fraction, "Momentum of the centre of the teacher's outputs."]
    centering: Annotated[
        Literal["center", "sinkhorn"], "How the teacher's outputs are kept from collapse."
    ]
    contrastive_temp: Annotated[PositiveFloat, "Temperature of the contrastive loss."]
    global_crops_scale: Annotated[
        list[PositiveFraction], "Smallest and largest area of a global crop."
    ]
    local_crops_scale: Annotated[
        list[PositiveFraction], "Smallest and largest area of a local crop."
    ]
    local_crops_number: Annotated[NonNegativeInt, "Local crops of an image."]
    local_crops_size: Annotated[PositiveInt, "Side of a local crop, in pixels."]
    decoder_dim: Annotated[PositiveInt, "Width of the decoder."]
    decoder_depth: Annotated[PositiveInt, "Blocks of the decoder."]
    decoder_heads: Annotated[PositiveInt, "Attention heads of the decoder."]
    discriminator_dim: Annotated[PositiveInt, "Width of the discriminator's first layer."]
    discriminator_patches: Annotated[
        PositiveInt, "Masked patches of an image that the discriminator classifies."
    ]

    def __post_init__(self) -> None:
        if not (self.mim or self.has_teacher):
            raise ValueError(
                "the objective has no term: set mim, self_distillation, patch_distillation or "
                "contrastive"
            )
        if self.adversarial and not self.mim:
            raise ValueError("adversarial needs mim: it classifies reconstructed patches")
        if self.contrastive and (self.self_distillation or self.patch_distillation):
            raise ValueError(
                "contrastive excludes self_distillation and patch_distillation: they use another "
                "head"
            )
        if self.patch_distillation and self.drop_masked:
            raise ValueError("patch_distillation compares masked tokens: set drop_masked to false")
        for name in ("global_crops_scale", "local_crops_scale"):
            scale = getattr(self, name)
            if len(scale) != 2 or scale[0] > scale[1]:
                raise ValueError(f"{name} is {scale}: it needs the smallest and the largest area")

    @property
    def has_teacher(self) -> bool:
        """Whether a moving average of the encoder gives targets."""
        return self.self_distillation or self.patch_distillation or self.contrastive

    @property
    def distills_patches(self) -> bool:
        """Whether the teacher's patch tokens are targets."""
        return self.patch_distillation or (
            self.self_distillation and self.self_distillation_tokens == "all"
        )

    @property
    def global_crops_number(self) -> int:
        """G: a teacher compares two views, reconstruction needs one."""
        return 2 if self.has_teacher else 1

    @property
    def masks(self) -> bool:
        """Whether the student gets masked images."""
        return self.mim or self.patch_distillation


@dataclass
class Training(Section):
    """The settings of the training engine, for pretraining and fine-tuning."""

    fraction: Annotated[
        PositiveFraction,
        "Fraction of the training patients. Smaller fractions are subsets of larger ones.",
    ]
    epochs: Annotated[PositiveInt, "Passes over the training images."]
    batch_size: Annotated[
        PositiveInt, "Images of one optimiser step, over all ranks and accumulation steps."
    ]
    base_lr: Annotated[
        PositiveFloat, "Learning rate of 256 images. The rate is base_lr * batch_size / 256."
    ]
    min_lr: Annotated[NonNegativeFloat, "Learning rate at the last step."]
    warmup: Annotated[Fraction, "Warm-up of the learning rate: fraction of the steps."]
    weight_decay: Annotated[NonNegativeFloat, "Weight decay of AdamW at the first step."]
    weight_decay_end: Annotated[
        NonNegativeFloat | None, "Weight decay at the last step, along a cosine. null: constant."
    ]
    betas: Annotated[list[Fraction], "Betas of AdamW."]
    clip_grad: Annotated[NonNegativeFloat, "Largest norm of the gradient. 0 sets no limit."]
    precision: Annotated[Precision, "Number format of matrix products."]
    zero_stage: Annotated[int, Interval(ge=0, le=2), "DeepSpeed's ZeRO stage."]
    gradient_accumulation_steps: Annotated[
        PositiveInt, "Micro-batches of one optimiser step on each rank."
    ]
    checkpoint_every: Annotated[
        NonNegativeInt, "Optimiser steps between two resumable checkpoints. 0: none."
    ]

    @property
    def lr(self) -> float:
        """The highest learning rate, which grows with the batch as in MAE."""
        return self.base_lr * self.batch_size / 256


@dataclass
class Pretrain(Training):
    """Pretraining of the encoder."""

    max_steps: Annotated[NonNegativeInt, "Optimiser steps. 0: as many as `epochs` gives."]
    eval_every: Annotated[
        NonNegativeInt, "Steps between two measurements of the features (RankMe, k-NN). 0: none."
    ]
    eval_images: Annotated[
        PositiveInt, "Training images of that measurement. The seed decides which."
    ]
    grad_checkpointing: Annotated[
        bool, "Compute each block's activations twice instead of storing them."
    ]
    compile: Annotated[
        bool, "Compile each block with torch.compile. Needs a C++ compiler or a GPU."
    ]
    threads: Annotated[
        PositiveInt,
        "CPU threads of PyTorch. They are part of the result, since each thread rounds its sums.",
    ]


@dataclass
class Finetune(Training):
    """Fine-tuning of the encoder for a task."""

    layer_decay: Annotated[
        PositiveFraction, "Factor of the learning rate from a layer to the one below. Paper: 1."
    ]
    label_smoothing: Annotated[float, Interval(ge=0.0, lt=1.0), "Label smoothing."]
    upernet_channels: Annotated[PositiveInt, "Channels of a segmentation head."]
    min_steps: Annotated[
        NonNegativeInt, "Least number of optimiser steps, if `epochs` gives fewer. 0: no minimum."
    ]


@dataclass
class Task(Section):
    """A downstream task on the rows of the corpus."""

    kind: Annotated[Literal["classification", "segmentation"], "Kind of the task."]
    sources: Annotated[list[str], "Sources of the task. Empty: all that have its labels."]
    anatomy: Annotated[str, "The anatomy of the task's images."]
    classes: Annotated[
        list[str],
        "Classes of a classification. Of two classes the first is the negative one.",
    ]
    mask: Annotated[str, "Structure that the mask of a segmentation outlines, e.g. `lv`."]
    margin: Annotated[
        Fraction, "Largest loss of the main metric that the gate still counts as not worse."
    ]
    floor: Annotated[Fraction, "Lowest main metric of a release."]
    label: Annotated[
        str, "Label that the task predicts, by name. Empty: the class of the source's main task."
    ] = ""
    batch_size: Annotated[
        PositiveInt | None, "Batch of the fine-tuning. null: finetune.batch_size."
    ] = None
    base_lr: Annotated[
        PositiveFloat | None, "Learning rate of 256 images. null: finetune.base_lr."
    ] = None

    def __post_init__(self) -> None:
        if self.kind == "classification" and len(set(self.classes)) < 2:
            raise ValueError(
                f"classes is {self.classes}: a classification needs two different ones"
            )
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes names a class twice: {self.classes}")
        if self.kind == "segmentation" and not self.mask:
            raise ValueError("mask is empty: a segmentation needs the name of its mask, e.g. lv")


@dataclass
class Probe(Section):
    """Linear and k-NN probing of frozen features, `arl probe`."""

    pooling: Annotated[Literal["gap", "cls"], "Features: mean of the patch tokens, or CLS token."]
    fraction: Annotated[PositiveFraction, "Fraction of the training patients of each label."]
    solver: Annotated[
        Literal["logistic", "sgd"],
        "Solver of the linear probe: converged for each penalty, or SGD for each learning rate.",
    ]
    batch_norm: Annotated[bool, "Standardise the features, as MAE's linear probing does."]
    augmented_views: Annotated[
        NonNegativeInt,
        "Random crops and flips of each training image, one per epoch in turn (solver=sgd). "
        "0: the whole image.",
    ]
    neighbours: Annotated[PositiveInt, "Neighbours of the k-NN classifier."]


@dataclass
class Evaluate(Section):
    """Evaluation of a task model on the test split."""

    bootstrap: Annotated[PositiveInt, "Bootstrap resamples of the patients."]
    confidence: Annotated[float, Interval(gt=0.0, lt=1.0), "Confidence level of the intervals."]
    anatomy: Annotated[
        AnatomyInput,
        "Anatomy that the model gets: the image's, none, or another image's. The last two audit "
        "the conditioning.",
    ]


@dataclass
class Gate(Section):
    """Statistics of the release gate."""

    bootstrap: Annotated[PositiveInt, "Bootstrap resamples of the patients."]
    alpha: Annotated[
        float,
        Interval(gt=0.0, lt=1.0),
        "Probability that a model worse by the margin is released, over all tries on a test set; "
        "and of a false rejection for a slice, over all slices.",
    ]
    min_patients: Annotated[PositiveInt, "Test patients that a release needs."]
    min_slice_patients: Annotated[
        PositiveInt, "Patients that a subgroup needs to be tested. Smaller ones are listed."
    ]
    max_trials: Annotated[
        PositiveInt, "Decisions on the patients of a test set. Then it is exhausted."
    ]
    max_calibration_error: Annotated[
        float,
        Interval(ge=0.0, le=1.0),
        "Calibration error beyond which, and beyond chance, a model is rejected.",
    ]


@dataclass
class Release(Section):
    """What a release needs."""

    signed: Annotated[
        bool,
        "Sign versions with $ARL_SIGNING_KEY and use only those that $ARL_VERIFY_KEY verifies.",
    ]


@dataclass
class Drift(Section):
    """The drift decision on arriving batches."""

    batches: Annotated[
        list[str],
        "Batches as source/batch. Empty: the newest batch of each source that has several.",
    ]
    alpha: Annotated[float, Interval(gt=0.0, lt=1.0), "Probability of a false alarm."]
    drift_fraction: Annotated[
        PositiveFraction, "Fraction of drifted columns from which a batch drifts."
    ]
    min_images: Annotated[PositiveInt, "Images that a batch needs for a decision."]


@dataclass
class Watch(Section):
    """The monitoring loop, `arl watch` and pipelines/arl_monitor.py."""

    source: Annotated[str, "Reader of arriving batches. It must know the site."]
    settle_seconds: Annotated[
        NonNegativeFloat,
        "A folder without a completion marker is complete after this time without a change. "
        "0: a marker is needed.",
    ]
    cooldown_hours: Annotated[NonNegativeFloat, "Least time between the starts of two trainings."]
    max_refused: Annotated[
        Fraction, "Largest fraction of refused inputs with which a batch is accepted."
    ]
    attempts: Annotated[PositiveInt, "Failures after which a run is set aside until `arl retry`."]
    approval: Annotated[
        Approval, "Whether only doubtful batches or all batches wait for `arl approve`."
    ]
    lease_hours: Annotated[
        PositiveFloat, "Time without a sign of life after which another process takes a run over."
    ]

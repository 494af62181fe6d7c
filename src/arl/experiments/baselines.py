"""Encoders that were not pretrained here: published ones, and random weights."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from arl.documents import Document
from arl.files import sha256
from arl.loading.transforms import MEAN, STD
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.models.baselines.convert import import_baseline
from arl.models.baselines.layouts import METHODS
from arl.params import Params
from arl.training.checkpoint import save_model

SUPERVISED = "supervised"  # random weights: only the labels of fine-tuning teach this encoder


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of each channel of the method's input."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class BaselineReport(Document):
    """report.json beside an imported encoder."""

    FORMAT: ClassVar[str] = "arl.baseline"
    VERSION: ClassVar[int] = 1
    FILE: ClassVar[str] = "report.json"

    method: str
    licence: str
    parameters: int
    file: str | None = None
    sha256: str | None = None
    layout: str | None = None  # of the file
    container: str | None = None  # entry of the file that held the tensors
    dropped: list[str] = field(default_factory=list)  # tensors of the file that are not used
    # tensor -> its shapes in the file and in the encoder
    resampled: dict[str, list[list[int]]] = field(default_factory=dict)
    normalisation: Normalisation | None = None
    input_transform: str | None = None
    pooling: str | None = None
    seed: int | None = None  # of random weights


def import_published(params: Params, method: str, file: Path, out: Path) -> BaselineReport:
    """Write the encoder in a method's official file as a checkpoint folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown method, or a file that is not wholly understood.
    """
    # Weights are converted once, so that every later stage sees one format.
    imported = import_baseline(method, file, size=params.data.size, grey=(MEAN, STD))
    facts = METHODS[method]
    mean, std = facts.normalisation
    report = BaselineReport(
        method=method,
        licence=facts.licence,
        parameters=_count(imported.encoder),
        file=file.name,
        sha256=sha256(file),
        layout=imported.layout,
        container=imported.container,
        dropped=imported.dropped,
        resampled=imported.resampled,
        normalisation=Normalisation(list(mean), list(std)),
        input_transform=f"gaussian_blur({facts.blur})" if facts.blur else None,
        pooling=facts.pooling,
    )
    config = EncoderConfig(params.data.size, imported.config)
    documents = {BaselineReport.FILE: report.to_json()}
    save_model(out, imported.encoder, config, documents=documents)
    return report


def write_random_encoder(params: Params, out: Path) -> BaselineReport:
    """Write the model of params.yaml with random weights by its seed as a checkpoint folder."""
    # Random weights are a baseline too, and have to be the same in each run.
    torch.manual_seed(params.seed)
    arguments = {"img_size": params.data.size, **asdict(params.model)}
    encoder = AViT(**arguments)
    report = BaselineReport(SUPERVISED, "none", _count(encoder), seed=params.seed)
    config = EncoderConfig(params.data.size, arguments)
    save_model(out, encoder, config, documents={BaselineReport.FILE: report.to_json()})
    return report


def _count(encoder: nn.Module) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())

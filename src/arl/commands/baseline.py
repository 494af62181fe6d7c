"""Take a published encoder's official file into ARL."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from arl.files import sha256
from arl.loading.transforms import MEAN, STD
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.models.baselines.convert import import_baseline
from arl.models.baselines.layouts import METHODS
from arl.params import Params
from arl.training.checkpoint import save_model

SUPERVISED = "supervised"


def baseline(params: Params, action: str, method: str, files: list[Path], *, out: Path) -> None:
    """Take a published encoder's official file into ARL, e.g. `arl baseline import mae FILE --out out/mae`.

    Methods: mae, moco_v3, dino, ibot, siglip2, dino_v3, lvm_med, dmae, usfm, usf_mae; and
        supervised, the model of params.yaml with random weights, for which there is no file. The
        folder is a checkpoint like that of `arl pretrain`, for images of data.size pixels, with a
        report.json of what was read, left out and resampled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown action or method, not one file, or a file that is not wholly
            understood.
    """
    if action != "import":
        raise ValueError(f"unknown action {action!r}: the only one is import")
    expected = 0 if method == SUPERVISED else 1
    if len(files) != expected:
        raise ValueError(
            f"baseline {method} is made of {expected} file{'s' * (expected != 1)}, got {len(files)}"
        )
    report = (
        _supervised(params, out)
        if method == SUPERVISED
        else _imported(params, method, files[0], out)
    )
    print(f"{out}: {method}, {report['layout'] or 'no'} file, licence {report['licence']}")
    print(
        f"  {report['parameters']:,} parameters; tensors left out or resampled are listed in {out / 'report.json'}"
    )


def _imported(params: Params, method: str, file: Path, out: Path) -> dict[str, Any]:

    found = import_baseline(method, file, size=params.data.size, grey=(MEAN, STD))
    about = METHODS[method]
    report = {
        "method": method,
        "file": file.name,
        "sha256": sha256(file),
        "layout": found.layout,
        "container": found.container,
        "licence": about.licence,
        "parameters": sum(parameter.numel() for parameter in found.encoder.parameters()),
        "dropped": found.dropped,
        "resampled": found.resampled,
        "normalisation": {
            "mean": list(about.normalisation[0]),
            "std": list(about.normalisation[1]),
        },
        "input_transform": f"gaussian_blur({about.blur})" if about.blur else None,
        "pooling": about.pooling,
    }
    config = EncoderConfig(params.data.size, found.config)
    save_model(out, found.encoder, config, documents={"report.json": report})
    return report


def _supervised(params: Params, out: Path) -> dict[str, Any]:
    """Random weights by the seed: what fine-tuning makes of it was learned from the labels alone."""

    torch.manual_seed(params.seed)
    config = {"img_size": params.data.size, **asdict(params.model)}
    encoder = AViT(**config)
    report: dict[str, Any] = {
        "method": SUPERVISED,
        "layout": None,
        "licence": "none",
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "dropped": [],
        "resampled": {},
        "seed": params.seed,
    }
    about = EncoderConfig(params.data.size, config)
    save_model(out, encoder, about, documents={"report.json": report})
    return report

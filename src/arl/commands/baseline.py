"""Import the official file of a published encoder."""

from pathlib import Path
from typing import Literal

from arl import console
from arl.experiments.baselines import (
    SUPERVISED,
    BaselineReport,
    import_published,
    write_random_encoder,
)
from arl.params import Params


def baseline(
    params: Params, action: Literal["import"], method: str, files: list[Path], *, out: Path
) -> None:
    """Import the official file of a published encoder.

    Writes a checkpoint folder like that of `arl pretrain`, for images of data.size pixels. Its
    report.json lists the tensors that were left out or resampled. Example: `arl baseline import
    mae mae_pretrain_vit_base.pth --out out/baselines/mae`.

    Args:
        action: import, the only action.
        method: mae, moco_v3, dino, ibot, siglip2, dino_v3, lvm_med, dmae, usfm or usf_mae; or
            supervised, the model of params.yaml with random weights, which takes no file.
        files: the official file.
        out: the checkpoint folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown action or method, not one file, or a file that is not wholly
            understood.

    Writes:
        out

    Next:
        arl probe --task breast --corpus data --checkpoint {out} --metrics {out}/probe.json

    Examples:
        arl baseline import mae mae_pretrain_vit_base.pth --out out/baselines/mae
        arl baseline import supervised --out out/baselines/supervised
    """
    if action != "import":
        raise ValueError(f"unknown action {action!r}: the only one is import")
    # The supervised baseline starts from random weights, which no file holds.
    expected = 0 if method == SUPERVISED else 1
    if len(files) != expected:
        plural = "s" * (expected != 1)
        raise ValueError(f"baseline {method} takes {expected} file{plural}, got {len(files)}")
    if method == SUPERVISED:
        report = write_random_encoder(params, out)
    else:
        report = import_published(params, method, files[0], out)
    console.info(f"{out}: {method}, {report.layout or 'no'} file, licence {report.licence}")
    listing = out / BaselineReport.FILE
    console.info(
        f"  {report.parameters:,} parameters; {listing} lists dropped and resampled tensors"
    )

"""Five steps of the full objective on phantoms: a refactoring must not move them.

`python tests/training/test_golden.py` writes the curve anew, after a change that means to move it.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from arl import params as parameters
from arl.commands.sample import sample
from arl.corpus.anatomy import ANATOMIES
from arl.evaluation.pretraining import PretrainingMetrics
from arl.objectives.collapse_metrics import clamped_fraction
from arl.stages.pretrain import pretrain

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden.json")
TERMS = (
    *("loss", "sd", "mim", "d", "adv", "lambda", "lambda_clamped"),
    *("teacher_entropy", "grad_norm"),
)
MAX_CLAMPED = 0.05  # fraction of the steps with L_adv in which lambda may be at its limit
OVERRIDES = [
    "sample.images_per_anatomy=2",
    "sample.images_per_task=0",
    "sample.size=48",
    "data.size=32",
    "data.store_size=48",
    "data.workers=1",
    "model.patch_size=8",
    "model.embed_dim=24",
    "model.depth=4",
    "model.num_heads=3",
    "model.anatomy_hidden=8",
    "objective.mask_ratio=0.5",
    "objective.local_crops_size=16",
    "objective.prototypes=16",
    "objective.head_hidden=32",
    "objective.decoder_dim=16",
    "objective.decoder_depth=1",
    "objective.decoder_heads=2",
    "objective.discriminator_dim=4",
    "pretrain.batch_size=8",
    "pretrain.base_lr=1e-3",
    "pretrain.max_steps=5",
    "pretrain.threads=1",
]


def curve(folder: Path) -> list[dict[str, float]]:
    """The terms of five steps on a corpus of two phantoms for each anatomy and scanner."""
    params = parameters.load(OVERRIDES, ROOT / "params.yaml")
    params = replace(
        params, objective=replace(params.objective, discriminator_start=0.4, adversarial_weight=1.0)
    )
    sample(params, corpus=folder / "data")
    pretrain(
        params,
        corpus=folder / "data",
        checkpoint=folder / "checkpoint",
        metrics=folder / "metrics.json",
    )
    history = PretrainingMetrics.read(folder / "metrics.json").history
    return [{name: record[name] for name in TERMS if name in record} for record in history]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARL_RUNS", str(folder / "runs"))
        return curve(folder)


def test_the_curve_has_not_moved(measured: list[dict[str, float]]) -> None:
    assert len(ANATOMIES) == 16
    golden = json.loads(GOLDEN.read_text())
    for step, (record, expected) in enumerate(zip(measured, golden, strict=True)):
        assert record == pytest.approx(expected, rel=2e-4), f"step {step + 1}"


def test_lambda_is_rarely_at_its_limit(measured: list[dict[str, float]]) -> None:
    """At its limit lambda is a constant, and eq. 6 balances nothing."""
    assert clamped_fraction(measured) <= MAX_CLAMPED
    assert len({record["lambda"] for record in measured}) > 2


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        lines = ",\n ".join(json.dumps(record) for record in curve(Path(temporary)))
    GOLDEN.write_text(f"[{lines}]\n")

"""The rows of conf/paper, composed: each differs from the row before in what its table says."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from arl.composition import compose
from arl.experiments.spec import Experiment, Row, experiment_names, read_experiment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "conf" / "paper"

PLAIN = {"model.conditioning"}
# What each objective changes of `arl`; the scales below `paper` start from `arl_short`.
SHORT = {
    "objective.mim_weight",
    "objective.adversarial_weight",
    "objective.discriminator_start",
    "objective.mask_ratio",
}
MAE = {"objective.adversarial", "objective.self_distillation", "objective.norm_pix_loss"}
DINO = {"objective.mim", "objective.adversarial"}
IBOT = DINO | {
    "objective.patch_distillation",
    "objective.mask_ratio",
    "objective.mask_strategy",
    "objective.drop_masked",
}
FRACTION = {"finetune.fraction"}

# Table -> each pair of neighbouring rows -> the settings that the table says they differ in.
DIFFERENCES: dict[str, list[set[str]]] = {
    "busbra": [
        MAE,  # supervised (its objective plays no part) and MAE
        MAE ^ DINO,  # MAE and DINO
        DINO,  # DINO and A-ViT without ACDT
        PLAIN,  # without and with ACDT
    ],
    "figure3": [MAE | PLAIN, MAE | PLAIN],  # natural images have no settings of a pretraining
    "figure4": [
        *[FRACTION] * 5,
        MAE | PLAIN | FRACTION,
        *[FRACTION] * 5,
        MAE | FRACTION,
        *[FRACTION] * 5,
    ],
    "figure5": [PLAIN, MAE - {"objective.norm_pix_loss"}],
    "frozen": [MAE | PLAIN, MAE],
    "table2": [PLAIN, *[set()] * 8],
    "table3": [
        {"objective.adversarial", "objective.self_distillation"} | PLAIN,
        PLAIN,
        {"objective.adversarial"},
        {"objective.self_distillation"},
    ],
    "table4": [set()] * 8,
    "table6": [{"pretrain.fraction"}, {"pretrain.fraction"}],
    "table7": [
        MAE | PLAIN,
        MAE | PLAIN,
        DINO | PLAIN,
        DINO | PLAIN,
        IBOT | PLAIN,
        IBOT | PLAIN,
    ],
    "table8": [PLAIN] * 3,
    "table9": [{"objective.weighting"}],
}


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: leaf
        for key, item in value.items()
        for name, leaf in flat(item, f"{prefix}.{key}" if prefix else key).items()
    }


def composed(experiment: Experiment, row: Row, scale: str) -> dict[str, Any]:
    choices = [*experiment.scales[scale].choices, *row.choices]
    return flat(asdict(compose(choices, ROOT / "conf")))


def differences(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    return {name for name in first | second if first.get(name) != second.get(name)}


def test_every_table_with_rows_is_listed() -> None:
    with_rows = {name for name in experiment_names(FOLDER) if read_experiment(FOLDER, name).rows}
    assert set(DIFFERENCES) == with_rows


@pytest.mark.parametrize("name", sorted(DIFFERENCES))
def test_neighbours_differ_in_what_the_table_says(name: str) -> None:
    experiment = read_experiment(FOLDER, name)
    rows = [composed(experiment, row, "paper") for row in experiment.rows]
    assert [differences(*pair) for pair in pairwise(rows)] == DIFFERENCES[name]


@pytest.mark.parametrize("scale", ["laptop", "busbra"])
@pytest.mark.parametrize("name", ["table3", "table6", "table8", "table9"])
def test_ablations_differ_in_the_same_at_every_scale(name: str, scale: str) -> None:
    experiment = read_experiment(FOLDER, name)
    rows = [composed(experiment, row, scale) for row in experiment.rows]
    assert [differences(*pair) for pair in pairwise(rows)] == DIFFERENCES[name]


@pytest.mark.parametrize("scale", ["laptop", "busbra"])
@pytest.mark.parametrize("name", sorted(DIFFERENCES))
def test_other_objectives_differ_at_most_in_the_scale_of_short_runs(name: str, scale: str) -> None:
    experiment = read_experiment(FOLDER, name)
    rows = [composed(experiment, row, scale) for row in experiment.rows]
    for pair, expected in zip(pairwise(rows), DIFFERENCES[name], strict=True):
        assert differences(*pair) <= expected | (
            SHORT if expected & MAE | expected & DINO else set()
        )

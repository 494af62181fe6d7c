"""Models that no one has trained, measured and released, for commands that use models."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from arl import params as parameters
from arl.models.avit import AViT
from arl.stages.evaluate import evaluate
from arl.stages.gate import gate
from arl.stages.release import release
from arl.training.checkpoint import build_task_model, save_model

ROOT = Path(__file__).parents[2]


class Released(NamedTuple):
    """Folders of an encoder, models and evaluations, and the registry they were released to."""

    checkpoint: Path
    models: Path
    evaluations: Path
    registry: Path


@pytest.fixture(scope="session")
def shelf(tiny_overrides: list[str], tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured and released models of breast and lv, for copies of it."""
    params = parameters.load(tiny_overrides, ROOT / "params.yaml")
    tasks = {name: replace(task, floor=0.0, margin=0.99) for name, task in params.task.items()}
    params = replace(params, task=tasks)
    folder = tmp_path_factory.mktemp("released")
    place = Released(*(folder / name for name in Released._fields))
    config = {"encoder": {"img_size": params.data.size, **asdict(params.model)}, "size": params.data.size}
    torch.manual_seed(0)
    save_model(place.checkpoint, AViT(**config["encoder"]), {**config, "kind": "encoder"})
    for task in params.tasks:
        about = {name: getattr(params.task[task], name) for name in ("kind", "classes", "anatomy", "mask")}
        channels = params.finetune.upernet_channels
        network = build_task_model(AViT(**config["encoder"]), about, channels)
        head = {"kind": "task", "name": task, "task": about, "upernet_channels": channels}
        save_model(place.models / task, network, {**config, **head})
        measured = place.evaluations / task
        evaluate(params, task=task, corpus=tiny_corpus, model=place.models / task, evaluation=measured)
    files = {
        "models": sorted(place.models.iterdir()),
        "evaluations": sorted(place.evaluations.iterdir()),
        "registry": str(place.registry),
        "decision": folder / "decision",
    }
    gate(params, corpus=tiny_corpus, **files)
    release(params, checkpoint=place.checkpoint, receipt=folder / "receipt.json", **files)
    return folder


@pytest.fixture
def released(shelf: Path, tmp_path: Path) -> Released:
    """Models of breast and lv that a test may change, measured and released."""
    shutil.copytree(shelf, tmp_path / "released")
    return Released(*(tmp_path / "released" / name for name in Released._fields))

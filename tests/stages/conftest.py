"""Models that no one has trained, in the folders that training writes."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from arl.evaluation.decision import Decision, read_decision
from arl.model_config import EncoderConfig, TaskHead, TaskModelConfig
from arl.models.avit import AViT
from arl.params import Params
from arl.stages.evaluate import evaluate
from arl.stages.gate import gate
from arl.stages.release import release
from arl.storage.metadata import Receipt
from arl.tasks.make import make_kind
from arl.training.checkpoint import save_model


class Run:
    """A run with a seed in place of training; `judge` and `publish` are the stages themselves."""

    def __init__(
        self, params: Params, corpus: Path, folder: Path, registry: Path, seed: int
    ) -> None:
        self.params = params
        self.corpus = corpus
        self.folder = folder
        self.registry = registry
        self.config = EncoderConfig(
            params.data.size, {"img_size": params.data.size, **asdict(params.model)}
        )
        torch.manual_seed(seed)
        if not folder.exists():
            save_model(
                folder / "pretrain",
                AViT(**self.config.encoder),
                self.config,
            )
            for task in params.tasks:
                self.make_model(task)

    def make_model(self, task: str) -> Path:
        settings, channels = self.params.task[task], self.params.finetune.upernet_channels
        head = TaskHead.of(settings)
        network = make_kind(head).build(AViT(**self.config.encoder), channels)
        config = TaskModelConfig(self.config.size, self.config.encoder, task, head, channels)
        save_model(self.folder / "models" / task, network, config)
        return self.folder / "models" / task

    @property
    def files(self) -> dict[str, object]:
        """What gate and release share."""
        return {
            "models": sorted((self.folder / "models").iterdir()),
            "evaluations": sorted((self.folder / "evaluations").iterdir()),
            "registry": str(self.registry),
            "decision": self.folder / "decision",
        }

    def measure(self) -> None:
        for task in self.params.tasks:
            folder = self.folder / "evaluations" / task
            evaluate(
                self.params,
                task=task,
                corpus=self.corpus,
                model=self.folder / "models" / task,
                evaluation=folder,
            )

    def judge(self) -> Decision:
        gate(self.params, corpus=self.corpus, **self.files)
        return read_decision(self.folder / "decision")

    def publish(self) -> Receipt:
        receipt = self.folder / "receipt.json"
        release(self.params, checkpoint=self.folder / "pretrain", **self.files, receipt=receipt)
        return Receipt.read(receipt)


@pytest.fixture
def lenient(tiny_params: Params) -> Params:
    """Parameters under which an untrained model may be released.

    Student's limits of six patients reach below a loss of 1.
    """
    tasks = {name: replace(task, floor=0.0, margin=2.0) for name, task in tiny_params.task.items()}
    gate = replace(tiny_params.gate, max_calibration_error=1.0)
    return replace(tiny_params, task=tasks, gate=gate)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were measured already: neither margins nor floors change what is measured."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def make_run(tiny_corpus: Path, tmp_path: Path, shelf: Path) -> Callable[..., Run]:
    """Measured runs that share a registry."""

    def make(params: Params, seed: int = 0) -> Run:
        name = f"run-{seed}"
        if not (shelf / name).exists():
            Run(params, tiny_corpus, shelf / name, tmp_path / "registry", seed).measure()
        shutil.copytree(shelf / name, tmp_path / name)
        return Run(params, tiny_corpus, tmp_path / name, tmp_path / "registry", seed)

    return make

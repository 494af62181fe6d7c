"""Stages run for many settings, each setting once, by one process or by several side by side."""

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from arl.commands.baseline import SUPERVISED, baseline
from arl.commands.configure import CONF, compose
from arl.commands.probe import probe
from arl.corpus.manifest import read_manifest
from arl.evaluation.comparison import Replicate
from arl.evaluation.predictions import read_predictions
from arl.evaluation.results import ProbeMetrics, read_metrics
from arl.experiments.spec import Experiment, Row
from arl.files import atomic_directory, read_json, sha256, tree_hash, write_json
from arl.model_config import read_config
from arl.params import Params
from arl.settings import AnatomyInput
from arl.stages.evaluate import evaluate
from arl.stages.finetune import finetune
from arl.stages.pretrain import pretrain

_SAID = ["id", "source", "patient", "clip", "anatomy", "label", "mask", "pixel_sha256"]


class ElsewhereError(Exception):
    """Another process is making this just now."""


class Runner:
    """Runs stages once for every setting, and keeps what they wrote under a hash of it."""

    def __init__(self, corpus: Path, work: Path, baselines: Path, changes: list[str]) -> None:
        """`changes` are choices of `arl configure` for every row."""
        self.corpus = corpus
        self.work = work
        self.baselines = baselines
        self.changes = changes
        self.absent: dict[str, str] = {}  # row -> why it was not run
        self.used: list[str] = []  # folders, in the order of use
        self.content = _content(corpus)

    def params_of(self, found: Experiment, scale: str, row: Row | None, replicate: int) -> Params:
        """The parameters of a row's replicate; None: what all rows have in common."""
        size, choices = found.scales[scale], row.choices if row else []
        return compose([*size.choices, *choices, *self.changes, *size.replicates[replicate]], CONF)

    def once(self, name: str, settings: Any, make: Callable[[Path], None]) -> Path:
        """The folder that `make` wrote for these settings, now or before.

        Raises:
            ElsewhereError: another process is making it.
        """
        digest = hashlib.sha256(
            json.dumps([self.content, settings], sort_keys=True).encode()
        ).hexdigest()[:16]
        folder = self.work / f"{name}-{digest}"
        if not folder.exists():
            with _alone(self.work / f"{folder.name}.lock"):
                if not folder.exists():  # another process may have made it before the lock was ours
                    self._timed(folder, make)
        self.used.append(folder.name)
        return folder

    def _timed(self, folder: Path, make: Callable[[Path], None]) -> None:
        begun = self.work / f"{folder.name}.begun"
        resumed = begun.exists()
        begun.touch()
        wall, cpu = time.perf_counter(), time.process_time()
        make(folder)
        spent = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        write_json(
            self.work / f"{folder.name}.time.json",
            {k: round(v, 1) for k, v in spent.items()} | {"resumed": resumed},
        )
        begun.unlink()

    def times(self, names: list[str]) -> pd.DataFrame:
        """What each of the trainings and measurements took when it was made: name, stage, seconds, cpu, resumed.

        `resumed`: it was killed before, so that the time is of its last part.
        """
        files = {name: self.work / f"{name}.time.json" for name in sorted(set(names))}
        known = [
            {"name": name, **read_json(file)} for name, file in files.items() if file.is_file()
        ]
        table = pd.DataFrame(known, columns=["name", "seconds", "cpu", "resumed"])
        return table.assign(stage=[name.partition("-")[0] for name in table["name"]])

    def encoder(self, params: Params, row: Row) -> Path | None:
        """The row's encoder; None where its weights are not to be had."""
        if row.baseline == SUPERVISED:
            settings = [params.seed, params.data.size, asdict(params.model)]
            return self.once(
                "supervised",
                settings,
                lambda to: baseline(params, "import", SUPERVISED, [], out=to),
            )
        if row.baseline is not None:
            return self._published(params, row)
        sections: list[Any] = [params.data, params.model, params.objective, params.pretrain]
        return self.once(
            "pretrain",
            [params.seed, *(asdict(section) for section in sections)],
            lambda to: self._pretrained(params, to),
        )

    def _pretrained(self, params: Params, to: Path) -> None:
        pretrain(params, corpus=self.corpus, checkpoint=to, metrics=self.work / f"{to.name}.json")

    def _published(self, params: Params, row: Row) -> Path | None:
        folder = self.baselines / str(row.baseline)
        command = (
            f"arl baseline import {row.baseline} FILE --out {folder} data.size={params.data.size}"
        )
        if not (folder / "config.json").is_file():
            self.absent[row.name] = f"no weights: {command}"
            return None
        if read_config(folder).size != params.data.size:
            self.absent[row.name] = f"imported for another image size: {command}"
            return None
        return folder

    def probed(self, params: Params, encoder: Path, task: str) -> Replicate:
        """The linear probe's predictions."""
        settings = [
            tree_hash(encoder),
            task,
            asdict(params.task[task]),
            asdict(params.probe),
            params.data.splits,
        ]
        folder = self.once(
            "probe",
            [params.seed, *settings, asdict(params.evaluate)],
            lambda to: self._probe(params, encoder, task, to),
        )
        return Replicate(
            read_predictions(folder / "predictions.parquet"),
            ProbeMetrics.read(folder / "metrics.json").threshold,
        )

    def _probe(self, params: Params, encoder: Path, task: str, to: Path) -> None:
        with atomic_directory(to) as folder:
            probe(
                params,
                task=task,
                corpus=self.corpus,
                checkpoint=encoder,
                metrics=folder / "metrics.json",
                predictions=folder / "predictions.parquet",
            )

    def finetuned(self, params: Params, encoder: Path, task: str, told: AnatomyInput) -> Replicate:
        """The fine-tuned model's predictions when it is `told` an anatomy."""
        settings = [
            params.seed,
            tree_hash(encoder),
            task,
            asdict(params.finetune),
            asdict(params.task[task]),
        ]
        model = self.once(
            "finetune",
            [*settings, params.data.splits],
            lambda to: finetune(
                params, task=task, corpus=self.corpus, checkpoint=encoder, model=to
            ),
        )
        params = replace(params, evaluate=replace(params.evaluate, anatomy=told))
        folder = self.once(
            "evaluate",
            [params.seed, tree_hash(model), task, asdict(params.evaluate), params.data.splits],
            lambda to: evaluate(params, task=task, corpus=self.corpus, model=model, evaluation=to),
        )
        return Replicate(
            read_predictions(folder / "predictions.parquet"),
            read_metrics(folder).threshold,
        )


def _content(corpus: Path) -> str:
    """Hash of what results depend on: images, labels, patients and splits."""
    rows = pd.util.hash_pandas_object(read_manifest(corpus)[_SAID], index=False).to_numpy()
    splits = [sha256(file) for file in sorted(corpus.glob("*/*/splits/*.parquet"))]
    return hashlib.sha256(rows.tobytes() + "".join(splits).encode()).hexdigest()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock that a killed process gives up.

    Raises:
        ElsewhereError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ElsewhereError(lock.stem) from error
        yield

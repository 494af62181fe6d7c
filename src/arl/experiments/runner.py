"""Stages run for many settings, each setting once, by one process or by several side by side."""

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from arl.composition import CONF, compose
from arl.corpus.manifest import read_manifest
from arl.documents import Json
from arl.evaluation.comparison import Replicate
from arl.evaluation.predictions import read_predictions, write_predictions
from arl.evaluation.results import ProbeMetrics, read_metrics
from arl.experiments.baselines import SUPERVISED, write_random_encoder
from arl.experiments.probing import probe_encoder
from arl.experiments.results import StageTime
from arl.experiments.spec import Experiment, Row
from arl.files import atomic_directory, sha256, tree_hash
from arl.model_config import read_config
from arl.params import Params
from arl.settings import AnatomyInput
from arl.stages.evaluate import evaluate
from arl.stages.finetune import finetune
from arl.stages.pretrain import pretrain

# Columns of the manifest that results depend on.
_CONTENT_COLUMNS = [
    "id",
    "source",
    "patient",
    "clip",
    "anatomy",
    "label",
    "mask",
    "pixel_sha256",
]


class LockedByAnotherProcess(Exception):  # noqa: N818 - a state, not an error of the program
    """Another process makes this folder at the moment."""


class Runner:
    """Runs stages once for every setting and keeps their folders under a hash of the setting."""

    def __init__(self, corpus: Path, work: Path, baselines: Path, changes: list[str]) -> None:
        """`changes` are choices of `arl configure` for every row."""
        self.corpus = corpus
        self.work = work
        self.baselines = baselines
        self.changes = changes
        self.absent: dict[str, str] = {}  # row -> why it was not run
        self.used: list[str] = []  # folders, in the order of use
        # Hash of what results depend on: images, labels, patients and splits.
        # Columns beside these (devices, depths) may be corrected without a new training.
        columns = read_manifest(corpus)[_CONTENT_COLUMNS]
        rows = pd.util.hash_pandas_object(columns, index=False).to_numpy()
        splits = [sha256(file) for file in sorted(corpus.glob("*/*/splits/*.parquet"))]
        self.content = hashlib.sha256(rows.tobytes() + "".join(splits).encode()).hexdigest()

    def params_of(
        self, experiment: Experiment, scale: str, row: Row | None, replicate: int
    ) -> Params:
        """The parameters of a row's replicate; without a row, those that all rows share."""
        size, choices = experiment.scales[scale], row.choices if row else []
        return compose([*size.choices, *choices, *self.changes, *size.replicates[replicate]], CONF)

    def cached(self, name: str, settings: list[Json], make: Callable[[Path], object]) -> Path:
        """The folder that `make` wrote for these settings, now or before.

        Raises:
            LockedByAnotherProcess: another process makes it.
        """
        # Sorted keys: the same settings give the same folder.
        text = json.dumps([self.content, settings], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        folder = self.work / f"{name}-{digest}"
        if not folder.exists():
            with exclusive_lock(self.work / f"{folder.name}.lock"):
                # Another process may have made it before this one got the lock.
                if not folder.exists():
                    self._measure_time(folder, make)
        self.used.append(folder.name)
        return folder

    def _measure_time(self, folder: Path, make: Callable[[Path], object]) -> None:
        # The marker outlives a killed process, so that the next one knows of it.
        begun = self.work / f"{folder.name}.begun"
        resumed = begun.exists()
        begun.touch()
        wall, cpu = time.perf_counter(), time.process_time()
        make(folder)
        StageTime(
            name=folder.name,
            seconds=round(time.perf_counter() - wall, 1),
            cpu=round(time.process_time() - cpu, 1),
            resumed=resumed,
        ).write(self.work / f"{folder.name}.time.json")
        begun.unlink()

    def times(self, names: Iterable[str]) -> list[StageTime]:
        """The times of the folders that were made with a clock."""
        files = [self.work / f"{name}.time.json" for name in sorted(set(names))]
        return [StageTime.read(file) for file in files if file.is_file()]

    def encoder(self, params: Params, row: Row) -> Path | None:
        """The row's encoder; None where its weights are missing, which `absent` then explains."""
        if row.baseline == SUPERVISED:
            settings: list[Json] = [params.seed, params.data.size, asdict(params.model)]
            return self.cached(
                "supervised", settings, lambda folder: write_random_encoder(params, folder)
            )
        if row.baseline is not None:
            return self._published(params, row)
        sections = [
            asdict(section)
            for section in (params.data, params.model, params.objective, params.pretrain)
        ]
        return self.cached(
            "pretrain", [params.seed, *sections], lambda folder: self._pretrain(params, folder)
        )

    def _pretrain(self, params: Params, folder: Path) -> None:
        history = self.work / f"{folder.name}.json"
        pretrain(params, corpus=self.corpus, checkpoint=folder, metrics=history)

    def _published(self, params: Params, row: Row) -> Path | None:
        folder = self.baselines / str(row.baseline)
        command = (
            f"arl baseline import {row.baseline} FILE --out {folder} data.size={params.data.size}"
        )
        if not (folder / "config.json").is_file():
            self.absent[row.name] = f"no weights: {command}"
            return None
        # Position embeddings were resampled for one image size at the import.
        if read_config(folder).size != params.data.size:
            self.absent[row.name] = f"imported for another image size: {command}"
            return None
        return folder

    def probed(self, params: Params, encoder: Path, task: str) -> Replicate:
        """The linear probe's predictions."""
        settings: list[Json] = [
            params.seed,
            tree_hash(encoder),
            task,
            asdict(params.task[task]),
            asdict(params.probe),
            params.data.splits,
            asdict(params.evaluate),
        ]
        folder = self.cached(
            "probe", settings, lambda folder: self._probe(params, encoder, task, folder)
        )
        return Replicate(
            read_predictions(folder / "predictions.parquet"),
            ProbeMetrics.read(folder / "metrics.json").threshold,
        )

    def _probe(self, params: Params, encoder: Path, task: str, folder: Path) -> None:
        metrics, table = probe_encoder(params, task, self.corpus, encoder)
        with atomic_directory(folder) as partial:
            metrics.write(partial / "metrics.json")
            write_predictions(table, partial / "predictions.parquet")

    def finetuned(
        self, params: Params, encoder: Path, task: str, anatomy: AnatomyInput
    ) -> Replicate:
        """The fine-tuned model's predictions with this anatomy as its input."""
        settings: list[Json] = [
            params.seed,
            tree_hash(encoder),
            task,
            asdict(params.finetune),
            asdict(params.task[task]),
            params.data.splits,
        ]
        model = self.cached(
            "finetune",
            settings,
            lambda folder: finetune(
                params, task=task, corpus=self.corpus, checkpoint=encoder, model=folder
            ),
        )
        params = replace(params, evaluate=replace(params.evaluate, anatomy=anatomy))
        folder = self.cached(
            "evaluate",
            [params.seed, tree_hash(model), task, asdict(params.evaluate), params.data.splits],
            lambda folder: evaluate(
                params, task=task, corpus=self.corpus, model=model, evaluation=folder
            ),
        )
        return Replicate(
            read_predictions(folder / "predictions.parquet"), read_metrics(folder).threshold
        )


@contextmanager
def exclusive_lock(file: Path) -> Iterator[None]:
    """Hold a lock, which the kernel releases when the process dies.

    Raises:
        LockedByAnotherProcess: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            # The kernel frees this lock when a process is killed; a lock file would stay.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedByAnotherProcess(file.stem) from error
        yield

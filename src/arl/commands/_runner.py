"""Stages run for many settings, each setting once."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from arl.commands._experiment import Experiment, Row
from arl.commands.baseline import SUPERVISED, baseline
from arl.commands.configure import CONF, compose
from arl.data.manifest import read_manifest
from arl.evaluation.comparison import Replicate
from arl.evaluation.predictions import read_predictions
from arl.files import atomic_directory, read_json, tree_hash, write_json
from arl.params import Params
from arl.stages.evaluate import evaluate
from arl.stages.finetune import finetune
from arl.stages.pretrain import pretrain
from arl.stages.probe import probe


class Runner:
    """Runs stages once for every setting, and keeps what they wrote under a hash of it."""

    def __init__(self, corpus: Path, work: Path, baselines: Path) -> None:
        self.corpus = corpus
        self.work = work
        self.baselines = baselines
        self.absent: dict[str, str] = {}  # row -> why it was not run
        self.used: set[str] = set()
        rows = read_manifest(corpus)
        self.content = hashlib.sha256("".join(rows["id"] + rows["pixel_sha256"]).encode()).hexdigest()

    def params_of(self, found: Experiment, scale: str, row: Row, replicate: int) -> Params:
        """The parameters of a row's replicate."""
        size = found.scales[scale]
        return compose([*size.choices, *row.choices, *size.replicates[replicate]], CONF)

    def once(self, name: str, settings: Any, make: Callable[[Path], None]) -> Path:
        """The folder that `make` wrote for these settings, now or before."""
        digest = hashlib.sha256(json.dumps([self.content, settings], sort_keys=True).encode()).hexdigest()[:16]
        folder = self.work / f"{name}-{digest}"
        self.used.add(folder.name)
        if not folder.exists():
            start = time.perf_counter()
            make(folder)
            write_json(self.work / f"{folder.name}.time.json", {"seconds": round(time.perf_counter() - start, 1)})
        return folder

    def seconds(self) -> dict[str, float]:
        """What each training and measurement took when it was run."""
        files = {name: self.work / f"{name}.time.json" for name in sorted(self.used)}
        return {name: read_json(file)["seconds"] for name, file in files.items() if file.is_file()}

    def encoder(self, params: Params, row: Row) -> Path | None:
        """The row's encoder; None where its weights are not to be had."""
        if row.baseline == SUPERVISED:
            settings = [params.seed, params.data.size, asdict(params.model)]
            return self.once("supervised", settings, lambda to: baseline(params, "import", SUPERVISED, [], out=to))
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
        command = f"arl baseline import {row.baseline} FILE --out {folder} data.size={params.data.size}"
        if not (folder / "config.json").is_file():
            self.absent[row.name] = f"no weights: {command}"
            return None
        if read_json(folder / "config.json")["size"] != params.data.size:
            self.absent[row.name] = f"imported for another image size: {command}"
            return None
        return folder

    def probed(self, params: Params, encoder: Path, task: str) -> Replicate:
        """The linear probe's predictions."""
        settings = [tree_hash(encoder), task, asdict(params.task[task]), asdict(params.probe), params.data.splits]
        folder = self.once(
            "probe",
            [params.seed, *settings, asdict(params.evaluate)],
            lambda to: self._probe(params, encoder, task, to),
        )
        return Replicate(
            read_predictions(folder / "predictions.parquet"), read_json(folder / "metrics.json")["threshold"]
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

    def finetuned(self, params: Params, encoder: Path, task: str, told: str) -> Replicate:
        """The fine-tuned model's predictions when it is `told` an anatomy."""
        settings = [params.seed, tree_hash(encoder), task, asdict(params.finetune), asdict(params.task[task])]
        model = self.once(
            "finetune",
            [*settings, params.data.splits],
            lambda to: finetune(params, task=task, corpus=self.corpus, checkpoint=encoder, model=to),
        )
        params = replace(params, evaluate=replace(params.evaluate, anatomy=told))
        folder = self.once(
            "evaluate",
            [params.seed, tree_hash(model), task, asdict(params.evaluate), params.data.splits],
            lambda to: evaluate(params, task=task, corpus=self.corpus, model=model, evaluation=to),
        )
        return Replicate(
            read_predictions(folder / "predictions.parquet"), read_json(folder / "metrics.json")["threshold"]
        )

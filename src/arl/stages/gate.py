"""Decide whether the new models may replace the ones in use."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import sources
from arl.evaluation.gate import (
    Decision,
    PairedTask,
    Settings,
    decide,
)
from arl.evaluation.metrics import main_metric, rounded
from arl.evaluation.predictions import read_predictions
from arl.files import atomic_directory, read_json, tree_hash, write_json
from arl.params import Params
from arl.reports import gate as gate_page
from arl.stages._scoring import rows_of_task, score
from arl.storage.registry import Registry, tasks_of
from arl.storage.signing import keys_from_environment


def gate(
    params: Params,
    *,
    corpus: ReadableCorpus,
    models: list[Path],
    evaluations: list[Path],
    registry: str,
    decision: Path,
) -> None:
    """Decide whether the new models may replace the ones in use.

    Reads the corpus, the new models with their evaluations, and the registry, whose champion is
    scored on the same test images. Writes a folder with decision.json (verdict promote, reject or
    inconclusive; reasons; what was found for each task; the corpus' sources and licences) and
    index.html, and prints the verdict. Only the tasks that params.yaml runs count.

    Raises:
        ValueError: a task has no evaluation, an evaluation is of another model, or the champion's
            files were changed or
            are not signed as params.yaml asks.
    """
    torch.set_num_threads(params.pretrain.threads)
    hashes = {tree_hash(model): model for model in models}
    found = {task: _evaluation_of(task, evaluations, hashes) for task in params.tasks}
    store = Registry(registry, keys_from_environment(params.release.signed))
    champion = store.champion()
    current = tasks_of(store.fetch(champion)) if champion is not None else {}
    judged = decide(
        [_pair(params, task, corpus, found[task], current.get(task)) for task in params.tasks],
        _settings(params),
    )
    notes = _notes(judged, sorted(current))
    with atomic_directory(decision) as folder:
        content = {
            **_json(judged),
            "champion": champion,
            "sources": sources(corpus),
            "notes": notes,
            "settings": asdict(_settings(params)),
            "models": {
                task: read_json(path / "metrics.json")["model"] for task, path in found.items()
            },
        }
        write_json(folder / "decision.json", content)
        gate_page.write_page(judged, champion, notes, folder)
    print(
        "\n".join([f"gate: {judged.verdict}", *(f"  {line}" for line in [*judged.reasons, *notes])])
    )


def _settings(params: Params) -> Settings:
    chosen = params.gate
    return Settings(chosen.bootstrap, chosen.alpha, chosen.min_slice_patients, params.seed)


def _evaluation_of(task: str, evaluations: list[Path], models: dict[str, Path]) -> Path:
    """The evaluation folder of a task, made from one of the models (by content hash)."""
    of_task = {
        folder: about
        for folder in evaluations
        if (about := read_json(folder / "metrics.json"))["task"] == task
    }
    if not of_task:
        raise ValueError(
            f"task {task!r} has no evaluation among {', '.join(str(folder) for folder in evaluations)}"
        )
    for folder, about in of_task.items():
        if about["model"] in models:
            return folder
    given = ", ".join(str(path) for path in models.values())
    raise ValueError(
        f"{next(iter(of_task))} is the evaluation of another model than {given}: evaluate again"
    )


def _pair(
    params: Params, task: str, corpus: Path, evaluation: Path, champion: Path | None
) -> PairedTask:
    """Both models' predictions on the task's test images."""
    settings = params.task[task]
    rows = rows_of_task(params, task, corpus)
    rows = rows[rows["split"] == "test"]
    return PairedTask(
        name=task,
        main=main_metric(settings.kind, len(settings.classes)),
        margin=settings.margin,
        floor=settings.floor,
        images=rows["id"].tolist(),
        challenger=read_predictions(evaluation / "predictions.parquet"),
        champion=score(champion, corpus, rows, settings) if champion is not None else None,
    )


def _notes(judged: Decision, champions_tasks: list[str]) -> list[str]:
    """What a reader must know beside the reasons."""
    dropped = sorted(set(champions_tasks) - {result.task for result in judged.tasks})
    synthetic = [result.task for result in judged.tasks if result.synthetic]
    notes = (
        [f"The current release also has {', '.join(dropped)}, which the new one would lack."]
        if dropped
        else []
    )
    if synthetic:
        notes.append(
            f"Synthetic images in {', '.join(synthetic)}: these figures say nothing about patients."
        )
    return notes


def _json(judged: Decision) -> dict[str, Any]:
    tasks = {result.task: rounded(asdict(result)) for result in judged.tasks}
    return {"verdict": judged.verdict, "reasons": judged.reasons, "tasks": tasks}

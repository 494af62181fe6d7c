"""Decide whether the new models may replace the ones in use."""

from dataclasses import replace
from pathlib import Path

import torch

from arl import console
from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import sources
from arl.evaluation.decision import Decision, Settings, SourceTerms
from arl.evaluation.gate import PairedTask, decide
from arl.evaluation.metrics import main_metric
from arl.evaluation.predictions import read_predictions
from arl.evaluation.results import read_metrics
from arl.files import atomic_directory, tree_hash
from arl.params import Params
from arl.reports import gate as gate_page
from arl.reports.stamp import Stopwatch
from arl.stages._chain import attest_decision, check_policy
from arl.stages._recompute import check_predictions
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
    """Decide whether the new models may replace the champion.

    Reads the new models with their evaluations and the registry. The champion is scored on the same
    test images. Writes decision.json (promote, reject or inconclusive, with reasons, and the result of
    each task) and index.html. Only the tasks that params.yaml runs count.

    Args:
        corpus: Folder of the corpus, or s3://bucket/prefix.
        models: Folders of the new task models.
        evaluations: Folders of their evaluations.
        registry: The registry, a folder or s3://bucket/prefix.
        decision: Folder of the decision.

    Raises:
        ValueError: a task has no evaluation, an evaluation is of another model, or the champion's
            files were changed or
            are not signed as params.yaml asks.

    Writes:
        decision

    Next:
        arl release --decision {decision} --checkpoint out/pretrain --models {models}
            --evaluations {evaluations} --registry {registry} --receipt out/receipt.json

    Examples:
        arl gate --corpus data --models out/finetune/* --evaluations out/evaluate/*
            --registry registry --decision out/decision
    """
    watch = Stopwatch("arl gate")
    torch.set_num_threads(params.pretrain.threads)
    hashes = {tree_hash(model): model for model in models}
    evaluated = {task: _evaluation_of(task, evaluations, hashes) for task in params.tasks}
    store = Registry(registry, keys_from_environment(params.release.signed))
    champion = store.champion()
    current = tasks_of(store.fetch(champion)) if champion is not None else {}
    policy = check_policy(params, sorted(current)) if params.release.signed else ""
    for task, folder in evaluated.items():
        rows = rows_of_task(params, task, corpus)
        model = hashes[read_metrics(folder).model_hash]
        check_predictions(params, task, corpus, rows[rows["split"] == "test"], model, folder)
    judged = decide(
        [_pair(params, task, corpus, evaluated[task], current.get(task)) for task in params.tasks],
        _settings(params),
    )
    judged = replace(
        judged,
        champion=champion,
        notes=_notes(judged, sorted(current)),
        models={task: read_metrics(folder).model_hash for task, folder in evaluated.items()},
        sources={name: SourceTerms(**terms) for name, terms in sources(corpus).items()},
    )
    with atomic_directory(decision) as folder:
        judged.write(folder / Decision.FILE)
        attest_decision(params, folder / Decision.FILE, evaluated, champion, policy)
        gate_page.write_page(judged, watch.stamp(corpus), folder)
    lines = [f"gate: {judged.verdict}", *(f"  {line}" for line in judged.reasons + judged.notes)]
    console.info("\n".join(lines))


def _settings(params: Params) -> Settings:
    chosen = params.gate
    return Settings(chosen.bootstrap, chosen.alpha, chosen.min_slice_patients, params.seed)


def _evaluation_of(task: str, evaluations: list[Path], models: dict[str, Path]) -> Path:
    """The evaluation folder of a task, made from one of the models (by content hash)."""
    of_task = {
        folder: metrics for folder in evaluations if (metrics := read_metrics(folder)).task == task
    }
    if not of_task:
        folders = ", ".join(str(folder) for folder in evaluations)
        raise ValueError(f"task {task!r} has no evaluation among {folders}")
    for folder, metrics in of_task.items():
        if metrics.model_hash in models:
            return folder
    names = ", ".join(str(path) for path in models.values())
    raise ValueError(
        f"{next(iter(of_task))} is the evaluation of another model than {names}: evaluate again"
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
        main_metric=main_metric(settings.kind, len(settings.classes)),
        margin=settings.margin,
        floor=settings.floor,
        images=rows["id"].tolist(),
        challenger=read_predictions(evaluation / "predictions.parquet"),
        champion=score(champion, corpus, rows, settings) if champion is not None else None,
    )


def _notes(judged: Decision, champions_tasks: list[str]) -> list[str]:
    """What a reader must know beside the reasons."""
    dropped = sorted(set(champions_tasks) - judged.tasks.keys())
    synthetic = [task for task, result in judged.tasks.items() if result.synthetic]
    notes = []
    if dropped:
        names = ", ".join(dropped)
        notes.append(f"The current release also has {names}, which the new one would lack.")
    if synthetic:
        names = ", ".join(synthetic)
        notes.append(f"Synthetic images in {names}: these figures say nothing about patients.")
    return notes

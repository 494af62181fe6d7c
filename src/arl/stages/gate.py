"""Decide whether the new models may replace the ones in use."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from arl import console
from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import sources
from arl.corpus.testsets import content_of, read_test_set, series_of
from arl.evaluation.decision import Decision, Settings, SourceTerms, TrialCount, read_decision
from arl.evaluation.gate import ModelPredictions, PairedTask, decide
from arl.evaluation.predictions import read_predictions
from arl.evaluation.results import Metrics, ReleaseMetrics, read_metrics
from arl.files import atomic_directory, tree_hash
from arl.params import Params
from arl.reports import gate as gate_page
from arl.reports.stamp import Stopwatch
from arl.settings import Task
from arl.stages._chain import attest_decision, check_policy
from arl.stages._recompute import check_predictions
from arl.stages._scoring import rows_of_task, score
from arl.storage.registry import Registry, tasks_of
from arl.storage.signing import keys_from_environment
from arl.storage.trials import TrialLog
from arl.tasks.make import make_kind


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

    Reads the new models with their evaluations and the registry. The champion and the best release
    are scored on the same test images. The registry counts each decision on a test set, and the
    level of the tests falls with the count. Writes decision.json (promote, reject or inconclusive,
    with reasons, and the result of
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
    # By content: a folder's name says nothing about the model in it.
    hashes = {tree_hash(model): model for model in models}
    evaluated = {task: _evaluation_of(task, evaluations, hashes) for task in params.tasks}
    store = Registry(registry, keys_from_environment(params.release.signed))
    champion = _read_release(store, store.champion())
    current = sorted(champion.models) if champion else []
    policy = check_policy(params, current) if params.release.signed else ""
    for task, folder in evaluated.items():
        rows = rows_of_task(params, task, corpus)
        model = hashes[read_metrics(folder).model_hash]
        # A sample is recomputed, since predictions could be written by hand.
        check_predictions(params, task, corpus, rows[rows["split"] == "test"], model, folder)
    compared = [
        _compare_models(params, task, corpus, evaluated[task], store, champion)
        for task in params.tasks
    ]
    judged = decide(compared, _settings(params))
    judged = replace(
        judged,
        champion=champion.version if champion else None,
        notes=_notes(judged, current),
        models={task: read_metrics(folder).model_hash for task, folder in evaluated.items()},
        sources={name: SourceTerms(**terms) for name, terms in sources(corpus).items()},
    )
    with atomic_directory(decision) as folder:
        judged.write(folder / Decision.FILE)
        attest_decision(params, folder / Decision.FILE, evaluated, judged.champion, policy)
        gate_page.write_page(judged, watch.stamp(corpus), folder)
    lines = [f"gate: {judged.verdict}", *(f"  {line}" for line in judged.reasons + judged.notes)]
    console.info("\n".join(lines))


def _settings(params: Params) -> Settings:
    gate_settings = params.gate
    return Settings(
        bootstrap=gate_settings.bootstrap,
        alpha=gate_settings.alpha,
        min_patients=gate_settings.min_patients,
        min_slice_patients=gate_settings.min_slice_patients,
        max_trials=gate_settings.max_trials,
        max_calibration_error=gate_settings.max_calibration_error,
        seed=params.seed,
    )


@dataclass(frozen=True)
class _Release:
    """A verified release."""

    version: str
    models: dict[str, Path]  # task -> folder
    metrics: dict[str, Metrics]  # by task
    decision: Decision


def _read_release(store: Registry, version: str | None) -> _Release | None:
    if version is None:
        return None
    folder = store.fetch(version)
    metrics = ReleaseMetrics.read(folder / ReleaseMetrics.FILE).tasks
    return _Release(version, tasks_of(folder), metrics, read_decision(folder))


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


def _compare_models(
    params: Params,
    task: str,
    corpus: Path,
    evaluation: Path,
    store: Registry,
    champion: _Release | None,
) -> PairedTask:
    """The predictions of the new model, the champion and the best release on the test images."""
    settings = params.task[task]
    rows = rows_of_task(params, task, corpus)
    rows = rows[rows["split"] == "test"]
    metrics = read_metrics(evaluation)
    current = champion if champion and task in champion.models else None
    best = _best_release(store, current, task)
    return PairedTask(
        name=task,
        measure=make_kind(settings),
        margin=settings.margin,
        floor=settings.floor,
        images=rows["id"].tolist(),
        challenger=ModelPredictions(
            read_predictions(evaluation / "predictions.parquet"),
            metrics.threshold,
            metrics.temperature,
        ),
        champion=_score_release(current, task, corpus, rows, settings) if current else None,
        best=_score_release(best, task, corpus, rows, settings) if best else None,
        trial=_count_trial(params, task, corpus, rows, store, metrics.model_hash, current),
    )


def _best_release(store: Registry, champion: _Release | None, task: str) -> _Release | None:
    """The best earlier release of the champion's lineage; None: the champion, or it is gone."""
    if champion is None or task not in champion.decision.tasks:
        return None
    # The champion's own decision names the best release; a removed version cannot be scored again.
    version = champion.decision.tasks[task].best_release
    if version is None or version == champion.version or version not in store.versions():
        return None
    release = _read_release(store, version)
    return release if release and task in release.models else None


def _score_release(
    release: _Release, task: str, corpus: Path, rows: pd.DataFrame, settings: Task
) -> ModelPredictions:
    return ModelPredictions(
        score(release.models[task], corpus, rows, settings),
        release.metrics[task].threshold,
        release.metrics[task].temperature,
        release.version,
    )


def _count_trial(
    params: Params,
    task: str,
    corpus: Path,
    rows: pd.DataFrame,
    store: Registry,
    model_hash: str,
    champion: _Release | None,
) -> TrialCount:
    """Record this decision on the task's test set."""
    test_set = read_test_set(corpus, task)
    # An unfrozen test set is counted by its content, so that a changed one starts another count and
    # is named as changed.
    series = test_set.series if test_set else series_of(content_of(rows))
    log = TrialLog(store.address, task, series)
    number = log.count(model_hash, champion.version if champion else None)
    settings = _settings(params)
    before = champion.decision.tasks.get(task) if champion else None
    return TrialCount(
        number=number,
        limit=settings.max_trials,
        level=settings.level(number),
        test_set=test_set.name if test_set else f"{task}, not frozen",
        series=series,
        frozen=test_set is not None,
        # A frozen test set changes only by `arl testset`, which leaves a name and a reason.
        changed=test_set is None and before is not None and before.trial.series != series,
    )


def _notes(judged: Decision, champions_tasks: list[str]) -> list[str]:
    """What a reader must know beside the reasons."""
    dropped = sorted(set(champions_tasks) - judged.tasks.keys())
    synthetic = [task for task, result in judged.tasks.items() if result.synthetic]
    notes = []
    if dropped:
        names = ", ".join(dropped)
        notes.append(f"The current release also has {names}, which the new one would lack.")
    open_sets = [task for task, result in judged.tasks.items() if not result.trial.frozen]
    if open_sets:
        names = ", ".join(open_sets)
        notes.append(
            f"The test set of {names} is not frozen, and whoever adds data can change it:"
            " `arl testset add`."
        )
    if synthetic:
        names = ", ".join(synthetic)
        notes.append(f"Synthetic images in {names}: these figures say nothing about patients.")
    return notes

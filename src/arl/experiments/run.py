"""Run an experiment: train what its rows lack, measure them and compare them."""

import time
from collections import defaultdict, deque
from itertools import product

from arl.composition import CONF
from arl.corpus.manifest import read_manifest
from arl.evaluation.comparison import Replicate, compare, correct
from arl.experiments.illustrations import illustrate
from arl.experiments.results import Cells, ExperimentRun, Results
from arl.experiments.runner import LockedByAnotherProcess, Runner
from arl.experiments.spec import Experiment, Row, Scale, read_experiment
from arl.params import Params
from arl.progress import progress
from arl.settings import AnatomyInput

# An audit also gives the model no anatomy and a wrong one.
_AUDIT: tuple[AnatomyInput, ...] = ("none", "shuffled")
_POLL_SECONDS = 5.0  # while other processes make everything that is left

# (protocol, task, row or row and audit) -> predictions
_Measured = dict[tuple[str, str, str], Replicate]


def run_experiment(name: str, scale: str, runner: Runner, replicates: int | None) -> ExperimentRun:
    """Run an experiment of conf/paper at a scale with its first few replicates, or all.

    Raises:
        ValueError: an unknown experiment or scale, a choice that replicates make, or the corpus
            cannot serve a task.
    """
    experiment = read_experiment(CONF / "paper", name)
    if scale not in experiment.scales:
        raise ValueError(f"unknown scale {scale!r}: {name} has {', '.join(experiment.scales)}")
    count = 1
    if experiment.metrics:
        count = _count_replicates(experiment.scales[scale], replicates, runner.changes)
    cells, used = _run_rows(experiment, scale, runner, count)
    params = runner.params_of(experiment, scale, None, 0)
    return ExperimentRun(
        experiment=experiment,
        scale=scale,
        changes=runner.changes,
        replicates=count,
        cells=cells,
        results=_compare(experiment, cells, params),
        used=used,
        sections=illustrate(experiment, scale, runner),
        times=runner.times(runner.used),
        absent=runner.absent,
        synthetic=bool(read_manifest(runner.corpus)["synthetic"].any()),
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
    )


def _count_replicates(scale: Scale, wanted: int | None, changes: list[str]) -> int:
    fixed = {choice.split("=")[0] for replicate in scale.replicates for choice in replicate}
    for change in changes:
        if change.split("=")[0] in fixed:
            keys = ", ".join(sorted(fixed))
            raise ValueError(f"--set {change}: the replicates of the scale differ in {keys}")
    if wanted is not None and not 1 <= wanted <= len(scale.replicates):
        raise ValueError(f"--replicates {wanted}: the scale has 1 to {len(scale.replicates)}")
    return wanted or len(scale.replicates)


def _run_rows(
    experiment: Experiment, scale: str, runner: Runner, count: int
) -> tuple[Cells, dict[str, list[str]]]:
    """The cells of the tables, and the trainings and measurements of each row."""
    waiting = deque(product(range(count), experiment.rows))
    done: dict[tuple[int, str], _Measured] = {}
    used: dict[str, list[str]] = defaultdict(list)
    bar = progress(len(waiting), experiment.name, "training", visible=bool(waiting))
    locked = 0
    while waiting:
        (replicate, row), before = waiting.popleft(), len(runner.used)
        params = runner.params_of(experiment, scale, row, replicate)
        try:
            done[replicate, row.name] = _measure(experiment, runner, params, row)
        except LockedByAnotherProcess:
            waiting.append((replicate, row))
            locked += 1
            if locked >= len(waiting):
                time.sleep(_POLL_SECONDS)
            continue
        locked = 0
        used[row.name] += runner.used[before:]
        bar.update()
    bar.close()
    return _cells(experiment, done, count), used


def _measure(experiment: Experiment, runner: Runner, params: Params, row: Row) -> _Measured:
    encoder = runner.encoder(params, row)
    if encoder is None:
        return {}
    audit = _AUDIT if row.name in experiment.audit else ()
    measured: _Measured = {}
    for protocol, task in product(row.protocols or experiment.protocols, experiment.metrics):
        if protocol == "probe":
            measured[protocol, task, row.name] = runner.probed(params, encoder, task)
            continue
        measured[protocol, task, row.name] = runner.finetuned(params, encoder, task, "given")
        for anatomy in audit:
            name = f"{row.name}, {anatomy}"
            measured[protocol, task, name] = runner.finetuned(params, encoder, task, anatomy)
    return measured


def _cells(experiment: Experiment, done: dict[tuple[int, str], _Measured], count: int) -> Cells:
    cells: Cells = {}
    for protocol, task in product(experiment.protocols, experiment.metrics):
        methods: dict[str, list[Replicate]] = {}
        for row, number in product(experiment.rows, range(count)):
            for (other, of_task, name), replicate in done[number, row.name].items():
                if (other, of_task) == (protocol, task):
                    methods.setdefault(name, []).append(replicate)
        if methods:
            cells[protocol, task] = methods
    return cells


def _compare(experiment: Experiment, cells: Cells, params: Params) -> Results:
    results: Results = {}
    for (protocol, task), methods in cells.items():
        results[protocol, task] = {
            metric: compare(
                methods,
                metric,
                reference=experiment.reference if experiment.reference in methods else None,
                resamples=params.evaluate.bootstrap,
                confidence=params.evaluate.confidence,
                seed=params.seed,
            )
            for metric in experiment.metrics[task]
        }
    # Holm's correction covers all rows and tasks of a protocol.
    for protocol in experiment.protocols:
        _correct(results, [key for key in results if key[0] == protocol])
    return results


def _correct(results: Results, keys: list[tuple[str, str]]) -> None:
    """Correct the main metrics' p values over all rows and tasks of a protocol."""
    main = {key: next(iter(results[key])) for key in keys}
    tables = correct([results[key][main[key]] for key in keys])
    for key, table in zip(keys, tables, strict=True):
        results[key][main[key]] = table

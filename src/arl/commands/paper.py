"""Run the paper's tables and figures, or an experiment in their manner, and write them beside what was claimed."""

import time
from collections import defaultdict, deque
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from arl.commands.configure import CONF
from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import read_manifest
from arl.evaluation.comparison import Replicate, compare, correct
from arl.evaluation.metrics import rounded
from arl.experiments.report import Cells, Findings, Results, markdown
from arl.experiments.runner import ElsewhereError, Runner
from arl.experiments.sections import shown
from arl.experiments.spec import Experiment, Row, Scale, experiment_names, read_experiment
from arl.files import atomic_directory, write_json
from arl.params import Params
from arl.progress import progress
from arl.reports.experiment import write_page, write_report
from arl.settings import AnatomyInput

_TOLD: tuple[AnatomyInput, ...] = (
    "none",
    "shuffled",
)  # what an audit tells the model of the anatomy
_ALL = "all"
_OF_THE_PAPER = ("table", "figure")  # how the names of its experiments begin
_WAIT = 5.0  # seconds between looks at what other processes are making


def paper(
    experiment: str,
    *,
    corpus: ReadableCorpus = Path("data"),
    out: Path = Path("out/paper"),
    scale: str = "laptop",
    work: Path = Path("runs/paper"),
    baselines: Path = Path("out/baselines"),
    replicates: int | None = None,
    set: list[str] = [],  # noqa: B006  read from the source text by the command line, never changed
) -> None:
    """Run a table of the paper and write it with intervals beside what was claimed, e.g. `arl paper table3`.

    Experiments are the files of conf/paper/; "all" are the paper's own, which also come on one
    page. --scale is laptop (the sample corpus), busbra (BUS-BRA and FALLMUD) or paper; --set
    changes it for every row (e.g. --set pretrain.max_steps=100 pretrain.threads=1), --replicates
    takes the first few of its seeds. Every training is kept in --work under a hash of its settings
    and data, so that a run that was killed goes on, and tables share rows; the code is not part of
    the hash. The same command started several times shares the work: each takes the trainings that
    no other has begun, and all write the same table. Published encoders are taken from
    --baselines/<method>, where `arl baseline import` puts them; a row without its weights is left out and says so.
    The folder has the page, table.md for a README, and results.json.

    Raises:
        ValueError: an unknown experiment or scale, a choice that replicates make, or the corpus
            cannot serve a task.
    """
    names = [name for name in experiment_names(CONF / "paper") if name.startswith(_OF_THE_PAPER)]
    findings = []
    for name in names if experiment == _ALL else [experiment]:
        findings.append(_find(name, scale, Runner(corpus, work, baselines, set), replicates))
        _write(findings[-1], out)
    if experiment != _ALL:
        return
    with atomic_directory(out / f"{_ALL}-{scale}") as folder:
        write_report(findings, folder)
    print(out / f"{_ALL}-{scale}" / "index.html")


def _find(name: str, scale: str, runner: Runner, replicates: int | None) -> Findings:
    """Run what an experiment's rows lack, and measure them."""
    found = read_experiment(CONF / "paper", name)
    if scale not in found.scales:
        raise ValueError(f"unknown scale {scale!r}: {name} has {', '.join(found.scales)}")
    count = _replicates(found.scales[scale], replicates, runner.changes) if found.metrics else 1
    cells, used = _run(found, scale, runner, count)
    params = runner.params_of(found, scale, None, 0)
    return Findings(
        found=found,
        scale=scale,
        changes=runner.changes,
        replicates=count,
        cells=cells,
        results=_measured(found, cells, params),
        used=used,
        shown=shown(found, scale, runner),
        times=runner.times(runner.used),
        absent=runner.absent,
        synthetic=bool(read_manifest(runner.corpus)["synthetic"].any()),
        resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence,
    )


def _replicates(scale: Scale, wanted: int | None, changes: list[str]) -> int:
    fixed = {choice.split("=")[0] for replicate in scale.replicates for choice in replicate}
    for change in changes:
        if change.split("=")[0] in fixed:
            raise ValueError(
                f"--set {change}: the replicates of the scale are told apart by {', '.join(sorted(fixed))}"
            )
    if wanted is not None and not 1 <= wanted <= len(scale.replicates):
        raise ValueError(f"--replicates {wanted}: the scale has 1 to {len(scale.replicates)}")
    return wanted or len(scale.replicates)


Measured = dict[tuple[str, str, str], Replicate]  # protocol, task, row or row and audit


def _run(
    found: Experiment, scale: str, runner: Runner, count: int
) -> tuple[Cells, dict[str, list[str]]]:
    """The cells of the table, and which trainings and measurements each row used."""
    waiting = deque(product(range(count), found.rows))
    done: dict[tuple[int, str], Measured] = {}
    used: dict[str, list[str]] = defaultdict(list)
    bar = progress(len(waiting), found.name, "training", visible=bool(waiting))
    elsewhere = 0
    while waiting:
        replicate, row = waiting.popleft()
        before = len(runner.used)
        try:
            done[replicate, row.name] = _measure(
                found, runner, runner.params_of(found, scale, row, replicate), row
            )
        except ElsewhereError:
            waiting.append((replicate, row))
            elsewhere += 1
            if elsewhere >= len(waiting):
                time.sleep(_WAIT)
            continue
        elsewhere = 0
        used[row.name] += runner.used[before:]
        bar.update()
    bar.close()
    return _cells(found, done, count), used


def _measure(found: Experiment, runner: Runner, params: Params, row: Row) -> Measured:
    encoder = runner.encoder(params, row)
    if encoder is None:
        return {}
    measured: Measured = {}
    for protocol, task in product(row.protocols or found.protocols, found.metrics):
        if protocol == "probe":
            measured[protocol, task, row.name] = runner.probed(params, encoder, task)
            continue
        for told in ("given", *(_TOLD if row.name in found.audit else ())):
            name = row.name if told == "given" else f"{row.name}, {told}"
            measured[protocol, task, name] = runner.finetuned(params, encoder, task, told)
    return measured


def _cells(found: Experiment, done: dict[tuple[int, str], Measured], count: int) -> Cells:
    cells: Cells = {}
    for protocol, task in product(found.protocols, found.metrics):
        methods: dict[str, list[Replicate]] = {}
        for row, replicate in product(found.rows, range(count)):
            for (of, on, name), one in done[replicate, row.name].items():
                if (of, on) == (protocol, task):
                    methods.setdefault(name, []).append(one)
        if methods:
            cells[protocol, task] = methods
    return cells


def _measured(found: Experiment, cells: Cells, params: Params) -> Results:
    results: Results = {}
    for (protocol, task), methods in cells.items():
        results[protocol, task] = {
            metric: compare(
                methods,
                metric,
                reference=found.reference if found.reference in methods else None,
                resamples=params.evaluate.bootstrap,
                confidence=params.evaluate.confidence,
                seed=params.seed,
            )
            for metric in found.metrics[task]
        }
    for protocol in found.protocols:
        _correct(results, [key for key in results if key[0] == protocol])
    return results


def _correct(results: Results, keys: list[tuple[str, str]]) -> None:
    """Correct the p values of the metrics that tasks are judged by, over all rows and tasks of a protocol."""
    main = {key: next(iter(results[key])) for key in keys}
    for key, table in zip(keys, correct([results[key][main[key]] for key in keys]), strict=True):
        results[key][main[key]] = table


def _write(findings: Findings, out: Path) -> None:
    to = out / f"{findings.found.name}-{findings.scale}"
    content = {
        "experiment": findings.found.name,
        "scale": findings.scale,
        "changes": findings.changes,
        "replicates": findings.replicates,
        "cells": _json(findings),
        "absent": findings.absent,
        "shown": {
            one.title: [list(one.columns), *map(list, one.rows)]
            for one in findings.shown
            if one.columns
        },
        "times": rounded(findings.times.to_dict("records")),
    }
    with atomic_directory(to) as folder:
        write_json(folder / "results.json", content)
        write_page(findings, folder)
        (folder / "table.md").write_text(markdown(findings), encoding="utf-8")
    print(to / "index.html")


def _json(findings: Findings) -> list[dict[str, Any]]:
    return [
        {
            "protocol": protocol,
            "task": task,
            **asdict(findings.size(protocol, task)),
            "metric": metric,
            "row": row,
            **rounded(asdict(figure)),
        }
        for (protocol, task), figures in findings.results.items()
        for metric, rows in figures.items()
        for row, figure in rows.items()
    ]

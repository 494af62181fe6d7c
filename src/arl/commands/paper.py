"""Run a table of the paper, or an experiment in its manner, and write it beside what was claimed."""

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from arl import pages
from arl.commands._experiment import Experiment, Row, read_experiment
from arl.commands._runner import Runner
from arl.commands.configure import CONF
from arl.data.manifest import read_manifest
from arl.evaluation.comparison import Figure, Replicate, compare, one_matrix
from arl.evaluation.figures import efficiency
from arl.evaluation.metrics import rounded
from arl.evaluation.statistics import Interval
from arl.files import atomic_directory, write_json
from arl.params import Params
from arl.progress import progress

_TOLD = ("none", "shuffled")  # what an audit tells the model of the anatomy
_TEST_SETS = range(135, 161)  # images that the paper's breast test set may have had


def paper(
    experiment: str,
    *,
    corpus: Path = Path("data"),
    out: Path = Path("out/paper"),
    scale: str = "laptop",
    work: Path = Path("runs/paper"),
    baselines: Path = Path("out/baselines"),
) -> None:
    """Run a table of the paper and write it with intervals beside what was claimed, e.g. `arl paper table3`.

    Experiments are the files of conf/paper/. --scale is laptop (the sample corpus), busbra (BUS-BRA and FALLMUD) or
    paper. Every training is kept in --work under a hash of its settings and data, so that a run that was killed goes
    on, and tables share rows; the code is not part of the hash. Published encoders are taken from
    --baselines/<method>, where `arl baseline import` puts them; a row without its weights is left out and says so.

    Raises:
        ValueError: an unknown experiment or scale, or the corpus cannot serve a task.
    """
    found = read_experiment(CONF / "paper", experiment)
    if scale not in found.scales:
        raise ValueError(f"unknown scale {scale!r}: {experiment} has {', '.join(found.scales)}")
    runner = Runner(corpus, work, baselines)
    cells = _run(found, scale, runner)
    results = _measured(found, cells, runner.params_of(found, scale, found.rows[0], 0))
    with atomic_directory(out / f"{experiment}-{scale}") as folder:
        content = {"experiment": experiment, "scale": scale, "cells": _json(results), "absent": runner.absent}
        write_json(folder / "results.json", {**content, "seconds": runner.seconds()})
        (folder / "index.html").write_text(_page(found, scale, results, runner), encoding="utf-8")
    print(f"{out / f'{experiment}-{scale}' / 'index.html'}")


Cells = dict[tuple[str, str], dict[str, list[Replicate]]]  # (protocol, task) -> row, or row and audit -> replicates


def _run(found: Experiment, scale: str, runner: Runner) -> Cells:
    cells: Cells = {}
    replicates = range(len(found.scales[scale].replicates))
    bar = progress(len(found.rows) * len(replicates), found.name, "training")
    for row in found.rows:
        for replicate in replicates:
            params = runner.params_of(found, scale, row, replicate)
            encoder = runner.encoder(params, row)
            if encoder is not None:
                for protocol, task in product(found.protocols, found.metrics):
                    _add(cells, found, runner, params, row, encoder, protocol, task)
            bar.update()
    bar.close()
    return cells


def _add(
    cells: Cells, found: Experiment, runner: Runner, params: Params, row: Row, encoder: Path, protocol: str, task: str
) -> None:
    cell = cells.setdefault((protocol, task), {})
    if protocol == "probe":
        cell.setdefault(row.name, []).append(runner.probed(params, encoder, task))
        return
    for told in ("given", *(_TOLD if row.name in found.audit else ())):
        name = row.name if told == "given" else f"{row.name}, {told}"
        cell.setdefault(name, []).append(runner.finetuned(params, encoder, task, told))


Results = dict[tuple[str, str], dict[str, dict[str, Figure]]]  # (protocol, task) -> metric -> row -> figure


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
    return results


def _json(results: Results) -> list[dict[str, Any]]:
    return [
        {"protocol": protocol, "task": task, "metric": metric, "row": row, **rounded(asdict(figure))}
        for (protocol, task), figures in results.items()
        for metric, rows in figures.items()
        for row, figure in rows.items()
    ]


def _page(found: Experiment, scale: str, results: Results, runner: Runner) -> str:
    synthetic = bool(read_manifest(runner.corpus)["synthetic"].any())
    body = Markup("")
    if synthetic:
        body += pages.note("The corpus holds synthetic images: no figure on this page is clinical.", "warn")
    if found.note:
        body += pages.note(found.note)
    for (protocol, task), figures in results.items():
        body += pages.section(f"{task}, {protocol}", _table(found, protocol, task, figures))
    absent = [[_label(found, name), reason] for name, reason in runner.absent.items()]
    if absent:
        body += pages.section("Rows that were not run", pages.table(["row", "why"], absent))
    body += pages.section("Time", _times(runner.seconds()))
    command = f"arl paper {found.name} --scale {scale}"
    body += Markup("<p>{} {}</p>\n").format("Made by", pages.code(command))
    return pages.page(found.title, body, subtitle=f"Scale {scale}: {' '.join(found.scales[scale].choices)}")


def _table(found: Experiment, protocol: str, task: str, figures: dict[str, dict[str, Figure]]) -> Markup:
    metrics = list(figures)
    main = figures[metrics[0]]
    columns = ["row", *(heading for metric in metrics for heading in (metric, "claimed"))]
    rows = [
        [
            _label(found, name),
            *(cell for metric in metrics for cell in _cells(found, protocol, task, metric, name, figures)),
        ]
        for name in main
    ]
    caption = "Mean over replicates with its interval over patients, ± the standard deviation over replicates."
    return (
        _curve(found, metrics[0], main)
        + pages.table(columns, rows, caption)
        + _comparisons(found, metrics[0], main)
        + _consistency(found, protocol, task)
    )


def _curve(found: Experiment, metric: str, figures: dict[str, Figure]) -> Markup:
    """The metric against the share, where the rows of the experiment differ in one."""
    series: dict[str, list[tuple[float, Interval]]] = {}
    for row in found.rows:
        if row.share is not None and row.name in figures:
            series.setdefault(row.series or row.label, []).append((row.share, figures[row.name].interval))
    if not series:
        return Markup("")
    drawing = efficiency({name: sorted(points, key=lambda at: at[0]) for name, points in series.items()}, metric=metric)
    return pages.figure(drawing, "With the interval over patients.", f"{metric} against the share")


def _cells(
    found: Experiment, protocol: str, task: str, metric: str, name: str, figures: dict[str, dict[str, Figure]]
) -> list[Markup | float | None]:
    figure = figures[metric][name]
    spread = "" if figure.spread is None else f" ± {figure.spread:.3f}"
    low, high = figure.interval.low, figure.interval.high
    measured = Markup("{:.3f}{}<br><small>{:.3f} to {:.3f}</small>").format(figure.interval.value, spread, low, high)
    claimed = next((row.claimed for row in found.rows if row.name == name), {})
    return [measured, claimed.get(protocol, {}).get(task, {}).get(metric)]


def _text(interval: Interval, form: str = ".3f") -> str:
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def _label(found: Experiment, name: str) -> str:
    """A row's label; of an audit what the model was told."""
    row, _, told = name.partition(", ")
    label = next(one.label for one in found.rows if one.name == row)
    return f"{label}: {'no anatomy' if told == 'none' else 'wrong anatomy'}" if told else label


def _comparisons(found: Experiment, metric: str, figures: dict[str, Figure]) -> Markup:
    rows = [
        [_label(found, name), _text(figure.difference, "+.3f"), _p(figure.p_value), figure.detectable]
        for name, figure in figures.items()
        if figure.difference is not None
    ]
    if not rows:
        return Markup("")
    caption = (
        f"{_label(found, found.reference)} minus each row, {metric}: paired over patients, p corrected (Holm). "
        "Detectable: the smallest true difference that this test set shows with a power of 80 %."
    )
    return pages.table(["row", "difference", "p", "detectable"], rows, caption)


def _p(value: float | None) -> str | None:
    return None if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _consistency(found: Experiment, protocol: str, task: str) -> Markup:
    """Whether the claimed accuracy, sensitivity and specificity of a row can be of one confusion matrix."""
    wanted = ("accuracy", "sensitivity", "specificity")
    claims = {row.label: row.claimed.get(protocol, {}).get(task, {}) for row in found.rows}
    printed = {
        label: [claim[name] for name in wanted] for label, claim in claims.items() if set(wanted) <= claim.keys()
    }
    if not printed:
        return Markup("")
    rows = [[label, *values, _matrix(*values)] for label, values in printed.items()]
    caption = "Whether the claimed figures can come from one confusion matrix of 135 to 160 test images."
    return pages.table(["row", *wanted, "matrix"], rows, caption)


def _matrix(accuracy: float, sensitivity: float, specificity: float) -> str:
    found = one_matrix(accuracy, sensitivity, specificity, _TEST_SETS)
    return "none" if found is None else f"{found[0]} of {found[1]} and {found[2]} of {found[3]}"


def _times(seconds: dict[str, float]) -> Markup:
    table = pd.DataFrame({"stage": [name.split("-")[0] for name in seconds], "seconds": list(seconds.values())})
    sums = table.groupby("stage")["seconds"].agg(["count", "sum"])
    rows = [[str(stage), int(count), float(total)] for stage, count, total in sums.itertuples()]
    return pages.table(
        ["stage", "runs", "seconds"], rows, "Wall-clock time when each was run, on the machine that ran it."
    )

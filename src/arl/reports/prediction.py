"""The page of predictions on files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from arl.evaluation.metrics import TITLES
from arl.evaluation.model_card import LIMITS
from arl.evaluation.results import Metrics
from arl.inference.answers import Answer, Facts
from arl.inference.model import Chosen
from arl.model_config import TaskModelConfig
from arl.reports import formatting, html, pictures
from arl.reports.elements import Badge, IntervalCell, Link, Table
from arl.reports.stamp import RunStamp

_NO_CALL = "no call"


def write_page(
    chosen: Chosen,
    config: TaskModelConfig,
    answers: Sequence[Answer],
    refused: Mapping[str, str],
    stamp: RunStamp,
    folder: Path,
) -> None:
    """Write <folder>/index.html; `refused` has the reason of each file that cannot be used."""
    evaluation = chosen.evaluation
    html.write(
        folder / "index.html",
        "prediction.html.j2",
        html.Head("Prediction", f"{config.task.anatomy}, by {chosen.name}", stamp),
        limits=LIMITS.replace("\n", " "),
        synthetic=evaluation is not None and evaluation.synthetic,
        files=_file_table(answers, refused),
        model=_model_table(evaluation) if evaluation else None,
        answers=answers,
        answer_facts=[_facts(answer.facts) for answer in answers],
        overlays=[pictures.panels(answer.panels) for answer in answers],
    )


def _file_table(answers: Sequence[Answer], refused: Mapping[str, str]) -> Table:
    """One row per file: the call, the values of the classes, and the notes."""
    # In the order of the first file, without doubles.
    names = list(dict.fromkeys(name for one in answers for name in one.facts.probabilities))
    kind = "score" if any(not one.facts.calibrated for one in answers) else "probability"
    columns = ["file", "call", *(_value_name(name, kind) for name in names), "images", "notes"]
    rows: list[list[object]] = [
        [
            Link(f"#file-{i}", one.facts.file),
            one.facts.called or _NO_CALL,
            *(one.facts.probabilities.get(name) for name in names),
            one.facts.pictures,
            " ".join(one.facts.notes),
        ]
        for i, one in enumerate(answers, start=1)
    ]
    rows += [
        # the name alone: folders of a hospital can name a patient
        [Path(file).name, Badge("refused"), *[None] * len(names), None, reason]
        for file, reason in refused.items()
    ]
    return Table(columns, rows, name="All files")


def _value_name(name: str, kind: str) -> str:
    return name if name.startswith("share ") else f"{kind} of {name}"


def _model_table(metrics: Metrics) -> Table:
    order = [name for name in TITLES if name in metrics.metrics]
    order += sorted(metrics.metrics.keys() - set(order))
    rows = [[TITLES.get(name, name), IntervalCell(metrics.metrics[name])] for name in order]
    kind = "synthetic " if metrics.synthetic else ""
    units = formatting.plural(metrics.patients, metrics.grouping)
    caption = (
        f"Measured on {metrics.images:,} {kind}test images of {units}. Intervals:"
        f" {formatting.percent(metrics.confidence)} over {metrics.grouping}s."
    )
    return Table(["metric", "value"], rows, caption)


def _facts(facts: Facts) -> dict[str, object]:
    kind = "probability" if facts.calibrated else "score"
    values = {_value_name(name, kind): value for name, value in facts.probabilities.items()}
    return {"call": facts.called or _NO_CALL, **values, "images": facts.pictures}

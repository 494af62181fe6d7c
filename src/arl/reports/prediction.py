"""The page of predictions on files."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from arl.evaluation.model_card import LIMITS
from arl.inference.answers import Answer
from arl.inference.model import Chosen
from arl.model_config import TaskModelConfig
from arl.reports import html, plots


def write_page(
    chosen: Chosen,
    config: TaskModelConfig,
    answers: Sequence[Answer],
    refused: dict[str, str],
    folder: Path,
) -> None:
    """Write <folder>/index.html; `refused` has the reason of each file that cannot be used."""
    body = html.note(LIMITS.replace("\n", " "), "warn") + html.section(
        "Model", _model(chosen, config)
    )
    body += Markup("").join(_file(answer) for answer in answers)
    if refused:
        body += html.section("Refused", html.table(["file", "reason"], list(refused.items())))
    page = html.page("Prediction", body, subtitle=f"{config.task.anatomy}, by {chosen.name}")
    (folder / "index.html").write_text(page, encoding="utf-8")


def _model(chosen: Chosen, config: TaskModelConfig) -> Markup:

    about = chosen.evaluation
    if about is None:
        return html.paragraph(
            "This model was not evaluated, so nothing is known of how often it is right."
        )
    rows = [
        [
            name,
            entry.value,
            None if entry.low is None else f"{entry.low:.3f} to {entry.high:.3f}",
        ]
        for name, entry in about.metrics.items()
    ]
    kind = "synthetic " if about.synthetic else ""
    caption = f"On {about.images:,} {kind}test images of {about.patients:,} {about.grouping}s."
    return html.table(["metric", "value", f"{about.confidence:.0%} interval"], rows, caption)


def _file(answer: Answer) -> Markup:

    facts = answer.facts
    kind = "probability" if facts.calibrated else "score"
    values = {
        f"{kind} of {name}" if facts.frames else name: value
        for name, value in facts.probabilities.items()
    }
    body = html.facts({"called": facts.called or "no call", "pictures": facts.pictures, **values})
    for note in facts.notes:
        body += html.note(note)
    about = "What the model looked at. Colours of the components are relative to this file."
    return html.section(
        facts.file,
        body + html.figure(plots.panels(answer.panels), about, f"Overlays of {facts.file}"),
    )

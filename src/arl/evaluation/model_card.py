"""A model card in Markdown, made of measured values and nothing else."""

from collections.abc import Sequence

from arl.evaluation.decision import Decision
from arl.evaluation.metrics import TITLES
from arl.evaluation.results import Metrics, SliceMetric
from arl.model_config import ModelConfig

_GROUPS = {  # what `Metrics.patients` counts
    "patient": "patients",
    "clip": "patients or clips",
    "image": "images taken as independent",
}
LIMITS = """\
This is research software. It is not a medical device, has not been tested in clinical use, and
must not be used to
diagnose or treat. The figures below hold for the test images named here and for no other
population, site, probe or
device."""


def model_card(
    version: str,
    evaluations: Sequence[Metrics],
    decision: Decision,
    config: ModelConfig,
) -> str:
    """The card of a release.

    Args:
        evaluations: the metrics.json of each task.
        decision: the gate's decision.json.
        config: the encoder's config.json.
    """
    encoder = ", ".join(f"{name} {value}" for name, value in sorted(config.encoder.items()))
    model = f"An anatomy-aware vision transformer (A-ViT), one head a task: {encoder}."
    parts = [f"# ARL {version}", LIMITS, *_warning(evaluations), f"## Model\n\n{model}"]
    parts.append("## Measured")
    parts += [_task(metrics) for metrics in evaluations]
    parts += [
        "## Why it was released",
        "\n".join(f"- {line}" for line in [*decision.reasons, *decision.notes]),
    ]
    return "\n\n".join(parts) + "\n"


def _warning(evaluations: Sequence[Metrics]) -> list[str]:
    synthetic = [metrics.task for metrics in evaluations if metrics.synthetic]
    if not synthetic:
        return []
    return [
        f"**Synthetic images.** The test images of {', '.join(synthetic)} are phantoms:"
        " no figure is clinical."
    ]


def _task(metrics: Metrics) -> str:
    classes = f"; classes {', '.join(metrics.classes)}" if metrics.classes else ""
    kind = " synthetic" if metrics.synthetic else ""
    head = (
        f"### {metrics.task}\n\n{metrics.kind.capitalize()}{classes}."
        f" {metrics.images:,}{kind} test images of"
        f" {metrics.patients:,} {_GROUPS[metrics.grouping]}."
    )
    table = [f"| metric | value | {metrics.confidence:.0%} interval |", "|---|---|---|"]
    for name, estimate in metrics.metrics.items():
        limits = "–" if estimate.low is None else f"{estimate.low:.3f} to {estimate.high:.3f}"
        table.append(f"| {TITLES[name]} | {estimate.value:.3f} | {limits} |")
    parts = [head, "\n".join(table)]
    if metrics.threshold is not None:
        parts.append(
            f"Called {metrics.classes[1]} from a score of {metrics.threshold:.4f},"
            " chosen on validation images (Youden)."
        )
    return "\n\n".join([*parts, *_calibration(metrics), _slices(metrics)])


def _calibration(metrics: Metrics) -> list[str]:
    if metrics.temperature is None or metrics.calibrated is None:
        return []
    text = (
        f"Scores become probabilities with a temperature of {metrics.temperature:.3g}, fitted on"
        " validation images: with it the test images' calibration error is"
        f" {metrics.calibrated.ece:.3f} and their Brier score {metrics.calibrated.brier:.3f}."
    )
    if metrics.temperature_at_limit:
        text += (
            " **This temperature is an end of its range**: no finite one fits the validation"
            " images, and the probabilities are not to be trusted."
        )
    return [text]


def _slices(metrics: Metrics) -> str:
    columns = f"| by | name | images | patients | {TITLES[metrics.main_metric]} |"
    rows = [
        f"| {origin} | {name} | {part.images} | {part.patients} | {_value(part)} |"
        for origin, parts in metrics.slices.items()
        for name, part in parts.items()
    ]
    return "\n".join([columns, "|---|---|---|---|---|", *rows])


def _value(part: SliceMetric) -> str:
    if part.estimate is None:
        return f"not defined: {part.note}"
    value = f"{part.estimate.value:.3f}"
    if part.estimate.low is None:
        return value
    return f"{value} ({part.estimate.low:.3f} to {part.estimate.high:.3f})"

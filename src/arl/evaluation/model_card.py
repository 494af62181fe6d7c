"""A model card in Markdown, made of measured values and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from arl.model_config import ModelConfig

_LABELS = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "top1": "Top-1 accuracy",
    "top3": "Top-3 accuracy",
    "dice": "Dice (mean over images)",
    "iou": "IoU (mean over images)",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
LIMITS = """\
This is research software. It is not a medical device, has not been tested in clinical use, and must not be used to
diagnose or treat. The figures below hold for the test images named here and for no other population, site, probe or
device."""


def model_card(
    version: str,
    evaluations: Sequence[Mapping[str, Any]],
    decision: Mapping[str, Any],
    config: ModelConfig,
) -> str:
    """The card of a release.

    Args:
        evaluations: the metrics.json of each task.
        decision: the gate's decision.json.
        config: the encoder's config.
    """
    parts = [f"# ARL {version}", LIMITS, *_warning(evaluations), _model(config), "## Measured"]
    parts += [_task(about) for about in evaluations]
    parts += [
        "## Why it was released",
        "\n".join(f"- {line}" for line in [*decision["reasons"], *decision["notes"]]),
    ]
    return "\n\n".join(parts) + "\n"


def _warning(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    synthetic = [about["task"] for about in evaluations if about["synthetic"]]
    if not synthetic:
        return []
    return [
        f"**Synthetic images.** The test images of {', '.join(synthetic)} are phantoms: no figure is clinical."
    ]


def _model(config: ModelConfig) -> str:
    encoder = ", ".join(f"{name} {value}" for name, value in sorted(config.encoder.items()))
    return (
        f"## Model\n\nAn anatomy-aware vision transformer (A-ViT) with one head a task: {encoder}."
    )


def _task(about: Mapping[str, Any]) -> str:
    classes = f"; classes {', '.join(about['classes'])}" if about["classes"] else ""
    head = f"### {about['task']}\n\n{about['kind'].capitalize()}{classes}. {_images(about)}"
    rows = [_row(_LABELS[name], entry) for name, entry in about["metrics"].items()]
    table = "\n".join(
        [f"| metric | value | {about['confidence']:.0%} interval |", "|---|---|---|", *rows]
    )
    return "\n\n".join([head, table, *_threshold(about), *_calibration(about), *_slices(about)])


def _images(about: Mapping[str, Any]) -> str:
    kind = " synthetic" if about["synthetic"] else ""
    groups = {
        "patient": "patients",
        "clip": "patients or clips",
        "image": "images taken as independent",
    }
    return f"{about['n']:,}{kind} test images of {about['patients']:,} {groups[about['grouping']]}."


def _row(label: str, entry: Mapping[str, float | None]) -> str:
    interval = "–" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"
    return f"| {label} | {entry['value']:.3f} | {interval} |"


def _threshold(about: Mapping[str, Any]) -> list[str]:
    if about["threshold"] is None:
        return []
    positive = about["classes"][1]
    return [
        f"Called {positive} from a score of {about['threshold']:.4f}, chosen on validation images (Youden)."
    ]


def _calibration(about: Mapping[str, Any]) -> list[str]:
    if about["temperature"] is None:
        return []
    after = about["calibrated"]
    return [
        f"Scores become probabilities with a temperature of {about['temperature']:.3f}, fitted on validation images: "
        f"with it the test images' calibration error is {after['ece']:.3f} and their Brier score {after['brier']:.3f}."
    ]


def _slices(about: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {origin} | {name} | {part['n']} | {part['patients']} | {_value(part)} |"
        for origin, parts in about["slices"].items()
        for name, part in parts.items()
    ]
    head = [
        f"| by | name | images | patients | {_LABELS[about['main']]} |",
        "|---|---|---|---|---|",
    ]
    return ["\n".join([*head, *rows])]


def _value(part: Mapping[str, Any]) -> str:
    if part["value"] is None:
        return f"not defined: {part['note']}"
    return f"{part['value']:.3f}" + (
        "" if part["low"] is None else f" ({part['low']:.3f} to {part['high']:.3f})"
    )

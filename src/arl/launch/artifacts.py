"""What the pages of Kubeflow show of a step: metadata, metrics, curves and pages.

Kubeflow's UI draws only artifacts of the types Metrics, ClassificationMetrics, HTML and Markdown,
and lists the metadata of the others. The arguments `artifact`, `metrics` and `curves` are objects
of kfp, which this package does not import.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from arl.documents import DocumentError
from arl.evaluation.decision import read_decision
from arl.evaluation.pretraining import PretrainingMetrics
from arl.evaluation.results import read_metrics
from arl.files import tree_hash
from arl.monitoring.drift_result import DriftResult
from arl.monitoring.runs import Intake, Run, RunDecision, current
from arl.storage.metadata import Receipt

# a curve for the UI needs no more points, and MLMD limits the size of a property
_MAX_POINTS = 200
_RELATIVE_LINK = re.compile(r'<a\b[^>]*\bhref="(?!#|[a-z]+:)([^"]*)"[^>]*>(.*?)</a>', re.DOTALL)
_PAGES_OF_A_RUN = re.compile(r'<nav class="pages".*?</nav>', re.DOTALL)
# folder of a page beside the report -> the step that has it on Kubeflow
_STEP_OF = {"decision": "gate", "validation": "validate", "drift": "drift"}


class Artifact(Protocol):
    """The part of `kfp.dsl.Artifact` that we use."""

    path: str
    # values become protobuf values of the metadata store: strings, numbers, lists and structs
    metadata: dict[str, object]


class Metrics(Protocol):
    """The part of `kfp.dsl.Metrics` that we use."""

    def log_metric(self, metric: str, value: float) -> None:
        """Add a number."""


class ClassificationMetrics(Protocol):
    """The part of `kfp.dsl.ClassificationMetrics` that we use."""

    def log_roc_curve(self, fpr: list[float], tpr: list[float], threshold: list[float]) -> None:
        """Add a ROC curve."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Add counts, truth in rows."""


def copy_page(folder: str, page: str) -> None:
    """Copy the page of a stage's folder to the file of an HTML artifact.

    Kubeflow shows the file in a frame of its own (kubeflow/pipelines 2.17.0,
    frontend/src/components/viewers/HTMLViewer.tsx: srcdoc, sandbox), where links to files beside
    the page lead nowhere. In place of a link stands its text and where to find the page.
    """

    def without_link(link: re.Match[str]) -> str:
        folder, _, rest = link[1].partition("/")
        step = _STEP_OF.get(folder) if rest else None
        return f"{link[2]} (page of the step {step})" if step else f"{link[2]} (file {link[1]})"

    source = Path(folder) / "index.html"
    text = "This step has no page."
    if source.is_file():
        text = _PAGES_OF_A_RUN.sub("", source.read_text(encoding="utf-8"))
        text = _RELATIVE_LINK.sub(without_link, text)
    Path(page).parent.mkdir(parents=True, exist_ok=True)
    Path(page).write_text(text, encoding="utf-8")


def describe_model(model: Artifact, task: str, data_version: str, code_version: str) -> None:
    """Add the metadata of a model folder: task, format, hash, data and code version."""
    folder = Path(model.path)
    model.metadata.update(
        task=task,
        framework="PyTorch",
        format="safetensors",
        sha256=tree_hash(folder),
        size=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        data_version=data_version,
        code_version=code_version,
    )


def log_pretraining(metrics: Metrics, file: str) -> None:
    """Log the losses and collapse metrics of the last step."""
    results = PretrainingMetrics.read(Path(file))
    features = results.features[-1] if results.features else {}
    _log(metrics, {"images": results.images, "steps": results.steps, **results.final, **features})


def log_evaluation(metrics: Metrics, evaluation: str) -> None:
    """Log each metric of a task with the ends of its interval."""
    results = read_metrics(Path(evaluation))
    _log(metrics, {"images": results.images, "patients": results.patients})
    for name, estimate in results.metrics.items():
        ends = {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        _log(metrics, {name: estimate.value, **ends})


def log_classification(curves: ClassificationMetrics, evaluation: str) -> None:
    """Log the confusion matrix, and of a binary task the ROC curve; nothing for a segmentation."""
    results = read_metrics(Path(evaluation))
    if results.confusion is None:
        return
    curves.log_confusion_matrix(list(map(str, results.classes)), results.confusion)
    if len(results.classes) == 2:
        curves.log_roc_curve(*_roc(Path(evaluation) / "predictions.parquet"))


def _roc(predictions: Path) -> tuple[list[float], list[float], list[float]]:
    """False positive rates, true positive rates and thresholds, (n,) with n <= 200."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_curve

    table = pd.read_parquet(predictions, columns=["label", "score_1"])
    false, true, cuts = roc_curve(table["label"], table["score_1"])
    # the first cut is infinite, which is no JSON number
    cuts = np.clip(cuts, 0.0, 1.0)
    kept = np.unique(np.linspace(0, len(cuts) - 1, min(len(cuts), _MAX_POINTS)).round().astype(int))
    return false[kept].tolist(), true[kept].tolist(), cuts[kept].tolist()


def log_drift(metrics: Metrics, drift: str) -> None:
    """Log the numbers of images and patients that the drift test compared."""
    result = DriftResult.read(Path(drift) / "drift.json")
    _log(
        metrics,
        {
            "images": result.images,
            "patients": result.patients,
            "reference_images": result.reference_images,
            "reference_patients": result.reference_patients,
            "sites_drifted": sum(site.drifted for site in result.sites),
            "sites_tested": len(result.sites),
        },
    )


def _log(metrics: Metrics, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        # the UI's table and MLMD hold finite numbers only
        if isinstance(value, int | float) and math.isfinite(value):
            metrics.log_metric(name, float(value))


def describe_decision(decision: Artifact, data_version: str) -> str:
    """Add verdict, champion and models to the metadata of a decision; returns the verdict."""
    results = read_decision(Path(decision.path))
    decision.metadata.update(
        verdict=results.verdict,
        champion=results.champion or "",
        data_version=data_version,
        models=dict(results.models),
    )
    return results.verdict


def describe_release(
    released: Artifact, decision: str, receipt: str, registry: str, data_version: str
) -> None:
    """Write the Model artifact of a release: its version, verdict, tasks and hashes."""
    judged, written = read_decision(Path(decision)), Receipt.read(Path(receipt))
    facts: dict[str, object] = {
        "verdict": judged.verdict,
        "version": written.version or "",
        "registry": registry,
        "tasks": sorted(judged.models),
        "sha256": dict(judged.models),
        "data_version": data_version,
    }
    released.metadata.update(facts)
    write_facts(released.path, facts)


def write_facts(path: str, facts: Mapping[str, object]) -> None:
    """Write the file of an artifact that is all metadata."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


# --- monitoring runs -----------------------------------------------------------------------------

# The files that the steps of a monitoring run leave in its folder, in the order of the steps
_LEFT_BY = {"intake.json": "take_batch", "drift/drift.json": "compare", "decision.json": "decide"}
_OUTCOME = "training"
_OUTAGE = "outage.txt"


def open_run(monitor: str, owner: str) -> Run | None:
    """The monitoring run that is in progress, where `owner` carries it out."""
    run = current(Path(monitor))
    return run if run is not None and run.owner == owner else None


def describe_monitoring(run: Run | None, page: str) -> str:
    """Copy the page of a monitoring run's drift test; returns the decision.

    Raises:
        FileNotFoundError: the run is no longer open, or is another owner's.
    """
    if run is None:
        raise FileNotFoundError("the monitoring run is no longer open, or another run resumed it")
    copy_page(str(run.folder / "drift"), page)
    return RunDecision.read(run.folder / "decision.json").decision.word


def keep_outcome(monitor: str, owner: str, decision: str, receipt: str) -> None:
    """Copy the gate's decision and the receipt into the monitoring run, if there is one."""
    run = open_run(monitor, owner) if monitor else None
    if run is None:
        return
    target = run.folder / _OUTCOME
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(decision, target / "decision")
    # the receipt is last: it says that the copy is whole
    shutil.copyfile(receipt, target / "receipt.json")


def note_outage(monitor: str, reason: str) -> None:
    """Tell `close_run` that the monitoring run waits for its surroundings and has not failed."""
    try:
        run = current(Path(monitor))
        if run is not None:
            (run.folder / _OUTAGE).write_text(reason, encoding="utf-8")
    except OSError as error:
        # The volume itself may be what is out of reach, and the step's own error matters more.
        print(f"the outage could not be recorded: {error}", flush=True)


def outcome_of_run(monitor: str, owner: str) -> tuple[str, str, str | None]:
    """Judge a monitoring run by the files that its steps left.

    Returns:
        The error and the outage, empty where every step left its result, and the gate's decision
        folder of a run that has trained.
    """
    run = open_run(monitor, owner)
    if run is None:
        return "", "", None
    error, verdict = _judge(run)
    outage = run.folder / _OUTAGE
    if not outage.is_file():
        return error, "", verdict
    reason = outage.read_text(encoding="utf-8")
    outage.unlink()
    return ("", reason, None) if error else ("", "", verdict)


def _judge(run: Run) -> tuple[str, str | None]:
    """The error, if any, and the gate's decision folder, if the run has trained."""
    try:
        refused = not Intake.read(run.folder / "intake.json").accepted
    except (FileNotFoundError, DocumentError):
        refused = False
    for name, step in _LEFT_BY.items():
        is_needed = step != "compare" or not refused
        if is_needed and not (run.folder / name).is_file():
            return f"the step {step} ended without {name}; its log says why", None
    if RunDecision.read(run.folder / "decision.json").decision.word != "retrain":
        return "", None
    if not (run.folder / _OUTCOME / "receipt.json").is_file():
        return "the training ended without a receipt; the log of the failed step says why", None
    return "", str(run.folder / _OUTCOME / "decision")

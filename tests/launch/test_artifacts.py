"""What Kubeflow's pages show of a step, and how a monitoring run is judged by its files."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from kfp import dsl

from arl.corpus.checks.findings import Finding
from arl.corpus.checks.result import ValidationResult
from arl.documents import Document
from arl.evaluation.results import Calibration, Estimate, Metrics
from arl.launch import artifacts, corpus_artifacts
from arl.monitoring.journal import BatchDecision, DecisionWord
from arl.monitoring.runs import Intake, Run, RunDecision, begin


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The folder of `arl evaluate` for a task of two classes."""
    metrics = Metrics(
        task="breast",
        kind="classification",
        classes=["benign", "malignant"],
        model_hash="0" * 64,
        images=4,
        patients=4,
        grouping="patient",
        synthetic=False,
        main_metric="auroc",
        confidence=0.95,
        metrics={"auroc": Estimate(0.75, 0.4, 0.9), "ece": Estimate(0.1)},
        delong=None,
        detectable_difference=0.1,
        confusion=[[1, 1], [0, 2]],
        slices={},
        threshold=0.5,
        temperature=1.0,
        calibrated=Calibration(0.1, 0.2),
    )
    folder = tmp_path / "evaluation"
    folder.mkdir()
    metrics.write(folder / "metrics.json")
    table = pd.DataFrame({"label": [0, 0, 1, 1], "score_1": [0.1, 0.6, 0.5, 0.9]})
    table.to_parquet(folder / "predictions.parquet")
    return folder


def test_metrics_have_the_ends_of_their_intervals(evaluation: Path) -> None:
    logged = dsl.Metrics(uri="")
    artifacts.log_evaluation(logged, str(evaluation))
    assert logged.metadata == {
        "images": 4.0,
        "patients": 4.0,
        "auroc": 0.75,
        "auroc_low": 0.4,
        "auroc_high": 0.9,
        "ece": 0.1,
    }


def test_the_curve_and_the_matrix_are_json(evaluation: Path) -> None:
    """scikit-learn's first threshold is infinite, and MLMD's Struct holds JSON numbers only."""
    logged = dsl.ClassificationMetrics(uri="")
    artifacts.log_classification(logged, str(evaluation))
    json.dumps(logged.metadata, allow_nan=False)
    curve = (
        logged.metadata["confidenceMetrics"]["confidenceMetrics"]
        if isinstance(logged.metadata["confidenceMetrics"], dict)
        else logged.metadata["confidenceMetrics"]
    )
    assert curve[0]["recall"] == 0.0
    assert curve[-1]["recall"] == 1.0
    assert all(math.isfinite(point["confidenceThreshold"]) for point in curve)
    matrix = json.dumps(logged.metadata["confusionMatrix"])
    assert "malignant" in matrix


def test_a_long_curve_is_thinned(evaluation: Path) -> None:
    count = 5000
    labels = [i % 2 for i in range(count)]
    scores = [((i * 7919) % count) / count for i in range(count)]
    pd.DataFrame({"label": labels, "score_1": scores}).to_parquet(
        evaluation / "predictions.parquet"
    )
    false, true, cuts = artifacts._roc(evaluation / "predictions.parquet")
    assert len(false) == len(true) == len(cuts) <= 200
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)


def test_a_page_in_a_frame_has_no_links_to_files(tmp_path: Path) -> None:
    """The viewer is an iframe with srcdoc (2.17.0, frontend/.../viewers/HTMLViewer.tsx)."""
    text = (
        '<a href="#top">up</a> <a class="x" href="evidently.html">all tests</a> '
        '<a href="https://doi.org/1">paper</a>'
    )
    (tmp_path / "index.html").write_text(text)
    artifacts.copy_page(str(tmp_path), str(tmp_path / "out/page"))
    assert (tmp_path / "out/page").read_text() == (
        '<a href="#top">up</a> all tests (file evidently.html) '
        '<a href="https://doi.org/1">paper</a>'
    )


def test_a_broken_corpus_stops_the_run_with_its_rules(tmp_path: Path) -> None:
    rule = Finding("unique-id", "critical", "ids are unique", 9, 2, [])
    ValidationResult("v", [rule]).write(tmp_path / "result.json")
    with pytest.raises(ValueError, match="unique-id: 2 of 9, ids are unique"):
        corpus_artifacts.require_accepted(str(tmp_path))


# --- monitoring runs -----------------------------------------------------------------------------


ACCEPTED = Intake(accepted=True)


def decided(word: DecisionWord) -> RunDecision:
    return RunDecision(words=["why"], decision=BatchDecision(word=word))


class Loop:
    """The folder of a monitoring loop with one open run, and what its steps leave."""

    def __init__(self, folder: Path) -> None:
        self.monitor = folder / "monitor"
        self.run = Run(name="r1", monitor=self.monitor, batches=["a/b"], owner="me")
        begin(self.run)

    def leave(self, name: str, document: Document = ACCEPTED) -> None:
        document.write(self.run.folder / name)

    def outcome(self) -> tuple[str, str, str | None]:
        return artifacts.outcome_of_run(str(self.monitor), "me")


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def test_a_run_without_drift_ended_well(loop: Loop) -> None:
    """Kubeflow says RUNNING of it: a condition was not met."""
    loop.leave("intake.json")
    loop.leave("drift/drift.json")
    loop.leave("decision.json", decided("no-drift"))
    assert loop.outcome() == ("", "", None)


def test_a_refused_batch_needs_no_drift_test(loop: Loop) -> None:
    loop.leave("intake.json", Intake(accepted=False))
    loop.leave("decision.json", decided("refused"))
    assert loop.outcome() == ("", "", None)


@pytest.mark.parametrize(
    ("left", "step"),
    [
        ([], "take_batch"),
        (["intake.json"], "compare"),
        (["intake.json", "drift/drift.json"], "decide"),
    ],
)
def test_a_step_that_left_nothing_has_failed(loop: Loop, left: list[str], step: str) -> None:
    """Also one whose pod was killed, of which Kubeflow says RUNNING."""
    for name in left:
        loop.leave(name)
    error, outage, _ = loop.outcome()
    assert f"the step {step} ended without" in error
    assert outage == ""


def test_an_outage_is_no_failure(loop: Loop) -> None:
    loop.leave("intake.json")
    artifacts.note_outage(str(loop.monitor), "compare: the store does not answer")
    assert loop.outcome() == ("", "compare: the store does not answer", None)
    # it is over once a later attempt fails otherwise
    error, outage, _ = loop.outcome()
    assert "the step compare ended without" in error
    assert outage == ""


def test_a_training_is_judged_by_its_receipt(loop: Loop, tmp_path: Path) -> None:
    loop.leave("intake.json")
    loop.leave("drift/drift.json")
    loop.leave("decision.json", decided("retrain"))
    error, *_ = loop.outcome()
    assert "without a receipt" in error
    gate = tmp_path / "gate"
    gate.mkdir()
    (gate / "decision.json").write_text("{}")
    (tmp_path / "receipt").write_text("{}")
    paths = (str(gate), str(tmp_path / "receipt"))
    artifacts.keep_outcome(str(loop.monitor), "another run", *paths)
    assert loop.outcome()[0] == error
    artifacts.keep_outcome(str(loop.monitor), "me", *paths)
    error, outage, verdict = loop.outcome()
    assert (error, outage) == ("", "")
    assert verdict is not None
    assert (Path(verdict) / "decision.json").is_file()


def test_the_run_of_another_owner_is_left_alone(loop: Loop) -> None:
    assert artifacts.outcome_of_run(str(loop.monitor), "another") == ("", "", None)

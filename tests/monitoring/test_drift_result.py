"""drift.json: what is written is read back, and another file is an error."""

from pathlib import Path

import pytest

from arl.documents import DocumentError
from arl.monitoring.drift_result import ColumnDrift, DriftResult, SiteShift, TabularDrift

RESULT = DriftResult(
    decision="drift",
    reasons=["Embeddings moved."],
    batches=["clinic/0001"],
    images=40,
    patients=20,
    site_distances={"clinic": -0.001},
    sites=[
        SiteShift("clinic", "", "its own training images", 20, 36, 0.5, 0.001, 0.001, None, True)
    ],
    tabular=TabularDrift(
        [
            ColumnDrift("mean", "ks", 0.01, True, reference_median=80.5, current_median=99.0),
            ColumnDrift("probe", "homogeneity", 0.9, False, None, None, "linear", "linear"),
        ],
        threshold=0.005,
        drift_share=0.25,
        left_out={"depth_cm": "one value only"},
        drifted_fraction=0.5,
        drifted=True,
    ),
)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "drift.json")
    assert DriftResult.read(tmp_path / "drift.json") == RESULT
    assert RESULT.tabular is not None
    assert [column.reference for column in RESULT.tabular.columns] == [80.5, "linear"]


@pytest.mark.parametrize(
    ("decision", "trigger"),
    [
        ("drift", "retrain"),
        ("no-drift", "no-drift"),
        ("too-few", "too-few"),
        ("no-new-data", "too-few"),
    ],
)
def test_every_decision_has_a_trigger(tmp_path: Path, decision: str, trigger: str) -> None:
    file = tmp_path / "drift.json"
    file.write_text(f'{{"format": "arl.drift/1", "decision": "{decision}", "reasons": []}}')
    assert DriftResult.read(file).trigger == trigger


@pytest.mark.parametrize("decision", ['"Drift"', "null", "3"])
def test_another_decision_starts_nothing(tmp_path: Path, decision: str) -> None:
    file = tmp_path / "drift.json"
    file.write_text(f'{{"format": "arl.drift/1", "decision": {decision}, "reasons": []}}')
    with pytest.raises(DocumentError, match="decision"):
        DriftResult.read(file)

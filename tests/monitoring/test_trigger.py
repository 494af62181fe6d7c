import pytest

from arl.monitoring.trigger import trigger


@pytest.mark.parametrize(
    ("decision", "word"),
    [
        ("drift", "retrain"),
        ("no-drift", "no-drift"),
        ("too-few", "too-few"),
        ("no-new-data", "too-few"),
    ],
)
def test_every_decision_of_drift_has_a_word(decision: str, word: str) -> None:
    assert trigger({"decision": decision, "reasons": []}) == word


@pytest.mark.parametrize("content", [{}, {"decision": None}, {"decision": "Drift"}])
def test_what_is_no_decision_starts_nothing(content: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match="is no decision of `arl drift`; it decides drift, no-drift"
    ):
        trigger(content)

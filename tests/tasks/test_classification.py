import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from arl.tasks.classification import Classification, balanced_weights
from arl.tasks.make import make_kind

TWO = Classification(("benign", "malignant"))
FOUR = Classification(("a", "b", "c", "d"))


def test_up_to_three_classes_are_judged_by_auroc_and_more_by_accuracy() -> None:
    rng = np.random.default_rng(0)
    label, score = rng.integers(2, size=90), rng.random(90)
    patient = np.repeat([f"p{i}" for i in range(30)], 3)
    table = pd.DataFrame({"label": label, "score_0": 1 - score, "score_1": score})
    table = table.assign(patient=patient)
    assert (TWO.main, Classification(("a", "b", "c")).main, FOUR.main) == ("auroc", "auroc", "top1")
    accuracy = ((score > 0.5) == label).mean()
    assert FOUR.statistic(table)(np.ones((1, 90)))[0] == pytest.approx(accuracy)
    assert (TWO.units(table), FOUR.units(table)) == (15, 30)


def test_rows_are_selected_by_a_further_label_and_numbers_are_classes() -> None:
    def labels(name: str, text: str | None, number: float | None) -> list[dict[str, object]]:
        return [{"name": name, "level": "clip", "text": text, "number": number}]

    entries = [labels("grade", None, 2.0), labels("grade", "3", None), None, labels("x", "2", None)]
    rows = pd.DataFrame({"label": ["2", None, "2", None], "labels": entries})
    by_label = Classification(("2", "3"), "grade").select(rows)
    assert by_label["target"].to_dict() == {0: 0, 1: 1}
    assert Classification(("2", "3")).select(rows)["target"].to_dict() == {0: 0, 2: 0}
    assert Classification(("2", "3", "4"), "grade").missing(by_label) == ["4"]


def test_balanced_weights_are_scikit_learns() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    assert torch.allclose(balanced_weights(targets, 3), torch.from_numpy(expected).float())
    assert balanced_weights(targets, 4)[3] == 0


def test_weighted_cross_entropy_is_a_weighted_mean_over_the_batch() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 3])
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    terms = [
        (float(weights[y]), -float(row[y]) + float(torch.logsumexp(row, 0)))
        for row, y in zip(logits, target, strict=True)
    ]
    expected = sum(w * loss for w, loss in terms) / sum(w for w, _ in terms)
    loss = FOUR.loss(logits, target, label_smoothing=0.0, weights=weights)["loss"]
    assert float(loss) == pytest.approx(expected)


def test_bad_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        Classification(("a",))

    class Unknown:
        kind, classes, label, mask = "tabular", [], "", ""

    with pytest.raises(ValueError, match="'tabular'"):
        make_kind(Unknown())

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from arl.evaluation import metrics
from arl.evaluation.results import Estimate
from arl.evaluation.statistics import cluster_bootstrap, clustered_interval
from arl.evaluation.summary import Summary
from arl.tasks.classification import Classification
from arl.tasks.kind import Kind
from arl.tasks.segmentation import Segmentation

TWO = Classification(("benign", "malignant"))
FOUR = Classification(("a", "b", "c", "d"))

Tables = Callable[..., list[pd.DataFrame]]


def summary(table: pd.DataFrame, kind: Kind = TWO, threshold: float | None = 0.3) -> Summary:
    return Summary(table, kind, threshold=threshold, resamples=200, confidence=0.95, seed=0)


def test_two_classes(classifications: Tables) -> None:
    table = classifications(60, 0.9, images=2)[0]
    found = summary(table).metrics()
    assert found["auroc"].value == pytest.approx(roc_auc_score(table["label"], table["score_1"]))
    matrix = np.array(summary(table).confusion())
    assert matrix.sum() == 120
    for name in ("accuracy", "sensitivity", "specificity"):
        assert found[name].value == pytest.approx(getattr(metrics, name)(matrix))
        assert found[name].low < found[name].value < found[name].high
    assert found["ece"].low is None
    delong = summary(table).delong()
    assert delong == Estimate.of(
        clustered_interval(table["label"], table["score_1"], table["patient"])
    )
    assert set(found) == {"auroc", "accuracy", "sensitivity", "specificity", "brier", "ece"}


def test_several_classes(classifications: Tables) -> None:
    about = classifications(60, 0.9)[0].drop(columns=["score_0", "score_1"])
    scores = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    table = about.assign(label=np.arange(60) % 4, **{f"score_{c}": scores[:, c] for c in range(4)})
    found = summary(table, FOUR, None).metrics()
    assert set(found) == {"auroc", "accuracy", "top1", "top3", "brier", "ece"}
    matrix = np.array(summary(table, FOUR, None).confusion())
    assert found["accuracy"] == found["top1"]
    assert found["top1"].value == pytest.approx(metrics.accuracy(matrix))
    assert found["top3"].value > found["top1"].value


def test_masks(segmentations: Tables) -> None:
    table = segmentations(50, 0.7)[0]
    found = summary(table, Segmentation("lv"), None)
    assert found.metrics()["dice"].value == pytest.approx(table["dice"].mean())
    assert set(found.metrics()) == {"dice", "iou"}
    assert found.confusion() is None
    assert found.delong() is None


def test_slices_say_why_they_have_no_value(classifications: Tables) -> None:
    table = classifications(60, 0.9)[0]
    table.loc[:9, "site"] = np.where(table["label"][:10] == 1, "malignant only", "tiny")
    table.loc[table["site"] == "tiny", "label"] = [0, 0, 0, 0, 1]
    found = summary(table).slices()
    assert set(found) == {"site", "probe", "device"}
    assert (found["probe"]["linear"].images, found["probe"]["linear"].patients) == (60, 60)
    assert found["site"]["malignant only"].estimate is None
    assert "needs every class" in found["site"]["malignant only"].note
    tiny = found["site"]["tiny"]
    assert tiny.estimate is not None
    assert tiny.estimate.low is None
    assert "resamples leave the statistic undefined" in tiny.note
    assert not found["device"]["A"].note


def test_fewer_patients_detect_only_larger_differences(classifications: Tables) -> None:
    few, many = (
        summary(classifications(patients, 0.9)[0], threshold=None).detectable()
        for patients in (40, 160)
    )
    assert few == pytest.approx(2 * many, rel=0.5)
    table = classifications(160, 0.9)[0]
    drawn = cluster_bootstrap([TWO.statistic(table)], table["patient"], resamples=200, seed=0)[0]
    assert many == pytest.approx((1.96 + 0.8416) * drawn.error(), rel=1e-3)
    perfect = classifications(40, 0.9)[0]
    perfect["score_1"] = 0.1 + 0.8 * perfect["label"]
    assert summary(perfect).detectable() == pytest.approx(1 - 0.05 ** (1 / 20))


def test_a_perfect_model_is_not_certain(classifications: Tables) -> None:
    table = classifications(40, 0.9)[0]
    table["score_1"] = 0.1 + 0.8 * table["label"]
    found = summary(table).metrics()
    assert found["auroc"] == Estimate(1, pytest.approx(0.025 ** (1 / 20)), 1)
    assert found["accuracy"] == Estimate(1, pytest.approx(0.025 ** (1 / 40)), 1)
    assert found["sensitivity"] == Estimate(1, pytest.approx(0.025 ** (1 / 20)), 1)


def test_what_cannot_be_measured(classifications: Tables) -> None:
    table = classifications(20, 0.9)[0]
    with pytest.raises(ValueError, match="not a finite number"):
        summary(table.assign(score_1=np.nan)).metrics()
    with pytest.raises(ValueError, match="needs every class"):
        summary(table.assign(label=0)).metrics()
    with pytest.raises(ValueError, match="needs 2 patients"):
        summary(table.assign(patient="one")).metrics()

"""Charts are the same for the same data, and say their values."""

import re

import numpy as np
import pytest

from arl.evaluation.results import Interval
from arl.reports import charts, html
from arl.reports.chart_data import calibration_bins, roc_band, roc_curve_of
from arl.reports.drift import project


def titles(chart: charts.Chart) -> list[str]:
    return [mark.title for mark in chart.marks if isinstance(mark, charts.Path) and mark.title]


def every_chart() -> list[charts.Chart]:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.uniform(size=80)
    patients = np.arange(80) // 2
    interval = Interval(-0.01, -0.05, 0.02)
    return [
        charts.roc(
            [roc_curve_of("AUROC", labels, scores)],
            title="t",
            band=roc_band(labels, scores, patients, resamples=20, seed=0),
            operating_point=(0.2, 0.8, 0.5),
        ),
        charts.calibration([charts.CalibrationBin(0.2, Interval(0.3, 0.1, 0.5), 40)], title="t"),
        charts.forest([charts.Bar("a", interval, -0.03)], title="t", x_label="x", limit_name="m"),
        charts.dots([charts.Point("a", 0.1, None, True)], title="t", x_label="x"),
        charts.histogram(charts.distribution("n", rng.normal(size=50), rng.normal(size=50))),
        charts.fractions_histogram(rng.uniform(size=30), title="t", x_label="Dice"),
        charts.scatter(rng.normal(size=(30, 2)), ["a", "b"] * 15, title="t"),
        charts.curve([(1, 0.5), (2, float("nan")), (3, 0.25)], title="t"),
        charts.efficiency({"m": [(0.1, interval), (1.0, interval)]}, title="t", metric="AUROC"),
    ]


def test_all_numbers_are_finite_and_the_same_again() -> None:
    first, again = every_chart(), every_chart()
    assert first == again
    for chart in first:
        for mark in chart.marks:
            text = mark.d if isinstance(mark, charts.Path) else f"{mark.x} {mark.y}"
            assert "nan" not in text
            assert "inf" not in text
        assert chart.description


def test_every_kind_of_chart_says_its_values_on_hover() -> None:
    for chart in every_chart():
        assert any(re.search(r"\d|point|^[ab]$", title) for title in titles(chart)), chart.title


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-0.05, 0.05, ["−0.04", "−0.02", "0", "0.02", "0.04"]),
        (0, 0, ["0"]),
        (1, 3000, ["1000", "2000", "3000"]),
    ],
)
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in charts.ticks(low, high)] == texts


def test_few_images_give_few_bins() -> None:
    rng = np.random.default_rng(1)
    for images, bins in ((30, 1), (60, 2), (260, 10), (2000, 10)):
        probabilities = rng.uniform(size=images)
        outcomes = (rng.uniform(size=images) < probabilities).astype(np.int64)
        patients = _series(images)
        found = calibration_bins(outcomes, probabilities, patients)
        assert len(found) == bins
        assert sum(one.images for one in found) == images
        assert min(one.images for one in found) >= 25
        for one in found:
            assert one.observed.low <= one.observed.value <= one.observed.high


def _series(images: int) -> "object":
    import pandas as pd

    return pd.Series([f"p{i // 2}" for i in range(images)])


def test_the_band_holds_the_curve_and_is_wider_for_fewer_patients() -> None:
    rng = np.random.default_rng(3)
    labels = np.tile([0, 1], 60)
    scores = labels + rng.normal(size=120)
    many = roc_band(labels, scores, np.arange(120), resamples=200, seed=0)
    few = roc_band(labels, scores, np.arange(120) // 12, resamples=200, seed=0)
    assert (many[1] <= many[2]).all()
    assert (few[2] - few[1]).mean() > (many[2] - many[1]).mean()


def test_the_map_has_the_axes_of_the_reference() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(size=(50, 8)) * np.array([9, 5, *[0.1] * 6])
    current = np.zeros((10, 8))
    current[:, 7] = 40.0  # a direction that the reference does not have
    points = project(np.concatenate([reference, current]).astype(np.float32), np.arange(60) >= 50)
    assert points.shape == (60, 2)
    assert np.abs(points[50:]).max() < 5
    assert points[:50, 0].std() > points[:50, 1].std() > 3


def test_many_points_are_one_path_for_each_group() -> None:
    points = np.random.default_rng(0).normal(size=(2000, 2))
    chart = charts.scatter(points, ["a", "b"] * 1000, title="t")
    assert len(chart.marks) == 3
    assert html.anchor(chart.title) == "t"

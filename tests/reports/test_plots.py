from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from arl.evaluation.results import Interval
from arl.reports import plots

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
SCORES = (RNG.normal(size=60) + LABELS).round(2)
PATIENTS = np.arange(60) // 2
PROBABILITIES = RNG.random(60)
MATRIX = np.array([[30, 3], [5, 22]])

MAKERS: dict[str, Callable[[], bytes]] = {
    "roc": lambda: plots.roc(LABELS, SCORES, PATIENTS, title="breast", threshold=0.5, resamples=20),
    "roc of several": lambda: plots.roc(
        LABELS,
        SCORES,
        PATIENTS,
        title="breast",
        others=[("MAE", LABELS, PROBABILITIES)],
        resamples=20,
    ),
    "confusion": lambda: plots.confusion(MATRIX, ["benign", "malignant"], title="breast"),
    "calibration": lambda: plots.calibration(LABELS, PROBABILITIES, title="breast"),
    "differences": lambda: plots.differences(
        [
            ("breast", Interval(0.01, -0.02, 0.04), 0.05),
            ("site north", Interval(-0.1, -0.2, 0.0), None),
        ]
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_figures_are_pictures_and_the_same_bytes(name: str) -> None:
    first, second = MAKERS[name](), MAKERS[name]()
    assert first == second
    image = np.asarray(Image.open(BytesIO(first)).convert("L"))
    assert min(image.shape) > 150
    assert (
        0.5 < (image > 250).mean() < 0.99 or name == "confusion"
    )  # mostly paper, but something is drawn
    assert b"tEXt" not in first


def test_the_band_holds_the_curve() -> None:
    grid, low, high = plots.roc_band(LABELS, SCORES, PATIENTS, resamples=200, seed=0)
    false_positive, true_positive, _ = roc_curve(LABELS, SCORES)
    curve = np.interp(grid, false_positive, true_positive)
    assert ((low - 0.05 <= curve) & (curve <= high + 0.05)).mean() > 0.9
    assert (high >= low).all()


def test_other_curves_are_drawn() -> None:
    alone = plots.roc(LABELS, SCORES, PATIENTS, title="breast", resamples=20)
    assert MAKERS["roc of several"]() != alone


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"no image of class \[1\] among 60"):
        plots.roc(np.zeros(60, int), SCORES, PATIENTS, title="breast")
    with pytest.raises(ValueError, match=r"\(2, 2\) does not fit 3 classes"):
        plots.confusion(MATRIX, ["a", "b", "c"], title="breast")

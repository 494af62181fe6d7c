"""Figures of results as PNG bytes; the same data give the same bytes."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from arl.evaluation.metrics import Floats, Ints, accuracy, auroc, check_scores, reliability
from arl.evaluation.panels import Panel
from arl.evaluation.results import Interval

_INK = "#17222d"
_ACCENT = "#0b5c8a"
_SOFT = "#9aa5b1"
_DPI = 120
_GRID = np.linspace(0, 1, 101)  # false positive rates of the ROC band


def _axes(width: float = 4.2, height: float = 4.0) -> tuple[Figure, Axes]:
    """A figure of its own, in inches, beside any global state of pyplot."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def roc_band(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> tuple[Floats, Floats, Floats]:
    """False positive rates (101,) and the pointwise limits of the true positive rate over resampled patients.

    Raises:
        ValueError: see `metrics.auroc`.
    """
    auroc(labels, scores)
    y, s = check_scores(labels, scores)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    rng = np.random.default_rng(seed)
    curves = [_resampled_curve(y, s, index, rng) for _ in range(resamples)]
    limits = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.nanquantile(curves, limits, axis=0)
    return _GRID, low, high


def _resampled_curve(y: Ints, s: Floats, index: Ints, rng: np.random.Generator) -> Floats:
    """True positive rates on the grid for one resample of the patients; nan where a class is missing."""
    patients = int(index.max()) + 1
    weights = np.bincount(rng.integers(patients, size=patients), minlength=patients)[index]
    kept = weights > 0
    if len(np.unique(y[kept])) < 2:
        return np.full(len(_GRID), np.nan)
    false_positive, true_positive, _ = roc_curve(y[kept], s[kept], sample_weight=weights[kept])
    return np.asarray(np.interp(_GRID, false_positive, true_positive))


def roc(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    title: str,
    threshold: float | None = None,
    others: Sequence[tuple[str, npt.ArrayLike, npt.ArrayLike]] = (),
    resamples: int = 500,
    seed: int = 0,
) -> bytes:
    """ROC curve with its pointwise band over patients, the operating point of a threshold, and other models' curves.

    `others` are (name, labels, scores).

    Raises:
        ValueError: see `metrics.auroc`.
    """
    grid, low, high = roc_band(labels, scores, clusters, resamples=resamples, seed=seed)
    y, s = check_scores(labels, scores)
    false_positive, true_positive, _ = roc_curve(y, s)
    figure, axes = _axes()
    axes.fill_between(
        grid, low, high, color=_ACCENT, alpha=0.18, linewidth=0, label="95 % band over patients"
    )
    axes.plot(false_positive, true_positive, color=_ACCENT, label=f"AUROC {auroc(y, s):.3f}")
    for name, other_labels, other_scores in others:
        across, up, _ = roc_curve(*check_scores(other_labels, other_scores))
        axes.plot(across, up, linewidth=1, label=f"{name} {auroc(other_labels, other_scores):.3f}")
    axes.plot([0, 1], [0, 1], color=_SOFT, linestyle=":", linewidth=1)
    if threshold is not None:
        called = s >= threshold
        axes.plot(
            called[y == 0].mean(),
            called[y == 1].mean(),
            "o",
            color=_INK,
            label="threshold from validation",
        )
    axes.set(
        xlabel="1 - specificity",
        ylabel="sensitivity",
        title=title,
        xlim=(0, 1),
        ylim=(0, 1.02),
        aspect="equal",
    )
    axes.legend(frameon=False, loc="lower right", fontsize="small")
    return _png(figure)


def confusion(matrix: Ints, classes: Sequence[str], *, title: str) -> bytes:
    """A confusion matrix with counts, shaded by the share of each true class.

    Raises:
        ValueError: the matrix does not fit the classes.
    """
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(
            f"a confusion matrix of shape {matrix.shape} does not fit {len(classes)} classes"
        )
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = _axes()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        ink = "white" if shares[row, column] > 0.5 else _INK
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 2 else 0)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="called", ylabel="truth", title=f"{title}\naccuracy {accuracy(matrix):.3f}")
    return _png(figure)


def calibration(outcomes: npt.ArrayLike, probabilities: npt.ArrayLike, *, title: str) -> bytes:
    """Reliability plot in bins of equal numbers of images.

    Raises:
        ValueError: see `metrics.reliability`.
    """
    table = reliability(outcomes, probabilities)
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color=_SOFT, linestyle=":", linewidth=1, label="perfect")
    axes.plot(
        table.probability,
        table.observed,
        "o-",
        color=_ACCENT,
        markersize=4,
        label="equal-mass bins",
    )
    axes.set(xlabel="predicted probability", ylabel="observed share", title=title, aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, loc="upper left", fontsize="small")
    return _png(figure)


def differences(rows: Sequence[tuple[str, Interval, float | None]]) -> bytes:
    """Forest plot of challenger - champion: name, difference and margin (None: no margin applies) of each row."""
    figure, axes = _axes(width=6.4, height=0.9 + 0.34 * max(1, len(rows)))
    for place, (_, interval, margin) in enumerate(rows):
        ink = _ACCENT if margin is not None else _SOFT
        axes.plot([interval.low, interval.high], [place, place], color=ink, linewidth=1.6)
        axes.plot(interval.value, place, "o", color=ink, markersize=5)
        if margin is not None:
            axes.plot(
                [-margin, -margin], [place - 0.32, place + 0.32], color="#a61b29", linewidth=1.6
            )
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set(xlabel="new model - current model   (red: the margin)", ylim=(len(rows) - 0.4, -0.6))
    return _png(figure)


def scatter(points: Floats, groups: Sequence[str], *, title: str) -> bytes:
    """Points (n, 2), each in the colour of its group."""
    figure, axes = _axes(width=5.2, height=4.0)
    names = sorted(set(groups))
    chosen = np.asarray(groups)
    for place, name in enumerate(names):
        of = points[chosen == name]
        colour = colormaps["tab20"](place % 20)
        axes.plot(of[:, 0], of[:, 1], "o", markersize=3, color=colour, label=name, linestyle="none")
    axes.set(xticks=[], yticks=[], title=title)
    axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return _png(figure)


def bars(counts: Sequence[tuple[str, int]], *, title: str) -> bytes:
    """Counts as horizontal bars, in the order given."""
    figure, axes = _axes(width=5.2, height=0.9 + 0.26 * max(1, len(counts)))
    axes.barh([name for name, _ in counts], [count for _, count in counts], color=_ACCENT)
    axes.invert_yaxis()
    axes.set(xlabel="images", title=title)
    return _png(figure)


def efficiency(series: Mapping[str, Sequence[tuple[float, Interval]]], *, metric: str) -> bytes:
    """A metric with its interval against the share of labels, one line for each method."""
    figure, axes = _axes(width=5.2, height=3.8)
    for place, (name, points) in enumerate(series.items()):
        colour = colormaps["tab10"](place % 10)
        shares = [share for share, _ in points]
        axes.plot(
            shares, [one.value for _, one in points], "o-", color=colour, markersize=4, label=name
        )
        low, high = ([getattr(one, side) for _, one in points] for side in ("low", "high"))
        axes.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlabel="share of the training patients", ylabel=metric)
    axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def panels(rows: Sequence[Sequence[Panel]], side: float = 2.0) -> bytes:
    """Pictures in rows and columns, each `side` inches wide.

    Raises:
        ValueError: there are none.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("there are no pictures to draw")
    figure = Figure(
        figsize=(side * columns, (side + 0.25) * len(rows)), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for places, row in zip(grid, rows, strict=True):
        for axes, panel in zip(places, row, strict=False):
            _draw(axes, panel)
    return _png(figure)


def _draw(axes: Axes, panel: Panel) -> None:
    height, width = panel.picture.shape[:2]
    whole = (-0.5, width - 0.5, height - 0.5, -0.5)
    if panel.picture.ndim == 2:
        axes.imshow(panel.picture, cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(panel.picture, extent=whole, interpolation="nearest")
    if panel.heat is not None:
        reach = float(np.abs(panel.heat).max()) or 1.0
        axes.imshow(
            panel.heat,
            extent=whole,
            cmap="coolwarm",
            vmin=-reach,
            vmax=reach,
            alpha=0.45,
            interpolation="bilinear",
        )
    if panel.arrows is not None:
        tails, heads = panel.arrows
        axes.quiver(
            *tails.T[::-1],
            *(heads - tails).T[::-1],
            color="#ffd24a",
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.006,
        )
    if panel.outline is not None and panel.outline.any():
        axes.contour(panel.outline.astype(float), levels=[0.5], colors=["#ffd24a"], linewidths=1.0)
    axes.set_title(panel.title, fontsize="x-small", color=_INK)

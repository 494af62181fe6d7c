"""Pictures of drift, of a training run and of the corpus."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from arl.monitoring.drift_result import SiteShift

REFERENCE, CURRENT = "#8a97a3", "#0b5c8a"
_COLUMNS = 3
# names of the history of a training run, in the order of the paper's objective
TERMS = {
    "loss": "loss",
    "mim": "L_MIM (eq. 3)",
    "adv": "L_adv (eq. 4)",
    "sd": "L_SD (eq. 5)",
    "lambda": "λ (eq. 6)",
    "generator": "λ L_adv",
    "d": "discriminator loss",
    "d_accuracy": "discriminator accuracy",
    "teacher_entropy": "teacher entropy, nat",
    "feature_std": "feature standard deviation",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
}


def distributions(current: pd.DataFrame, reference: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Histograms of numeric columns, the reference filled and the new data as a line."""
    figure, axes = _panels(columns)
    for axis, name in zip(axes, columns, strict=True):
        both = pd.concat([current[name], reference[name]]).dropna()
        edges = np.linspace(both.min(), both.max(), 21).tolist()
        axis.hist(
            reference[name].dropna(),
            edges,
            density=True,
            color=REFERENCE,
            alpha=0.55,
            label="reference",
        )
        axis.hist(
            current[name].dropna(),
            edges,
            density=True,
            color=CURRENT,
            histtype="step",
            lw=1.8,
            label="new",
        )
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def embedding_map(embeddings: npt.NDArray[np.float32], current: npt.NDArray[np.bool_]) -> Figure:
    """Embeddings (N, C) on the two principal axes of the reference, the images marked `current` (N,) in colour."""
    centred = embeddings - embeddings[~current].mean(axis=0)
    _, _, axes = np.linalg.svd(centred[~current], full_matrices=False)
    # the sign of an axis is arbitrary; its largest component points up
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    points = centred @ axes.T
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.subplots()
    for mask, colour, label in ((~current, REFERENCE, "reference"), (current, CURRENT, "new")):
        axis.scatter(
            points[mask, 0],
            points[mask, 1],
            s=9,
            color=colour,
            alpha=0.6,
            linewidths=0,
            label=label,
        )
    axis.set_xlabel("first principal axis of the reference", fontsize=9)
    axis.set_ylabel("second", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    return figure


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Every term of a training run by step; a term that starts late is drawn from its first step."""
    seen = {name for record in history for name in record} - {"step"}
    names = [name for name in TERMS if name in seen] + sorted(seen - TERMS.keys())
    figure, axes = _panels([TERMS.get(name, name) for name in names])
    for axis, name in zip(axes, names, strict=True):
        points = [(record["step"], record[name]) for record in history if name in record]
        axis.plot(*zip(*points, strict=True), color=CURRENT, lw=1.2)
        axis.margins(x=0.01)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def stacked_bars(counts: pd.DataFrame) -> Figure:
    """Horizontal bars of a table of counts: one bar a row, its columns side by side in it."""
    figure = Figure(figsize=(7, 0.6 + 0.26 * len(counts)), layout="constrained")
    axis = figure.subplots()
    left = np.zeros(len(counts))
    for name, colour in zip(counts.columns, (CURRENT, REFERENCE), strict=False):
        axis.barh(
            range(len(counts)), counts[name], left=left, height=0.7, color=colour, label=str(name)
        )
        left += counts[name].to_numpy()
    axis.set_yticks(range(len(counts)), [str(name) for name in counts.index], fontsize=8)
    axis.set_ylim(len(counts) - 0.4, -0.6)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    return figure


def _panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Small plots in rows of three, one for each title."""
    rows = -(-len(titles) // _COLUMNS)
    figure = Figure(figsize=(9, 2.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for axis in axes[len(titles) :]:
        axis.set_visible(False)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[: len(titles)]


def shifts(points: Sequence[tuple[str, str, SiteShift]]) -> Figure:
    """The distance MMD² of each tested site in time; `points` are (batch, name of the site, site of drift.json)."""
    figure = Figure(figsize=(7.5, 0.9 + 0.34 * len(points)), layout="constrained")
    axis = figure.subplots()
    for place, (_, _, site) in enumerate(points):
        colour = CURRENT if site.drifted else REFERENCE
        axis.plot([0, site.mmd2], [place, place], color=colour, lw=1.5)
        axis.scatter([site.mmd2], [place], s=36, color=colour, zorder=3)
        if site.usual is not None:
            axis.plot([site.usual] * 2, [place - 0.3, place + 0.3], color="#a61b29", lw=1.5)
    axis.set_yticks(
        range(len(points)), [f"{batch}: {name}" for batch, name, _ in points], fontsize=8
    )
    axis.set_ylim(len(points) - 0.5, -0.5)
    axis.axvline(0, color=REFERENCE, lw=0.8)
    axis.set_xlabel("MMD² of the embeddings; dark: drift", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure


def histogram(values: "pd.Series[float]", name: str, title: str) -> Figure:
    """Histogram of shares between 0 and 1."""
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axis = figure.subplots()
    axis.hist(values, np.linspace(0, 1, 21).tolist(), color=CURRENT)
    axis.set_title(title)
    axis.set(xlabel=name, ylabel="images", xlim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)
    return figure

"""Pictures of a drift report."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

REFERENCE, CURRENT = "#8a97a3", "#0b5c8a"
_COLUMNS = 3


def distributions(current: pd.DataFrame, reference: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Histograms of numeric columns, the reference filled and the new data as a line."""
    rows = -(-len(columns) // _COLUMNS)
    figure = Figure(figsize=(9, 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis, name in zip(axes, columns, strict=False):
        both = pd.concat([current[name], reference[name]]).dropna()
        edges = np.linspace(both.min(), both.max() or 1, 21)
        axis.hist(reference[name].dropna(), edges, density=True, color=REFERENCE, alpha=0.55, label="reference")
        axis.hist(current[name].dropna(), edges, density=True, color=CURRENT, histtype="step", lw=1.8, label="new")
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_yticks([])
        axis.tick_params(labelsize=8)
        axis.spines[["top", "left", "right"]].set_visible(False)
    for axis in axes[len(columns) :]:
        axis.set_visible(False)
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
        axis.scatter(points[mask, 0], points[mask, 1], s=9, color=colour, alpha=0.6, linewidths=0, label=label)
    axis.set_xlabel("first principal axis of the reference", fontsize=9)
    axis.set_ylabel("second", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    return figure

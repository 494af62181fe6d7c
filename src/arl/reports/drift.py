"""The page of the drift test."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from arl.documents import Document
from arl.monitoring.drift_result import DriftResult, SiteShift, TabularDrift
from arl.monitoring.features import NUMERIC
from arl.monitoring.sites import Rules, Samples
from arl.reports import charts, formatting, html
from arl.reports.elements import Badge, Table
from arl.reports.stamp import RunStamp

REFERENCE, CURRENT = "reference", "new"
_MAX_POINTS = 1500  # of each side of the map
_SUMMARY = {
    "drift": "New images differ from the training images by more than sites usually differ.",
    "no-drift": "New images look like the training images that they are compared with.",
    "too-few": "The new images or patients are too few to test.",
    "no-new-data": "No new batch is there to compare.",
}
_NEXT = {
    "drift": "Look at the new images. If they are right, train on them and let the gate compare the"
    " models: `arl watch` does both.",
    "no-drift": "Keep the current release. The new images can be added to the corpus.",
    "too-few": "Wait for more patients. The batch is tested again together with the next one.",
    "no-new-data": "Ingest a second batch of a source, or name batches with drift.batches.",
}
_SITE_COLUMNS = [
    "site",
    "verdict",
    "compared with",
    "patients",
    "reference",
    "MMD²",
    "usual",
    "p",
    "adjusted p",
]


@dataclass(frozen=True)
class Distribution:
    """Counts of one image statistic in bins that both sides share."""

    name: str
    edges: list[float]
    reference: list[int]
    current: list[int]


@dataclass(frozen=True)
class DriftCharts(Document):
    """charts.json: what the charts of a drift test show, for the page of a monitoring run too."""

    FORMAT: ClassVar[str] = "arl.drift-charts"
    VERSION: ClassVar[int] = 1
    FILE: ClassVar[str] = "charts.json"

    distributions: list[Distribution]
    reference_points: list[list[float]]  # (x, y) of reference images on the map
    current_points: list[list[float]]

    @classmethod
    def of(cls, tabular: TabularDrift, samples: Samples) -> "DriftCharts":
        """Bin the statistics of patients and project the embeddings of images."""
        # Names have no histogram; their table is on the page.
        names = [column.column for column in tabular.columns if column.column in NUMERIC]
        pairs = [
            charts.distribution(
                name,
                samples.reference[name].to_numpy(np.float64),
                samples.current[name].to_numpy(np.float64),
            )
            for name in names
        ]
        points = project(samples.embeddings, samples.is_current)
        sides = [_evenly(points[side]) for side in (~samples.is_current, samples.is_current)]
        return cls(
            [
                Distribution(one.name, list(one.edges), list(one.reference), list(one.current))
                for one in pairs
            ],
            *(side.round(4).tolist() for side in sides),
        )

    def histograms(self) -> list[charts.Chart]:
        """One chart per image statistic."""
        return [
            charts.histogram(charts.Distribution(one.name, one.edges, one.reference, one.current))
            for one in self.distributions
        ]

    def embedding_map(self) -> charts.Chart:
        """Images on the two principal axes of the reference."""
        points = np.array([*self.reference_points, *self.current_points]).reshape(-1, 2)
        groups = [REFERENCE] * len(self.reference_points) + [CURRENT] * len(self.current_points)
        return charts.scatter(
            points,
            groups,
            title="Embeddings.",
            caption="One point per image, on the two principal axes of the reference.",
            names=[REFERENCE, CURRENT],
            reference=REFERENCE,
        )


def project(
    embeddings: npt.NDArray[np.float32], current: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Embeddings (N, C) on the two principal axes (N, 2) of those that are not `current` (N,)."""
    # Axes of the reference alone: new images must not turn the map that they are shown on.
    centred = embeddings.astype(np.float64)
    centred = centred - centred[~current].mean(axis=0)
    _, _, axes = np.linalg.svd(centred[~current], full_matrices=False)
    # the sign of an axis is arbitrary; its largest component points up
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return np.asarray(centred @ axes.T)


def _evenly(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    count = min(len(points), _MAX_POINTS)
    return np.asarray(points[np.linspace(0, len(points) - 1, count).round().astype(int)])


def write_page(
    result: DriftResult, samples: Samples | None, rules: Rules, stamp: RunStamp, folder: Path
) -> None:
    """Write <folder>/index.html and, where something was compared, <folder>/charts.json."""
    drawn = DriftCharts.of(result.tabular, samples) if samples and result.tabular else None
    if drawn:
        drawn.write(folder / DriftCharts.FILE)
    left_out = result.tabular.left_out if result.tabular else {}
    # Evidently writes its page before this one, and only if something was compared.
    evidently = folder / "evidently.html"
    if evidently.is_file():
        html.link_back(evidently, "index.html", "Back to the drift test")
    html.write(
        folder / "index.html",
        "drift.html.j2",
        html.Head("Drift", "New batches compared with the training images.", stamp),
        result=result,
        rules=rules,
        summary=_SUMMARY[result.decision],
        next=_NEXT[result.decision],
        facts={
            "new images": result.images,
            "new patients": result.patients,
            "reference images": result.reference_images,
            "reference patients": result.reference_patients,
        },
        sites=site_table(result.sites),
        columns=_column_table(result.tabular) if result.tabular else None,
        left_out=[f"{name}: {reason}" for name, reason in left_out.items()],
        has_evidently=evidently.is_file(),
        embedding_map=drawn.embedding_map() if drawn else None,
        distributions=drawn.histograms() if drawn else [],
    )


def site_table(sites: list[SiteShift]) -> Table | None:
    """The decisive test of each site, probe and device; None if none was tested."""
    rows = [
        [
            site.label,
            Badge("drift" if site.drifted else "no-drift"),
            site.compared_with,
            site.patients,
            site.reference_patients,
            formatting.fixed(site.mmd2, 4),
            formatting.fixed(site.usual, 4),
            formatting.p_value(site.p_value),
            formatting.p_value(site.p_adjusted),
        ]
        for site in sites
    ]
    return Table(_SITE_COLUMNS, rows, name="Embeddings by site") if rows else None


def _column_table(tabular: TabularDrift) -> Table:
    rows = [
        [
            column.column,
            Badge("drift" if column.drifted else "no-drift"),
            column.reference,
            column.current,
            column.method,
            formatting.p_value(column.p_value),
        ]
        for column in tabular.columns
    ]
    caption = f"A column drifts if p is below {tabular.threshold:.4f}: alpha over the columns."
    return Table(["column", "verdict", "reference", "new", "test", "p"], rows, caption)

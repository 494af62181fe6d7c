"""Watch new batches for a shift away from the training data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from markupsafe import Markup

from arl import pages
from arl.data.loader import Examples, evaluation_batches
from arl.data.selection import select
from arl.data.shards import read_images
from arl.data.splits import groups
from arl.data.views import eval_view
from arl.evaluation.statistics import holm
from arl.files import atomic_directory, write_json
from arl.monitoring import figures
from arl.monitoring.drift import TabularDrift, comparable, group_kernel, permutation_mmd, tabular_drift
from arl.monitoring.features import (
    CATEGORICAL,
    NUMERIC,
    adjust_for_anatomy,
    embed,
    image_features,
    patient_features,
    thin,
)
from arl.params import Params
from arl.training.checkpoint import load_encoder

MIN_PATIENTS = 8  # on a side: fewer cannot tell a shift from a patient
PERMUTATIONS = 1999
MAX_PATIENTS, MAX_IMAGES = 1000, 8  # looked at on a side, and of each patient
_BATCH = 64  # images at a time


@dataclass(frozen=True)
class Site:
    """New images of one site, the training images they are compared with, and what the comparison says."""

    site: str
    compared_with: str
    patients: int
    reference_patients: int
    mmd2: float
    p_value: float
    p_adjusted: float  # Holm, over the sites
    drifted: bool


@dataclass
class Findings:
    """The content of drift.json."""

    decision: str  # drift | no-drift | too-few | no-new-data
    reasons: list[str]
    batches: list[str] = field(default_factory=list)
    images: int = 0
    patients: int = 0
    reference_images: int = 0
    reference_patients: int = 0
    untested: dict[str, str] = field(default_factory=dict)  # site -> why
    sites: list[Site] = field(default_factory=list)
    tabular: TabularDrift | None = None


@dataclass(frozen=True)
class Pair:
    """Manifest rows of one site and of its reference, with their `group`."""

    site: str
    current: pd.DataFrame
    reference: pd.DataFrame
    compared_with: str


def drift(params: Params, *, corpus: Path, checkpoint: Path, drift: Path) -> None:
    """Compare new batches with the other training images.

    Reads the corpus and the encoder's checkpoint folder. New are the batches that drift.batches names, else the
    newest batch of each source that has several. Writes a folder with drift.json (the decision: drift, no-drift,
    too-few or no-new-data, with its reasons), index.html and, where there was something to compare, evidently.html and
    the figures statistics.png and embeddings.png.

    Raises:
        ValueError: a named batch is not in the corpus.
    """
    torch.set_num_threads(params.pretrain.threads)
    rows = select(corpus, sources=[], protocols=params.data.splits)
    rows = rows.assign(group=groups(rows))
    is_new = _new(rows, params.drift.batches, corpus)
    known = rows["source"].isin(params.data.sources) if params.data.sources else True
    reference = rows[~is_new & known & (rows["split"] == "train")]
    with atomic_directory(drift) as folder:
        findings, drawings = _compare(params, corpus, checkpoint, rows[is_new], reference, folder)
        write_json(folder / "drift.json", _json(findings))
        (folder / "index.html").write_text(_page(params, findings, drawings), encoding="utf-8")


def _new(rows: pd.DataFrame, batches: Sequence[str], corpus: Path) -> "pd.Series[bool]":
    """Which rows are new."""
    place = rows["source"] + "/" + rows["batch"]
    if batches:
        missing = sorted(set(batches) - set(place))
        if missing:
            raise ValueError(f"drift.batches: corpus {corpus} has no batch {missing[0]}; it has {sorted(set(place))}")
        return place.isin(batches)
    by_source = rows.groupby("source")["batch"]
    return (rows["batch"] == by_source.transform("max")) & (by_source.transform("nunique") > 1)


def _compare(
    params: Params, corpus: Path, checkpoint: Path, new: pd.DataFrame, reference: pd.DataFrame, folder: Path
) -> tuple[Findings, list[Markup]]:
    if new.empty:
        return Findings("no-new-data", ["No source has a second batch, and none is named."]), []
    batches = sorted((new["source"] + "/" + new["batch"]).unique())
    findings = Findings("too-few", [], batches, len(new), new["group"].nunique())
    pairs, findings.untested = _pairs(params, new, reference)
    if not pairs or len(new) < params.drift.min_images:
        findings.reasons = _too_few(params, findings)
        return findings, []
    drawings = _test(params, corpus, checkpoint, pairs, findings, folder)
    findings.reasons = _reasons(params, findings)
    drifted = findings.tabular is not None and findings.tabular.drifted
    findings.decision = "drift" if drifted or any(site.drifted for site in findings.sites) else "no-drift"
    return findings, drawings


def _pairs(params: Params, new: pd.DataFrame, reference: pd.DataFrame) -> tuple[list[Pair], dict[str, str]]:
    """What is compared, by site, and why the other sites are not."""
    pairs, untested = [], {}
    limits = {"patients": MAX_PATIENTS, "images": MAX_IMAGES, "seed": params.seed}
    for site, current in new.groupby("site", sort=True):
        match, name = comparable(reference, current, MIN_PATIENTS)
        few = min(current["group"].nunique(), match["group"].nunique())
        if few < MIN_PATIENTS:
            where = "new" if current["group"].nunique() == few else "training"
            untested[str(site)] = f"{few} {where} patients, {MIN_PATIENTS} are needed"
        else:
            pairs.append(Pair(str(site), thin(current, **limits), thin(match, **limits), name))
    return pairs, untested


def _too_few(params: Params, findings: Findings) -> list[str]:
    reasons = [f"Site {site} cannot be tested: {why}." for site, why in findings.untested.items()]
    if findings.images < params.drift.min_images:
        reasons.insert(0, f"{findings.images} new images, {params.drift.min_images} are needed (drift.min_images).")
    return reasons


def _test(
    params: Params, corpus: Path, checkpoint: Path, pairs: list[Pair], findings: Findings, folder: Path
) -> list[Markup]:
    """Fill in the findings on the table and on the embeddings; pictures of both."""
    current = pd.concat([pair.current for pair in pairs])
    reference = pd.concat([pair.reference for pair in pairs])
    reference = reference[~reference.index.duplicated()].sort_index()
    findings.reference_images, findings.reference_patients = len(reference), reference["group"].nunique()
    rows = pd.concat([current, reference])
    is_current = np.arange(len(rows)) < len(current)
    tables = _tables(_features(corpus, rows), is_current)
    findings.tabular = tabular_drift(
        *tables,
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        alpha=_alpha(params),
        drift_share=params.drift.drift_share,
        html=folder / "evidently.html",
    )
    embeddings = _embeddings(corpus, checkpoint, rows)
    findings.sites = _sites(params, pairs, pd.DataFrame(embeddings, index=rows.index))
    return _drawings(findings.tabular, tables, embeddings, is_current, folder)


def _tables(features: pd.DataFrame, is_current: npt.NDArray[np.bool_]) -> list[pd.DataFrame]:
    """One row a patient, adjusted for the anatomy: of the new images, then of the reference."""
    numbers = adjust_for_anatomy(features[list(NUMERIC)], features["anatomy"], is_current)
    adjusted = features.assign(**numbers)
    return [patient_features(adjusted[is_current]), patient_features(adjusted[~is_current])]


def _alpha(params: Params) -> float:
    """What each of the two tests may spend, so that both together alarm falsely with drift.alpha at most."""
    return params.drift.alpha / 2


def _features(corpus: Path, rows: pd.DataFrame) -> pd.DataFrame:
    parts = (rows.iloc[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
    return pd.concat([image_features(part, read_images(corpus, part)) for part in parts])


def _embeddings(corpus: Path, checkpoint: Path, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    encoder, config = load_encoder(checkpoint)
    examples = Examples(corpus, rows, config["size"])
    batches = evaluation_batches(examples, _BATCH)
    return embed(encoder, ((eval_view(batch, config["size"]).image, batch.anatomy) for batch in batches))


def _sites(params: Params, pairs: list[Pair], embeddings: pd.DataFrame) -> list[Site]:
    shifts = []
    for pair in pairs:
        rows = pd.concat([pair.current, pair.reference])
        is_new = np.arange(len(rows)) < len(pair.current)
        points = adjust_for_anatomy(embeddings.loc[rows.index], rows["anatomy"], is_new)
        kernel, names = group_kernel(points.to_numpy(), rows["group"].tolist())
        is_current = np.isin(names, pair.current["group"].unique())
        shifts.append(permutation_mmd(kernel, is_current, PERMUTATIONS, params.seed))
    adjusted = holm([shift.p_value for shift in shifts])
    return [
        Site(
            pair.site,
            pair.compared_with,
            pair.current["group"].nunique(),
            pair.reference["group"].nunique(),
            shift.mmd2,
            shift.p_value,
            p_adjusted,
            p_adjusted < _alpha(params),
        )
        for pair, shift, p_adjusted in zip(pairs, shifts, adjusted, strict=True)
    ]


def _reasons(params: Params, findings: Findings) -> list[str]:
    assert findings.tabular is not None
    tabular, alpha = findings.tabular, _alpha(params)
    moved = [column.column for column in tabular.columns if column.drifted]
    names = f": {', '.join(moved)}" if moved else ""
    limit = "reaches" if tabular.drifted else "stays below"
    reasons = [
        f"{len(moved)} of {len(tabular.columns)} columns drifted{names}; their share {limit} {tabular.drift_share:.0%}."
    ]
    for site in findings.sites:
        verb = "moved away" if site.drifted else "did not move measurably"
        compare = "<" if site.drifted else "≥"
        reasons.append(
            f"Embeddings of site {site.site} {verb} from {site.compared_with} "
            f"(adjusted p = {site.p_adjusted:.4f} {compare} {alpha:g})."
        )
    return reasons + [f"Site {site} was not tested: {why}." for site, why in findings.untested.items()]


def _json(findings: Findings) -> dict[str, Any]:
    content: dict[str, Any] = _rounded(asdict(findings))
    if findings.tabular is not None:
        content["tabular"] |= {"share": _rounded(findings.tabular.share), "drifted": findings.tabular.drifted}
    return content


def _rounded(value: Any) -> Any:
    """Six significant digits: the rest is rounding error of sums in another order."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _drawings(
    tabular: TabularDrift,
    tables: list[pd.DataFrame],
    embeddings: npt.NDArray[np.float32],
    is_current: npt.NDArray[np.bool_],
    folder: Path,
) -> list[Markup]:
    numbers = [column.column for column in tabular.columns if column.column in NUMERIC]
    histograms = pages.png(figures.distributions(tables[0], tables[1], numbers))
    scatter = pages.png(figures.embedding_map(embeddings, is_current))
    (folder / "statistics.png").write_bytes(histograms)  # for the page of a monitoring run
    (folder / "embeddings.png").write_bytes(scatter)
    return [
        pages.figure(histograms, "Image statistics, one value a patient.", "Histograms of new and reference patients"),
        pages.figure(scatter, "Embeddings, one point an image.", "Scatter plot of new and reference images", width=560),
    ]


_SUMMARY = {
    "drift": "New images differ from the training images; see the reasons.",
    "no-drift": "New images look like the training images they are compared with.",
    "too-few": "There are too few new images or patients to tell.",
    "no-new-data": "There is no new batch to compare.",
}


def _page(params: Params, findings: Findings, drawings: list[Markup]) -> str:
    body = pages.verdict(findings.decision, _SUMMARY[findings.decision]) + pages.bullets(findings.reasons)
    if findings.batches:
        body += pages.facts(
            {
                "new images": findings.images,
                "new patients": findings.patients,
                "reference images": findings.reference_images,
                "reference patients": findings.reference_patients,
            }
        ) + pages.paragraph(f"New batches: {', '.join(findings.batches)}.")
    if findings.tabular is not None:
        body += pages.section("Embeddings by site", _site_table(findings.sites) + drawings[1])
        body += pages.section("Image statistics and metadata", _column_table(findings.tabular) + drawings[0])
    body += pages.section("How it was tested", _method(params))
    return pages.page("Drift", body, subtitle="New batches against the training images, patient by patient.")


def _site_table(sites: list[Site]) -> Markup:
    columns = ["site", "verdict", "compared with", "patients", "reference patients", "MMD²", "p", "p, adjusted"]
    rows = [
        [
            site.site,
            pages.badge("drift" if site.drifted else "no-drift"),
            site.compared_with,
            site.patients,
            site.reference_patients,
            f"{site.mmd2:.4f}".replace("-", "−"),
            f"{site.p_value:.4f}",
            f"{site.p_adjusted:.4f}",
        ]
        for site in sites
    ]
    return pages.table(columns, rows)


def _column_table(tabular: TabularDrift) -> Markup:
    rows = [
        [
            column.column,
            pages.badge("drift" if column.drifted else "no-drift"),
            column.reference,
            column.current,
            column.method,
            pages.number(column.p_value) if column.p_value >= 1e-4 else "<0.0001",
        ]
        for column in tabular.columns
    ]
    caption = f"A column drifts where p < {tabular.threshold:.4f}: alpha over the number of columns."
    table = pages.table(["column", "verdict", "reference", "new", "test", "p"], rows, caption)
    left_out = [f"{name}: {why}" for name, why in tabular.left_out.items()]
    more = pages.paragraph("Not compared:") + pages.bullets(left_out) if left_out else Markup("")
    return table + more + Markup("<p>{}</p>\n").format(pages.link("evidently.html", "The same table by Evidently"))


def _method(params: Params) -> Markup:
    return pages.bullets(
        [
            "The patient is the unit of every test; where a source names none, the clip or the image is.",
            "Numbers and embeddings are adjusted for the anatomy: the median of each is moved to that of all images.",
            "Table: median or commonest name of each patient, Kolmogorov-Smirnov or chi-square test of homogeneity, "
            f"drift where at least {params.drift.drift_share:.0%} of the columns drift.",
            f"Embeddings: maximum mean discrepancy with {PERMUTATIONS:,} permutations of whole patients, by site, "
            f"Holm-adjusted, drift where p < {_alpha(params):g}.",
            f"Both together alarm falsely with a probability of at most {params.drift.alpha:g} (drift.alpha).",
            "A site is compared with its own training images; where there are too few, with the same anatomies at "
            "other sites, of which a new site is nearly always distinguishable.",
        ]
    )

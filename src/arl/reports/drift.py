"""The page of the drift test."""

from pathlib import Path

from markupsafe import Markup

from arl.monitoring.drift_result import DriftResult, SiteShift, TabularDrift
from arl.monitoring.features import NUMERIC
from arl.monitoring.sites import Rules, Samples
from arl.reports import html, monitoring_plots


def _signed(number: float) -> str:
    return f"{number:.4f}".replace("-", "−")


def _drawings(tabular: TabularDrift, samples: Samples, folder: Path) -> list[Markup]:
    numbers = [column.column for column in tabular.columns if column.column in NUMERIC]
    histograms = html.png(
        monitoring_plots.distributions(samples.current, samples.reference, numbers)
    )
    scatter = html.png(monitoring_plots.embedding_map(samples.embeddings, samples.is_current))
    (folder / "statistics.png").write_bytes(histograms)  # for the page of a monitoring run
    (folder / "embeddings.png").write_bytes(scatter)
    return [
        html.figure(
            histograms,
            "Image statistics, one value a patient.",
            "Histograms of new and reference patients",
        ),
        html.figure(
            scatter,
            "Embeddings, one point an image.",
            "Scatter plot of new and reference images",
            width=560,
        ),
    ]


_SUMMARY = {
    "drift": "New images differ from the training images; see the reasons.",
    "no-drift": "New images look like the training images they are compared with.",
    "too-few": "There are too few new images or patients to tell.",
    "no-new-data": "There is no new batch to compare.",
}


def write_page(result: DriftResult, samples: Samples | None, rules: Rules, folder: Path) -> None:
    """Write <folder>/index.html, statistics.png and embeddings.png."""
    drawings = _drawings(result.tabular, samples, folder) if samples and result.tabular else []
    body = html.verdict(result.decision, _SUMMARY[result.decision]) + html.bullets(result.reasons)
    if result.batches:
        body += html.facts(
            {
                "new images": result.images,
                "new patients": result.patients,
                "reference images": result.reference_images,
                "reference patients": result.reference_patients,
            }
        ) + html.paragraph(f"New batches: {', '.join(result.batches)}.")
    if result.tabular is not None:
        body += html.section("Embeddings by site", _site_table(result.sites) + drawings[1])
        body += html.section(
            "Image statistics and metadata", _column_table(result.tabular) + drawings[0]
        )
    body += html.section("How it was tested", _method(rules))
    page = html.page(
        "Drift", body, subtitle="New batches against the training images, patient by patient."
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _site_table(sites: list[SiteShift]) -> Markup:
    columns = [
        "site",
        "verdict",
        "compared with",
        "patients",
        "reference",
        "MMD²",
        "usual",
        "p",
        "p, adjusted",
    ]
    rows = [
        [
            site.label,
            html.badge("drift" if site.drifted else "no-drift"),
            site.compared_with,
            site.patients,
            site.reference_patients,
            _signed(site.mmd2),
            None if site.usual is None else _signed(site.usual),
            f"{site.p_value:.4f}",
            f"{site.p_adjusted:.4f}",
        ]
        for site in sites
    ]
    return html.table(columns, rows)


def _column_table(tabular: TabularDrift) -> Markup:
    rows = [
        [
            column.column,
            html.badge("drift" if column.drifted else "no-drift"),
            column.reference,
            column.current,
            column.method,
            html.number(column.p_value) if column.p_value >= 1e-4 else "<0.0001",
        ]
        for column in tabular.columns
    ]
    caption = (
        f"A column drifts where p < {tabular.threshold:.4f}: alpha over the number of columns."
    )
    table = html.table(["column", "verdict", "reference", "new", "test", "p"], rows, caption)
    left_out = [f"{name}: {why}" for name, why in tabular.left_out.items()]
    more = html.paragraph("Not compared:") + html.bullets(left_out) if left_out else Markup("")
    return (
        table
        + more
        + Markup("<p>{}</p>\n").format(html.link("evidently.html", "The same table by Evidently"))
    )


def _method(rules: Rules) -> Markup:
    return html.bullets(
        [
            "The patient is the unit of every test; where a source names none, the clip or the image is.",
            "Numbers and embeddings are adjusted for the anatomy: the median of each is moved to that of all images.",
            "Table: median or commonest name of each patient, Kolmogorov-Smirnov or chi-square test of homogeneity, "
            f"said to drift where at least {rules.drift_share:.0%} of the columns do.",
            f"Embeddings: maximum mean discrepancy with {rules.permutations:,} permutations of whole patients, by site and, "
            "where a site sends several, by probe and device; adjusted for their number (Holm).",
            f"Drift where p < {rules.alpha:g} (drift.alpha) and the distance exceeds what is usual between "
            "training sites: the 95 % quantile of each one's distance from the others. A new site nearly always "
            "differs measurably, which alone is no reason to train again.",
            "A site is compared with its own training images; where there are too few, with other sites' of the same "
            "probe or device and anatomies.",
            "The table is there to be read; the decision is made on the embeddings.",
        ]
    )

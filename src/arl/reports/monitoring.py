"""The pages of the loop: one for each monitoring run, and one over all of them."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from markupsafe import Markup

from arl.corpus.manifest import QUARANTINE, SCHEMA, read_table
from arl.corpus.pixels import encode_png, fit
from arl.corpus.record import Pixels
from arl.corpus.shard_reader import read_images
from arl.files import atomic_file
from arl.monitoring.drift_result import DriftResult, SiteShift
from arl.monitoring.journal import Journal, LogEntry, trained_on, waiting
from arl.monitoring.runs import Run, current
from arl.reports import html, monitoring_plots
from arl.reports.counts import counts

_THUMBNAIL = 176  # long side, pixels
_PICTURES = 12  # of the new batch, and as many of the reference
_STRIP, _STRIP_HEIGHT = 4, 64  # pictures of a run in the index, pixels
_LATEST = 200  # lines of the log that the index shows
_KINDS = {  # of a decision or an event that says what came of a run
    "retrain": "info",
    "no-drift": "good",
    "promote": "good",
    "too-few": "warn",
    "cooling-down": "warn",
    "already-running": "warn",
    "inconclusive": "warn",
    "not promoted": "warn",
    "duplicate": "info",
    "refused": "bad",
    "reject": "bad",
    "failed": "bad",
    "stuck": "bad",
    "outage": "warn",
    "held": "warn",
    "damaged": "bad",
}


def write_run(journal: Journal, run: Run, corpus: Path, champion: str | None) -> None:
    """Write <run>/index.html and strip.png, its pictures for the index."""
    entries = [entry for entry in journal.entries() if entry.run == run.name]
    decided = next((entry for entry in entries if entry.event == "decision"), None)
    home = corpus if run.new and (corpus / run.new).is_dir() else run.corpus
    rows = _rows(home, run.new)
    if len(rows):
        _write(run.folder / "strip.png", _strip(read_images(home, _spread(rows, _STRIP))))
    body = (
        _head(run, decided, entries)
        + html.section("Why", html.bullets(decided.words) if decided else _failures(entries))
        + html.section("What arrived", _arrived(run, decided, home, rows))
        + html.section("What shifted", _shifted(run))
        + html.section("What came of it", _outcome(run, entries, champion))
        + html.section("Log of this run", _log(entries))
    )
    subtitle = f"Run {run.name}: {run.incoming.alias if run.incoming else 'batches that waited'}."
    _write(run.folder / "index.html", html.page("Monitoring run", body, subtitle=subtitle).encode())


def write_index(journal: Journal, champion: str | None, monitor: Path) -> None:
    """Write <monitor>/index.html."""
    entries = journal.entries()
    runs = _runs(entries)
    body = (
        _state(champion, entries, monitor)
        + html.section("Runs", _runs_table(monitor, runs) if runs else html.paragraph("None yet."))
        + html.section("Shift over time", _history(runs))
        + html.section("Champions", _champions(entries, champion))
        + html.section("Log", _log(entries[-_LATEST:]))
    )
    page = html.page(
        "Monitoring",
        body,
        subtitle="What arrived, what shifted, what was decided, and what is in use.",
    )
    _write(monitor / "index.html", page.encode())


def _write(file: Path, content: bytes) -> None:
    with atomic_file(file) as partial:
        partial.write_bytes(content)


def _rows(home: Path, batch: str | None) -> pd.DataFrame:
    """Manifest rows of one batch; none where it was never ingested."""
    file = home / (batch or "") / "manifest.parquet"
    return (
        read_table(file, SCHEMA) if batch and file.is_file() else pd.DataFrame(columns=SCHEMA.names)
    )


def _spread(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """So many rows, evenly spaced, one anatomy after the other in turn."""
    turn = rows.groupby("anatomy").cumcount() / rows.groupby("anatomy")["id"].transform("size")
    ordered = rows.assign(turn=turn).sort_values(["turn", "anatomy"], kind="stable")
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, number).astype(int))]


def _head(run: Run, decided: LogEntry | None, entries: Sequence[LogEntry]) -> Markup:
    word, summary = _state_of(decided, entries)
    decision = decided.decision if decided else None
    counts = decision.counts if decision else None
    champion = decision.champion if decision else None
    return html.verdict(word, summary, _KINDS.get(word, "info")) + html.facts(
        {
            "arrived": run.incoming.alias if run.incoming else "nothing new",
            "files": run.incoming.num_files if run.incoming else None,
            "images accepted": counts.images if counts else None,
            "in quarantine": counts.refused if counts else None,
            "compared with": f"release {champion}" if champion else None,
        }
    )


def _state_of(decided: LogEntry | None, entries: Sequence[LogEntry]) -> tuple[str, str]:
    """One word and one sentence for a run: what came of it, else what was decided."""
    last = entries[-1] if entries else None
    if last is not None and last.event in ("failed", "stuck", "outage"):
        return last.event, last.words[0]
    if decided is None or decided.decision is None:
        return "under-way", "The run has not come to a decision yet."
    if last is not None and last.event == "outcome":
        return decided.decision.word, f"{decided.decision.why} {last.words[0]}"
    return decided.decision.word, decided.decision.why


def _failures(entries: Sequence[LogEntry]) -> Markup:
    return html.bullets(
        [words for entry in entries for words in entry.words] or ["Nothing was decided yet."]
    )


def _arrived(run: Run, decided: LogEntry | None, home: Path, rows: pd.DataFrame) -> Markup:
    if run.new is None:
        return html.paragraph("Nothing new: batches that had waited were tested again.")
    link = run.folder / "validation" / "index.html"
    more = Markup("<p>{}</p>\n").format(
        html.link("validation/index.html", "All rules of the corpus with this batch")
    )
    named = rows.assign(device=rows["device"].fillna("unknown"))
    table = counts(named, ["site", "device", "probe", "anatomy"])
    return (
        (
            table + _pictures(run, home, rows)
            if len(rows)
            else html.paragraph("No image was accepted.")
        )
        + _quarantine(home / run.new / "quarantine.parquet")
        + (more if link.is_file() else Markup(""))
    )


def _pictures(run: Run, home: Path, rows: pd.DataFrame) -> Markup:
    """The new images over some that the champion was trained on, of the same anatomies."""
    view = run.folder / "reference"
    known = [
        batch.parent
        for batch in sorted(view.glob("*/*/manifest.parquet"))
        if not _is_of(run, batch.parent)
    ]
    sheet = html.section("New images", _sheet(home, _spread(rows, _PICTURES)), 3)
    if not known:
        return sheet
    reference = pd.concat(
        [read_table(folder / "manifest.parquet", SCHEMA) for folder in known], ignore_index=True
    )
    alike = reference[reference["anatomy"].isin(rows["anatomy"].unique())]
    if alike.empty:
        return sheet
    title = "What the champion was trained on"
    return sheet + html.section(title, _sheet(view, _spread(alike, _PICTURES)), 3)


def _is_of(run: Run, batch: Path) -> bool:
    return f"{batch.parent.name}/{batch.name}" in run.batches


def _sheet(corpus: Path, rows: pd.DataFrame) -> Markup:
    images = read_images(corpus, rows)
    return html.sheet(
        _thumbnail(row, image) for (_, row), image in zip(rows.iterrows(), images, strict=True)
    )


def _thumbnail(row: "pd.Series[Any]", image: Pixels) -> Markup:
    words = ", ".join(str(row[name]) for name in ("anatomy", "label") if pd.notna(row[name]))
    where = str(row["device"]) if pd.notna(row["device"]) else str(row["site"])
    mark = Markup(" ") + html.badge("synthetic") if row["synthetic"] else Markup("")
    kind = "Synthetic image" if row["synthetic"] else "Ultrasound image"
    caption = Markup("{}<br>{}{}").format(words, where, mark)
    return html.figure(encode_png(_small(image, _THUMBNAIL)), caption, f"{kind}: {words}")


def _small(image: Pixels, size: int) -> Pixels:
    height, width = fit(image.shape[0], image.shape[1], size)
    return np.ascontiguousarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
    )


def _strip(images: Sequence[Pixels]) -> bytes:
    """A few pictures side by side, squares cut from their middles."""
    squares = []
    for image in images:
        side = min(image.shape)
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        squares.append(
            cv2.resize(image[top : top + side, left : left + side], (_STRIP_HEIGHT, _STRIP_HEIGHT))
        )
    return encode_png(np.concatenate(squares, axis=1))


def _quarantine(file: Path) -> Markup:
    refused = (
        read_table(file, QUARANTINE) if file.is_file() else pd.DataFrame(columns=QUARANTINE.names)
    )
    if refused.empty:
        return Markup("")
    counts = refused.groupby("reason", sort=True).size().reset_index(name="inputs")
    table = html.table(["reason", "inputs"], counts.to_numpy().tolist(), "Refused inputs and why.")
    return html.section("Quarantine", table, 3)


def _shifted(run: Run) -> Markup:
    folder = run.folder / "drift"
    if not (folder / "drift.json").is_file():
        return html.paragraph("Nothing was compared.")
    drawings = [
        (
            "embeddings.png",
            "What the champion's encoder sees: one point an image, on the axes of the reference.",
            560,
        ),
        (
            "statistics.png",
            "Image statistics: one value a patient, adjusted for the anatomy.",
            None,
        ),
    ]
    shown = [
        html.figure((folder / name).read_bytes(), caption, caption, width)
        for name, caption, width in drawings
        if (folder / name).is_file()
    ]
    return (
        _sites(DriftResult.read(folder / "drift.json").sites)
        + Markup("").join(shown)
        + Markup("<p>{}</p>\n").format(html.link("drift/index.html", "The tests in full"))
    )


def _sites(sites: list[SiteShift]) -> Markup:
    if not sites:
        return html.paragraph("There were too few patients to test.")
    columns = [
        "site",
        "verdict",
        "compared with",
        "patients",
        "reference patients",
        "MMD²",
        "p, adjusted",
    ]
    rows = [
        [
            site.label,
            html.badge("drift" if site.drifted else "no-drift"),
            site.compared_with,
            site.patients,
            site.reference_patients,
            f"{site.mmd2:.4f}".replace("-", "−"),
            f"{site.p_adjusted:.4f}",
        ]
        for site in sites
    ]
    return html.table(columns, rows)


def _outcome(run: Run, entries: Sequence[LogEntry], champion: str | None) -> Markup:
    outcome = next((entry for entry in entries if entry.event == "outcome"), None)
    use = html.facts({"in use now": champion or "no release"})
    if outcome is None:
        return html.paragraph("Nothing was trained.") + use
    gate = Markup("")
    if (run.folder / "gate" / "index.html").is_file():
        gate = Markup("<p>{}</p>\n").format(html.link("gate/index.html", "The gate in full"))
    word = outcome.label
    return html.verdict(word, outcome.words[0], _KINDS.get(word, "info")) + (
        html.bullets(outcome.words[1:]) + gate + use
    )


def _log(entries: Sequence[LogEntry]) -> Markup:
    rows = [
        [
            entry.at.replace("T", " ").removesuffix("+00:00"),
            _badge(entry.label),
            " ".join(entry.words),
        ]
        for entry in reversed(entries)
    ]
    return html.table(["UTC", "what", "in words"], rows) if rows else html.paragraph("Empty.")


def _badge(word: str) -> Markup:
    return Markup('<span class="badge {}">{}</span>').format(_KINDS.get(word, "info"), word)


def _runs(entries: Sequence[LogEntry]) -> dict[str, list[LogEntry]]:
    """Run -> its entries, newest run first."""
    found: dict[str, list[LogEntry]] = {}
    for entry in entries:
        if entry.run:
            found.setdefault(entry.run, []).append(entry)
    return dict(sorted(found.items(), reverse=True))


def _state(champion: str | None, entries: Sequence[LogEntry], monitor: Path) -> Markup:
    run = current(monitor)
    waits = waiting(entries)
    running = f"Run {run.name} is under way." if run else "No run is under way."
    word = f"release {champion} is in use" if champion else "nothing has been released"
    known = trained_on(entries, champion) if champion else None
    decisions = [
        entry.decision.word for entry in entries if entry.decision is not None and entry.run
    ]
    return html.verdict(word, running, "good" if champion else "warn") + html.facts(
        {
            "batches it was trained on": None if known is None else len(known),
            "runs": len(decisions),
            "trainings": decisions.count("retrain"),
            "refused": decisions.count("refused"),
            "batches that wait": len(waits),
        }
    )


def _runs_table(monitor: Path, runs: dict[str, list[LogEntry]]) -> Markup:
    columns = ["began (UTC)", "arrived", "pictures", "images", "decision", "came of it", "in words"]
    return html.table(columns, [_run_row(monitor, name, entries) for name, entries in runs.items()])


def _run_row(monitor: Path, name: str, entries: list[LogEntry]) -> list[object]:
    decided = next((entry for entry in entries if entry.event == "decision"), None)
    outcome = next((entry for entry in entries if entry.event == "outcome"), None)
    word, summary = _state_of(decided, entries)
    decision = decided.decision if decided else None
    page = monitor / "runs" / name / "index.html"
    began = f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    return [
        html.link(f"runs/{name}/index.html", began) if page.is_file() else began,
        (decision.incoming if decision else None) or "waiting batches",
        _strip_of(monitor / "runs" / name / "strip.png"),
        decision.counts.images if decision and decision.counts else None,
        _badge(word),
        _badge(outcome.label) if outcome else None,
        summary,
    ]


def _strip_of(file: Path) -> Markup | None:
    if not file.is_file():
        return None
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return Markup('<img src="data:image/png;base64,{}" alt="New images" height="{}">').format(
        data, _STRIP_HEIGHT // 2
    )


def _history(runs: dict[str, list[LogEntry]]) -> Markup:
    tested = [
        (name, entry.decision)
        for name, entries in sorted(runs.items())
        for entry in entries
        if entry.decision is not None and entry.decision.shifts
    ]
    if not tested:
        return html.paragraph("No batch has been compared yet.")
    points = [
        (f"{decision.incoming or 'waiting batches'}, {name[4:6]}-{name[6:8]}", site.label, site)
        for name, decision in tested
        for site in decision.shifts
    ]
    drawing = html.png(monitoring_plots.shifts(points))
    caption = "Distance of each batch from what the champion was trained on, by site" + (
        "; the mark: how far sites usually are."
        if any(site.usual is not None for *_, site in points)
        else "."
    )
    return html.figure(drawing, caption, caption, width=760)


def _champions(entries: Sequence[LogEntry], champion: str | None) -> Markup:
    rows = [
        [
            entry.at.replace("T", " ").removesuffix("+00:00"),
            Markup('<span style="white-space: nowrap">{}</span>').format(
                html.code(entry.champion or "")
            ),
            "in use" if entry.champion == champion else "earlier",
            len(entry.trained_on),
            entry.words[0],
        ]
        for entry in reversed(entries)
        if entry.trained_on is not None
    ]
    return (
        html.table(["since (UTC)", "release", "", "batches", "in words"], rows)
        if rows
        else html.paragraph("None.")
    )

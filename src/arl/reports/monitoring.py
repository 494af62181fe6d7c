"""The pages of the loop: one for each monitoring run, and one over all of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from arl.corpus.manifest import QUARANTINE, SCHEMA, read_table
from arl.corpus.shard_reader import read_images
from arl.files import atomic_file
from arl.monitoring.drift_result import DriftResult
from arl.monitoring.journal import Journal, LogEntry, trained_on, waiting
from arl.monitoring.runs import Run, current
from arl.reports import charts, html, pictures, tables
from arl.reports.drift import DriftCharts, site_table
from arl.reports.elements import Badge, Code, Link, Picture, Table, Thumbnail
from arl.reports.stamp import RunStamp

_MAX_PICTURES = 12  # of the new batch, and as many of the reference
_STRIP, _STRIP_HEIGHT = 4, 32  # pictures of a run in the index; their height in CSS pixels
_MAX_LOG_LINES = 200  # in the index
_NEXT = {
    "retrain": "The loop trains on the corpus with this batch. The gate decides about the models.",
    "no-drift": "Nothing. The current release stays in use.",
    "too-few": "Nothing. The batch is tested again together with the next one.",
    "cooling-down": "Nothing. The batch is tested again when the pause after a training is over.",
    "held": "A person must look at this batch: `arl approve` or `arl reject`.",
    "refused": "Correct the files and send them as a new batch. Nothing of this one was kept.",
    "failed": "The next poll resumes the run.",
    "stuck": "Find the cause in the log below. `arl retry` starts the run again.",
    "outage": "The next poll resumes the run. An outage is no attempt.",
}

_NEXT_AFTER_GATE = {
    "promote": "Nothing. The loop compares new batches with the new release from now on.",
    "reject": "Nothing has to be done: the current release stays in use. The gate says why.",
    "inconclusive": "Nothing has to be done: the current release stays in use. More test patients"
    " would decide.",
}


def write_run(
    journal: Journal, run: Run, corpus: Path, champion: str | None, stamp: RunStamp
) -> None:
    """Write <run>/index.html, and strip.png with the run's pictures for the index."""
    entries = [entry for entry in journal.entries() if entry.run == run.name]
    decided = next((entry for entry in entries if entry.event == "decision"), None)
    outcome = next((entry for entry in entries if entry.event == "outcome"), None)
    home = corpus if run.new and (corpus / run.new).is_dir() else run.corpus
    rows = _batch_rows(home, run.new)
    if len(rows):
        with atomic_file(run.folder / "strip.png") as partial:
            partial.write_bytes(pictures.strip(read_images(home, _spread(rows, _STRIP))))
    drift = _drift_result(run)
    drawn = _drift_charts(run)
    word, summary = _state_of(decided, entries)
    name = run.incoming.alias if run.incoming else "batches that waited"
    html.write(
        run.folder / "index.html",
        "monitoring_run.html.j2",
        html.Head(
            "Monitoring run",
            f"Run {run.name}: {name}.",
            _since_start(stamp, run.name),
            _page_links(run, "Run"),
        ),
        word=word,
        kind=_kind(word),
        summary=summary,
        next=(_NEXT_AFTER_GATE.get(outcome.label, "") if outcome else _NEXT.get(word, "")),
        facts=_facts(run, decided),
        reasons=_reasons(decided, entries),
        has_batch=run.new is not None,
        counts=_counts(rows) if len(rows) else None,
        new_images=_sheet(home, _spread(rows, _MAX_PICTURES)) if len(rows) else [],
        known_images=_known_images(run, rows),
        quarantine=_quarantine(home, run.new),
        has_validation=(run.folder / "validation" / "index.html").is_file(),
        compared=drift is not None,
        sites=site_table(drift.sites) if drift else None,
        embedding_map=drawn.embedding_map() if drawn else None,
        distributions=drawn.histograms() if drawn else [],
        outcome=outcome,
        outcome_kind=_kind(outcome.label) if outcome else "info",
        has_gate=(run.folder / "gate" / "index.html").is_file(),
        champion=champion,
        log=_log(entries),
    )
    for title, folder in _STAGES.items():
        file = run.folder / folder / "index.html"
        if file.is_file():
            html.link_pages(file, _page_links(run, title))


def _since_start(stamp: RunStamp, run_name: str) -> RunStamp:
    """The stamp with the duration of the whole run, which is named by its start."""
    if stamp.seconds is None:
        return stamp
    started = datetime.strptime(run_name.split("-")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    return replace(stamp, seconds=max(0.0, (stamp.at - started).total_seconds()))


_STAGES = {"Corpus validation": "validation", "Drift": "drift", "Gate": "gate"}


def _page_links(run: Run, current_page: str) -> list[Link]:
    """Links from a page of a run to the others that exist, and to all runs."""
    up = "" if current_page == "Run" else "../"
    links = [
        Link(f"{up}../../index.html", "All runs"),
        Link("" if current_page == "Run" else "../index.html", "This run"),
    ]
    return links + [
        Link("" if title == current_page else f"{up}{folder}/index.html", title)
        for title, folder in _STAGES.items()
        if (run.folder / folder / "index.html").is_file()
    ]


def write_index(journal: Journal, champion: str | None, monitor: Path, stamp: RunStamp) -> None:
    """Write <monitor>/index.html."""
    entries = journal.entries()
    runs = _entries_by_run(entries)
    run = current(monitor)
    html.write(
        monitor / "index.html",
        "monitoring.html.j2",
        html.Head(
            "Monitoring",
            "New batches, drift, decisions and the current release.",
            replace(stamp, seconds=None),  # the loop has no end
        ),
        word=f"release {champion} is in use" if champion else "nothing has been released",
        summary=f"Run {run.name} is under way." if run else "No run is under way.",
        kind="good" if champion else "warn",
        problems=[problem.rstrip(".") for problem in journal.problems()],
        facts=_index_facts(champion, entries),
        runs=_runs_table(monitor, runs),
        shifts=_shifts(runs),
        champions=_champions(entries, champion),
        log=_log(entries[-_MAX_LOG_LINES:]) if entries else None,
    )


# --- a run -----------------------------------------------------------------------------------


def _kind(word: str) -> str:
    return Badge(word).kind


def _state_of(decided: LogEntry | None, entries: Sequence[LogEntry]) -> tuple[str, str]:
    """One word and one sentence for a run: its last trouble, else its decision and outcome."""
    last = entries[-1] if entries else None
    if last is not None and last.event in ("failed", "stuck", "outage"):
        return last.event, last.words[0]
    if decided is None or decided.decision is None:
        return "under-way", "The run has not come to a decision yet."
    if last is not None and last.event == "outcome":
        return decided.decision.word, f"{decided.decision.why} {last.words[0]}"
    return decided.decision.word, decided.decision.why


def _facts(run: Run, decided: LogEntry | None) -> dict[str, object]:
    decision = decided.decision if decided else None
    counts = decision.counts if decision else None
    return {
        "batch": run.incoming.alias if run.incoming else "none",
        "files": run.incoming.num_files if run.incoming else None,
        "accepted images": counts.images if counts else None,
        "in quarantine": counts.refused if counts else None,
        "compared with": f"release {decision.champion}" if decision and decision.champion else None,
    }


def _reasons(decided: LogEntry | None, entries: Sequence[LogEntry]) -> list[str]:
    if decided is not None:
        return decided.words
    return [words for entry in entries for words in entry.words] or ["Nothing was decided yet."]


def _batch_rows(home: Path, batch: str | None) -> pd.DataFrame:
    """Manifest rows of one batch; none if it was never ingested."""
    file = home / (batch or "") / "manifest.parquet"
    if batch and file.is_file():
        return read_table(file, SCHEMA)
    return pd.DataFrame(columns=SCHEMA.names)


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows, evenly spaced, the anatomies in turn."""
    turn = rows.groupby("anatomy").cumcount() / rows.groupby("anatomy")["id"].transform("size")
    ordered = rows.assign(turn=turn).sort_values(["turn", "anatomy"], kind="stable")
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, count).astype(int))]


def _counts(rows: pd.DataFrame) -> Table:
    return tables.image_counts(rows, ["site", "device", "probe", "anatomy"])


def _sheet(corpus: Path, rows: pd.DataFrame) -> list[Thumbnail]:
    return pictures.contact_sheet(
        corpus,
        rows,
        lambda row: [
            pictures.describe(row, "anatomy", "label"),
            pictures.describe(row, "device") or str(row["site"]),
        ],
    )


def _known_images(run: Run, rows: pd.DataFrame) -> list[Thumbnail]:
    """Images of the same anatomies that the champion was trained on."""
    view = run.folder / "reference"
    folders = [
        file.parent
        for file in sorted(view.glob("*/*/manifest.parquet"))
        if f"{file.parent.parent.name}/{file.parent.name}" not in run.batches
    ]
    if not folders or rows.empty:
        return []
    reference = pd.concat(
        [read_table(folder / "manifest.parquet", SCHEMA) for folder in folders], ignore_index=True
    )
    same_anatomy = reference[reference["anatomy"].isin(rows["anatomy"].unique())]
    return _sheet(view, _spread(same_anatomy, _MAX_PICTURES)) if len(same_anatomy) else []


def _quarantine(home: Path, batch: str | None) -> Table | None:
    file = home / (batch or "") / "quarantine.parquet"
    return tables.quarantine(read_table(file, QUARANTINE)) if batch and file.is_file() else None


def _drift_result(run: Run) -> DriftResult | None:
    file = run.folder / "drift" / "drift.json"
    return DriftResult.read(file) if file.is_file() else None


def _drift_charts(run: Run) -> DriftCharts | None:
    file = run.folder / "drift" / DriftCharts.FILE
    return DriftCharts.read(file) if file.is_file() else None


def _log(entries: Sequence[LogEntry]) -> Table:
    rows = [
        [_clock(entry.at), Badge(entry.label), " ".join(entry.words)] for entry in reversed(entries)
    ]
    return Table(["UTC", "event", "explanation"], rows, name="Log")


def _clock(at: str) -> str:
    return at.replace("T", " ").removesuffix("+00:00")


# --- the index -------------------------------------------------------------------------------


def _entries_by_run(entries: Sequence[LogEntry]) -> dict[str, list[LogEntry]]:
    """Run -> its entries, newest run first."""
    by_run: dict[str, list[LogEntry]] = {}
    for entry in entries:
        if entry.run:
            by_run.setdefault(entry.run, []).append(entry)
    return dict(sorted(by_run.items(), reverse=True))


def _index_facts(champion: str | None, entries: Sequence[LogEntry]) -> dict[str, object]:
    batches = trained_on(entries, champion) if champion else None
    decisions = [
        entry.decision.word for entry in entries if entry.decision is not None and entry.run
    ]
    return {
        "batches it was trained on": None if batches is None else len(batches),
        "runs": len(decisions),
        "trainings": decisions.count("retrain"),
        "refused batches": decisions.count("refused"),
        "waiting batches": len(waiting(entries)),
    }


def _runs_table(monitor: Path, runs: dict[str, list[LogEntry]]) -> Table | None:
    columns = ["began (UTC)", "batch", "pictures", "images", "decision", "gate", "explanation"]
    rows = [_run_row(monitor, name, entries) for name, entries in runs.items()]
    return Table(columns, rows, name="Runs") if rows else None


def _run_row(monitor: Path, name: str, entries: list[LogEntry]) -> list[object]:
    decided = next((entry for entry in entries if entry.event == "decision"), None)
    outcome = next((entry for entry in entries if entry.event == "outcome"), None)
    word, summary = _state_of(decided, entries)
    decision = decided.decision if decided else None
    folder = monitor / "runs" / name
    began = f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    has_page = (folder / "index.html").is_file()
    return [
        Link(f"runs/{name}/index.html", began) if has_page else began,
        (decision.incoming if decision else None) or "waiting batches",
        _strip_of(folder / "strip.png"),
        decision.counts.images if decision and decision.counts else None,
        Badge(word),
        Badge(outcome.label) if outcome else None,
        summary,
    ]


def _strip_of(file: Path) -> Picture | None:
    return Picture(file.read_bytes(), "New images", _STRIP_HEIGHT) if file.is_file() else None


def _shifts(runs: dict[str, list[LogEntry]]) -> charts.Chart | None:
    """The distance of each tested site by run, oldest first."""
    points = [
        charts.Point(
            f"{name[4:6]}-{name[6:8]} {entry.decision.incoming or 'waiting batches'}: {site.label}",
            site.mmd2,
            site.usual,
            site.drifted,
        )
        for name, entries in sorted(runs.items())
        for entry in entries
        if entry.decision is not None
        for site in entry.decision.shifts
    ]
    if not points:
        return None
    return charts.dots(
        points,
        title="Distance of new batches from the training images, by site.",
        x_label="MMD² of the embeddings",
        caption="Coloured: drift.",
        limit_name="usual distance of sites",
    )


def _champions(entries: Sequence[LogEntry], champion: str | None) -> Table | None:
    rows = [
        [
            _clock(entry.at),
            Code(entry.champion or ""),
            "in use" if entry.champion == champion else "earlier",
            len(entry.trained_on),
            entry.words[0],
        ]
        for entry in reversed(entries)
        if entry.trained_on is not None
    ]
    columns = ["since (UTC)", "release", "state", "batches", "explanation"]
    return Table(columns, rows, name="Releases") if rows else None

"""The pages of the loop: one for each monitoring run, and one over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
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


@dataclass(frozen=True)
class RunPage:
    """What the page of one run shows; the template reads its methods."""

    run: Run
    entries: Sequence[LogEntry]  # of this run, oldest first
    corpus: Path

    @property
    def home(self) -> Path:
        """The corpus that holds the batch: the project's, once the batch has entered it."""
        entered = self.run.new and (self.corpus / self.run.new).is_dir()
        # A refused batch stays in the folder of its run.
        return self.corpus if entered else self.run.corpus

    @property
    def decided(self) -> LogEntry | None:
        """The entry with the decision about the batch."""
        return next((entry for entry in self.entries if entry.event == "decision"), None)

    @property
    def outcome(self) -> LogEntry | None:
        """The entry with the verdict of the gate, after a training."""
        return next((entry for entry in self.entries if entry.event == "outcome"), None)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Manifest rows of the batch; none if it was never ingested."""
        file = self.home / (self.run.new or "") / "manifest.parquet"
        if self.run.new and file.is_file():
            return read_table(file, SCHEMA)
        return pd.DataFrame(columns=SCHEMA.names)

    @property
    def facts(self) -> dict[str, object]:
        """The batch in numbers."""
        decision = self.decided.decision if self.decided else None
        counts = decision.counts if decision else None
        incoming = self.run.incoming
        release = f"release {decision.champion}" if decision and decision.champion else None
        return {
            "batch": incoming.alias if incoming else "none",
            "files": incoming.num_files if incoming else None,
            "accepted images": counts.images if counts else None,
            "in quarantine": counts.refused if counts else None,
            "compared with": release,
        }

    @property
    def reasons(self) -> list[str]:
        """Why the run was decided as it was; before that, what happened so far."""
        if self.decided is not None:
            return self.decided.words
        words = [words for entry in self.entries for words in entry.words]
        return words or ["Nothing was decided yet."]

    @property
    def known_images(self) -> list[Thumbnail]:
        """Images of the same anatomies that the champion was trained on."""
        view = self.run.folder / "reference"
        # The view of the reference also links the new batch, which is no training image yet.
        folders = [
            file.parent
            for file in sorted(view.glob("*/*/manifest.parquet"))
            if f"{file.parent.parent.name}/{file.parent.name}" not in self.run.batches
        ]
        if not folders or self.rows.empty:
            return []
        tables_of_folders = [read_table(folder / "manifest.parquet", SCHEMA) for folder in folders]
        reference = pd.concat(tables_of_folders, ignore_index=True)
        same_anatomy = reference[reference["anatomy"].isin(self.rows["anatomy"].unique())]
        return _sheet(view, _spread(same_anatomy, _MAX_PICTURES)) if len(same_anatomy) else []

    @property
    def quarantine(self) -> Table | None:
        """The refused files of the batch."""
        file = self.home / (self.run.new or "") / "quarantine.parquet"
        is_there = self.run.new is not None and file.is_file()
        return tables.quarantine(read_table(file, QUARANTINE)) if is_there else None


def write_run(
    journal: Journal, run: Run, corpus: Path, champion: str | None, stamp: RunStamp
) -> None:
    """Write <run>/index.html, and strip.png with the run's pictures for the index."""
    page = RunPage(run, [entry for entry in journal.entries() if entry.run == run.name], corpus)
    rows, home = page.rows, page.home
    if len(rows):
        # The index shows pictures of all runs; reading the shards again would take minutes.
        with atomic_file(run.folder / "strip.png") as partial:
            partial.write_bytes(pictures.strip(read_images(home, _spread(rows, _STRIP))))
    result, drawn = run.folder / "drift" / "drift.json", run.folder / "drift" / DriftCharts.FILE
    drift = DriftResult.read(result) if result.is_file() else None
    drift_charts = DriftCharts.read(drawn) if drawn.is_file() else None
    word, summary = _state_of(page.decided, page.entries)
    outcome = page.outcome
    name = run.incoming.alias if run.incoming else "batches that waited"
    columns = ["site", "device", "probe", "anatomy"]
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
        kind=Badge(word).kind,
        summary=summary,
        next=(_NEXT_AFTER_GATE.get(outcome.label, "") if outcome else _NEXT.get(word, "")),
        page=page,
        has_batch=run.new is not None,
        counts=tables.image_counts(rows, columns) if len(rows) else None,
        new_images=_sheet(home, _spread(rows, _MAX_PICTURES)) if len(rows) else [],
        has_validation=(run.folder / "validation" / "index.html").is_file(),
        compared=drift is not None,
        sites=site_table(drift.sites) if drift else None,
        embedding_map=drift_charts.embedding_map() if drift_charts else None,
        distributions=drift_charts.histograms() if drift_charts else [],
        outcome=outcome,
        outcome_kind=Badge(outcome.label).kind if outcome else "info",
        has_gate=(run.folder / "gate" / "index.html").is_file(),
        champion=champion,
        log=_log(page.entries),
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


@dataclass(frozen=True)
class IndexPage:
    """What the page over all runs shows."""

    entries: Sequence[LogEntry]  # of the whole log, oldest first
    champion: str | None
    monitor: Path

    @cached_property
    def runs(self) -> dict[str, list[LogEntry]]:
        """Run -> its entries, newest run first."""
        by_run: dict[str, list[LogEntry]] = {}
        for entry in self.entries:
            if entry.run:
                by_run.setdefault(entry.run, []).append(entry)
        # The name of a run begins with its start.
        return dict(sorted(by_run.items(), reverse=True))

    @property
    def facts(self) -> dict[str, object]:
        """The loop in numbers."""
        # A release from before the loop has no entry in its log.
        batches = trained_on(self.entries, self.champion) if self.champion else None
        decisions = [
            entry.decision.word
            for entry in self.entries
            if entry.decision is not None and entry.run
        ]
        return {
            "batches it was trained on": None if batches is None else len(batches),
            "runs": len(decisions),
            "trainings": decisions.count("retrain"),
            "refused batches": decisions.count("refused"),
            "waiting batches": len(waiting(self.entries)),
        }

    @property
    def runs_table(self) -> Table | None:
        """One row per run, with a link to its page."""
        columns = ["began (UTC)", "batch", "pictures", "images", "decision", "gate", "explanation"]
        rows = [_run_row(self.monitor, name, entries) for name, entries in self.runs.items()]
        return Table(columns, rows, name="Runs") if rows else None

    @property
    def shifts(self) -> charts.Chart | None:
        """The distance of each tested site by run, oldest first."""
        points = [
            charts.Point(
                f"{name[4:6]}-{name[6:8]} {entry.decision.incoming or 'waiting batches'}:"
                f" {site.label}",
                site.mmd2,
                site.usual,
                site.drifted,
            )
            for name, entries in sorted(self.runs.items())
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

    @property
    def champions(self) -> Table | None:
        """The releases of the loop, newest first."""
        rows = [
            [
                _clock(entry.at),
                Code(entry.champion or ""),
                "in use" if entry.champion == self.champion else "earlier",
                len(entry.trained_on),
                entry.words[0],
            ]
            for entry in reversed(self.entries)
            if entry.trained_on is not None
        ]
        columns = ["since (UTC)", "release", "state", "batches", "explanation"]
        return Table(columns, rows, name="Releases") if rows else None


def write_index(journal: Journal, champion: str | None, monitor: Path, stamp: RunStamp) -> None:
    """Write <monitor>/index.html."""
    page = IndexPage(journal.entries(), champion, monitor)
    run = current(monitor)
    html.write(
        monitor / "index.html",
        "monitoring.html.j2",
        html.Head(
            "Monitoring",
            "New batches, drift, decisions and the current release.",
            # The loop has no end, so a duration would say nothing.
            replace(stamp, seconds=None),
        ),
        word=f"release {champion} is in use" if champion else "nothing has been released",
        summary=f"Run {run.name} is under way." if run else "No run is under way.",
        kind="good" if champion else "warn",
        problems=[problem.rstrip(".") for problem in journal.problems()],
        page=page,
        log=_log(page.entries[-_MAX_LOG_LINES:]) if page.entries else None,
    )


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


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows, evenly spaced, the anatomies in turn."""
    turn = rows.groupby("anatomy").cumcount() / rows.groupby("anatomy")["id"].transform("size")
    # In turn, so that a batch of one anatomy and a few others shows the few, too.
    ordered = rows.assign(turn=turn).sort_values(["turn", "anatomy"], kind="stable")
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, count).astype(int))]


def _sheet(corpus: Path, rows: pd.DataFrame) -> list[Thumbnail]:
    return pictures.contact_sheet(
        corpus,
        rows,
        lambda row: [
            pictures.describe(row, "anatomy", "label"),
            pictures.describe(row, "device") or str(row["site"]),
        ],
    )


def _log(entries: Sequence[LogEntry]) -> Table:
    rows = [
        [_clock(entry.at), Badge(entry.label), " ".join(entry.words)] for entry in reversed(entries)
    ]
    return Table(["UTC", "event", "explanation"], rows, name="Log")


def _clock(at: str) -> str:
    return at.replace("T", " ").removesuffix("+00:00")


def _run_row(monitor: Path, name: str, entries: list[LogEntry]) -> list[object]:
    decided = next((entry for entry in entries if entry.event == "decision"), None)
    outcome = next((entry for entry in entries if entry.event == "outcome"), None)
    word, summary = _state_of(decided, entries)
    decision = decided.decision if decided else None
    folder = monitor / "runs" / name
    strip = folder / "strip.png"
    began = f"{name[:4]}-{name[4:6]}-{name[6:8]} {name[9:11]}:{name[11:13]}:{name[13:15]}"
    has_page = (folder / "index.html").is_file()
    return [
        Link(f"runs/{name}/index.html", began) if has_page else began,
        (decision.incoming if decision else None) or "waiting batches",
        Picture(strip.read_bytes(), "New images", _STRIP_HEIGHT) if strip.is_file() else None,
        decision.counts.images if decision and decision.counts else None,
        Badge(word),
        Badge(outcome.label) if outcome else None,
        summary,
    ]

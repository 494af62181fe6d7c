"""Take the next incoming batch into a corpus of its own, and check it against the rules."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import batch_folders
from arl.documents import DocumentError
from arl.files import read_json, tree_hash
from arl.ingest.dicom.deidentify import secret_key
from arl.ingest.inbox import IncomingBatch, fetch, find_batch, list_batches
from arl.ingest.readers import find_source
from arl.monitoring.arrivals import train_only
from arl.monitoring.journal import (
    BatchCounts,
    BatchDecision,
    Journal,
    LogEntry,
    answered_runs,
    cooldown_end,
    handled_fingerprints,
    handled_hashes,
    waiting,
)
from arl.monitoring.runs import (
    Intake,
    Queue,
    Run,
    begin,
    current,
    discard,
    leased_by_other,
    link_batches,
    read_run,
    run_name,
    unpark,
)
from arl.params import Params
from arl.stages.ingest import ingest
from arl.stages.validate import validate


def take_batch(
    params: Params, inbox: str, *, corpus: ReadableCorpus, monitor: Path, owner: str = ""
) -> None:
    """Take the next incoming batch into a corpus of its own, and check it against the rules.

    Resumes the run that is under way. If there is none, begins one: for a run that `arl retry`
    names, else for the oldest complete batch of the inbox that is new, else for batches whose
    cool-down has ended. Writes <monitor>/open.json and, below <monitor>/runs/<run>/, the ingested
    batch, validation/ and intake.json, which says whether the batch is accepted. Writes nothing
    if there is nothing to do.

    Args:
        inbox: a folder or s3://bucket/prefix with <site>/<batch>/ folders.
        corpus: folder of the corpus; only read.
        monitor: folder of the loop's state and log.
        owner: the Kubeflow run that carries the monitoring run out; empty where a lock does.

    Raises:
        ValueError: watch.source cannot read hospital batches, or there is no hash key.
        FileNotFoundError: there is no inbox or no corpus.

    Writes:
        monitor
    """
    _check_settings(params)
    journal = Journal(monitor)
    _log_damage(journal)
    run = current(monitor)
    if run is not None and leased_by_other(run, owner, params.watch.lease_hours):
        _log_running(journal, run, owner)
        return
    if run is None:
        run = _next_run(params, inbox, monitor, owner)
        if run is None:
            print("watch: nothing new has arrived")
            return
    begin(replace(run, owner=owner))
    if (run.folder / "intake.json").is_file():
        return
    intake = _take_in(params, inbox, corpus, run)
    if intake is None:
        discard(run)
        print(f"watch: {run.name} was dropped: its batch changed while it was read")
    else:
        intake.write(run.folder / "intake.json")
        _remove_raw_files(run)


def _check_settings(params: Params) -> None:
    """Raise for a mistake in the settings before any batch can be blamed for it."""
    if "site" not in find_source(params.watch.source).options:
        raise ValueError(
            f"watch.source {params.watch.source!r} reads one public dataset: "
            "hospitals use dicom-folder"
        )
    secret_key()


def _log_damage(journal: Journal) -> None:
    """Log that the log was edited or damaged, once for each finding."""
    logged = {
        words for entry in journal.entries() if entry.event == "damaged" for words in entry.words
    }
    fresh = [problem for problem in journal.problems() if problem not in logged]
    if fresh:
        journal.append("damaged", fresh)
        print("\n".join(f"watch: the log is damaged: {problem}" for problem in fresh))


def _log_running(journal: Journal, run: Run, owner: str) -> None:
    words = (
        f"{owner or 'A poll'} found run {run.name} under way, which {run.owner} began, "
        "and left it alone."
    )
    journal.append(
        "decision", [words], decision=BatchDecision(word="already-running", active=run.name)
    )
    print(f"watch: already-running: {words}")


def _next_run(params: Params, inbox: str, monitor: Path, owner: str) -> Run | None:
    """The next run; it has not begun yet."""
    journal = Journal(monitor)
    entries = journal.entries()
    answered = _answered_run(monitor, entries)
    if answered is not None:
        return answered
    waits, hashes = waiting(entries), handled_hashes(entries)
    for batch in _new_batches(params, inbox, monitor, journal):
        if batch.problem:
            _refuse(journal, batch)
            continue
        raw = monitor / "fetched" / batch.fingerprint
        # By content: a sender may deliver the same files under another name.
        digest = tree_hash(fetch(inbox, batch, raw))
        if digest in hashes:
            _log_duplicate(journal, batch, digest)
            shutil.rmtree(raw, ignore_errors=True)
            continue
        name = run_name(digest)
        return Run(
            name=name,
            monitor=monitor,
            batches=[*waits, f"{params.watch.source}/{name}"],
            hash=digest,
            incoming=batch,
            owner=owner,
        )
    cooled = [batch for batch, word in waits.items() if word == "cooling-down"]
    until = cooldown_end(entries, params.watch.cooldown_hours)
    if cooled and (until is None or time.time() >= until.timestamp()):
        return Run(name=run_name("again"), monitor=monitor, batches=list(waits), owner=owner)
    return None


def _answered_run(monitor: Path, entries: list[LogEntry]) -> Run | None:
    """A parked run that a person retried, approved or rejected."""
    for name in answered_runs(entries):
        try:
            run = read_run(monitor, name)
        except (FileNotFoundError, DocumentError):
            continue
        unpark(run)
        return run
    return None


def _new_batches(
    params: Params, inbox: str, monitor: Path, journal: Journal
) -> list[IncomingBatch]:
    """Complete batches that no run has taken, in the order of their names.

    One listing of the inbox serves all batches that it finds, so that the cost of N batches is
    that of N. A queued batch is listed again on its own before it is taken.
    """
    handled = handled_fingerprints(journal.entries())
    queue = _read_queue(monitor, inbox)
    ready = []
    for queued in queue.batches:
        batch = find_batch(inbox, queued.name, params.watch.settle_seconds, time.time())
        if batch is not None and _is_ready(batch, handled):
            ready = [batch, *queue.batches[queue.batches.index(queued) + 1 :]]
            break
    if not ready:
        listed = list_batches(inbox, params.watch.settle_seconds, time.time())
        for batch in listed:
            if batch.incomplete_reason and batch.fingerprint not in handled:
                print(f"watch: {batch.alias} is left alone: {batch.incomplete_reason}")
        ready = [batch for batch in listed if _is_ready(batch, handled)]
    file = monitor / "queue.json"
    if ready[1:]:
        Queue(inbox, ready[1:]).write(file)
        file.chmod(0o600)
    else:
        file.unlink(missing_ok=True)
    # The first one is fresh; the others are looked at again when their turn comes.
    return ready if all(batch.problem for batch in ready[:1]) else ready[:1]


def _is_ready(batch: IncomingBatch, handled: set[str]) -> bool:
    return not batch.incomplete_reason and batch.fingerprint not in handled


def _read_queue(monitor: Path, inbox: str) -> Queue:
    try:
        queue = Queue.read(monitor / "queue.json")
    except (FileNotFoundError, DocumentError, UnicodeDecodeError):
        return Queue(inbox)
    return queue if queue.inbox == inbox else Queue(inbox)


def _refuse(journal: Journal, batch: IncomingBatch) -> None:
    """Refuse a batch that cannot be read at all; the others are not affected."""
    why = f"{batch.alias} cannot be read: {batch.problem}."
    words = [why, "So the batch is refused; it is looked at again once its sender changes it."]
    decision = BatchDecision(
        word="refused", why=why, incoming=batch.alias, fingerprint=batch.fingerprint
    )
    journal.append("decision", words, decision=decision)
    print(f"watch: refused: {why}")


def _log_duplicate(journal: Journal, batch: IncomingBatch, digest: str) -> None:
    why = f"{batch.alias} holds the files of a batch that was decided on before ({digest[:12]})."
    decision = BatchDecision(
        word="duplicate",
        why=why,
        incoming=batch.alias,
        hash=digest,
        fingerprint=batch.fingerprint,
    )
    journal.append("decision", [why], decision=decision)
    print(f"watch: duplicate: {why}")


def _take_in(params: Params, inbox: str, corpus: Path, run: Run) -> Intake | None:
    """Ingest and validate the new batch; None where its files are not those that were hashed."""
    present = (folder.relative_to(corpus).as_posix() for folder in batch_folders(corpus))
    link_batches(corpus, present, run.corpus)
    if run.incoming is None or run.new is None:
        return Intake(accepted=True)
    root = fetch(inbox, run.incoming, run.monitor / "fetched" / run.incoming.fingerprint)
    problem = "" if (run.corpus / run.new).exists() else _ingest(params, root, run)
    # A sender may still write although the batch looked complete.
    if tree_hash(root) != run.hash:
        return None
    if not problem:
        # Before the validation, so that the rules see the splits that will be used.
        train_only(run.corpus / run.new)
    if problem:
        return Intake(accepted=False, reasons=[problem])
    summary = read_json(run.corpus / run.new / "batch.json")
    counts = BatchCounts(
        summary["num_inputs"], summary["accepted"], summary["refused"], summary["images"]
    )
    problem = _too_many_refused(params, counts) or _broken_rule(params, run)
    return Intake(not problem, [problem] if problem else [], counts)


def _ingest(params: Params, root: Path, run: Run) -> str:
    """Read the incoming batch into the run's corpus; the reason where that is impossible."""
    assert run.incoming is not None
    # `_too_many_refused` decides, so that the report can show the quarantine.
    params = replace(params, data=replace(params.data, max_refused=1.0))
    try:
        ingest(
            params,
            params.watch.source,
            root=root,
            corpus=run.corpus,
            batch=run.name,
            site=run.incoming.site,
        )
    except (ValueError, FileNotFoundError) as error:
        return f"It is not in the layout of {params.watch.source}: {error}."
    return ""


def _too_many_refused(params: Params, counts: BatchCounts) -> str:
    fraction = counts.refused / counts.inputs if counts.inputs else 1.0
    if counts.images and fraction <= params.watch.max_refused:
        return ""
    return (
        f"{counts.refused} of its {counts.inputs} inputs cannot be accepted ({fraction:.0%}); "
        f"at most {params.watch.max_refused:.0%} may be refused (watch.max_refused)."
    )


def _broken_rule(params: Params, run: Run) -> str:
    try:
        validate(params, corpus=run.corpus, validation=run.folder / "validation")
    except ValueError as error:
        return f"With it the corpus breaks its rules: {error}."
    return ""


def _remove_raw_files(run: Run) -> None:
    """Remove copies of hospital files as soon as their batch is written."""
    if run.incoming is not None:
        shutil.rmtree(run.monitor / "fetched" / run.incoming.fingerprint, ignore_errors=True)

"""Take the next batch that has arrived into a corpus of its own, and hold it against the rules."""

import time
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import batch_folders
from arl.files import read_json, tree_hash, write_json
from arl.ingest.dicom.deidentify import secret_key
from arl.ingest.inbox import Drop, fetch, look
from arl.ingest.readers import reader
from arl.monitoring.journal import Journal, cools_until, handled, waiting
from arl.monitoring.runs import Run, begin, current, forget, leased_by, link_batches, run_name
from arl.params import Params
from arl.stages.ingest import ingest
from arl.stages.validate import validate


def take_batch(
    params: Params, inbox: str, *, corpus: ReadableCorpus, monitor: Path, owner: str = ""
) -> None:
    """Take the next batch that has arrived into a corpus of its own, and hold it against the rules.

    Goes on with the run that is under way, or begins one for the oldest complete batch of the inbox
    that was not looked at before, or for batches that waited for the end of the cool-down. Reads
    the corpus; writes <monitor>/open.json and, below <monitor>/runs/<run>/, the ingested batch,
    validation/ and intake.json, which says whether it is accepted. Without anything to do it writes
    nothing.

    Args:
        inbox: a folder or s3://bucket/prefix, see `arl.ingest.inbox`.
        owner: who carries the run out, where no lock says so: the name of a Kubeflow run.

    Raises:
        ValueError: the reader knows no sites, or there is no hash key.
        FileNotFoundError: there is no inbox or no corpus.
    """
    _check_settings(params)
    run = current(monitor)
    if run is not None and leased_by(run, owner, params.watch.lease_hours):
        _tell_running(monitor, run, owner)
        return
    if run is None:
        run = _next(params, inbox, monitor, owner)
        if run is None:
            print("watch: nothing new has arrived")
            return
    begin(replace(run, owner=owner))
    if (run.folder / "intake.json").is_file():
        return
    taken = _take_in(params, inbox, corpus, run)
    if taken is None:
        forget(run)
        print(f"watch: {run.name} was dropped: the files of its batch changed while they were read")
    else:
        write_json(run.folder / "intake.json", taken)


def _check_settings(params: Params) -> None:
    """A mistake in the settings is no fault of a batch, so it shows before one is touched."""
    if "site" not in signature(reader(params.watch.source).read).parameters:
        raise ValueError(
            f"watch.source {params.watch.source!r} is a public set of its own: hospitals use dicom-folder"
        )
    secret_key()


def _tell_running(monitor: Path, run: Run, owner: str) -> None:
    words = [
        f"{owner or 'A trigger'} found run {run.name} under way, begun by {run.owner}, and left it alone."
    ]
    Journal(monitor).append("decision", words, decision="already-running", active=run.name)
    print(f"watch: already-running: {words[0]}")


def _next(params: Params, inbox: str, monitor: Path, owner: str) -> Run | None:
    """The next run, not begun yet."""
    journal = Journal(monitor)
    waits = waiting(journal.entries())
    for drop in _unseen(params, inbox, journal):
        folder = fetch(inbox, drop, monitor / "fetched" / drop.fingerprint)
        digest = tree_hash(folder)
        if digest in handled(journal.entries(), "hash"):
            _tell_duplicate(journal, drop, digest)
            continue
        name = run_name(digest)
        return Run(name, monitor, [*waits, f"{params.watch.source}/{name}"], digest, drop, owner)
    cooled = [batch for batch, decision in waits.items() if decision == "cooling-down"]
    until = cools_until(journal.entries(), params.watch.cooldown_hours)
    if cooled and until is not None and time.time() >= until.timestamp():
        return Run(run_name("again"), monitor, list(waits), owner=owner)
    return None


def _unseen(params: Params, inbox: str, journal: Journal) -> list[Drop]:
    """Complete drops that no run has looked at, in the order of their names."""
    known = handled(journal.entries(), "fingerprint")
    drops = [
        drop
        for drop in look(inbox, params.watch.settle_seconds, time.time())
        if drop.fingerprint not in known
    ]
    for drop in drops:
        if drop.waiting_for:
            print(f"watch: {drop.name} is left alone: it waits for {drop.waiting_for}")
    return [drop for drop in drops if not drop.waiting_for]


def _tell_duplicate(journal: Journal, drop: Drop, digest: str) -> None:
    words = [
        f"{drop.name} holds the very files of a batch that was looked at before ({digest[:12]}): nothing to do."
    ]
    journal.append(
        "decision",
        words,
        decision="duplicate",
        drop=drop.name,
        hash=digest,
        fingerprint=drop.fingerprint,
    )
    print(f"watch: duplicate: {words[0]}")


def _take_in(params: Params, inbox: str, corpus: Path, run: Run) -> dict[str, Any] | None:
    """Ingest and validate the new batch; what came of it, or None where its files are not those that were hashed."""
    link_batches(
        corpus,
        (folder.relative_to(corpus).as_posix() for folder in batch_folders(corpus)),
        run.corpus,
    )
    if run.drop is None or run.new is None:
        return {"accepted": True, "reasons": []}
    root = fetch(inbox, run.drop, run.monitor / "fetched" / run.drop.fingerprint)
    problem = "" if (run.corpus / run.new).exists() else _ingest(params, root, run)
    if tree_hash(root) != run.hash:
        return None
    if problem:
        return {"accepted": False, "reasons": [problem], "counts": None}
    counts = read_json(run.corpus / run.new / "batch.json")
    problem = _too_many_refused(params, counts) or _broken_rule(params, run)
    return {"accepted": not problem, "reasons": [problem] if problem else [], "counts": counts}


def _ingest(params: Params, root: Path, run: Run) -> str:
    """Read the drop into the run's corpus; why that cannot be, or nothing."""
    assert run.drop is not None
    try:
        ingest(
            params,
            params.watch.source,
            root=root,
            corpus=run.corpus,
            batch=run.name,
            site=run.drop.site,
        )
    except (ValueError, FileNotFoundError) as error:
        return f"It is not in the layout of {params.watch.source}: {error}."
    return ""


def _too_many_refused(params: Params, counts: dict[str, Any]) -> str:
    share = counts["refused"] / counts["given"] if counts["given"] else 1.0
    if counts["images"] and share <= params.watch.max_refused:
        return ""
    return (
        f"{counts['refused']} of its {counts['given']} inputs cannot be accepted ({share:.0%}); "
        f"at most {params.watch.max_refused:.0%} may be refused (watch.max_refused)."
    )


def _broken_rule(params: Params, run: Run) -> str:
    try:
        validate(params, corpus=run.corpus, validation=run.folder / "validation")
    except ValueError as error:
        return f"With it the corpus breaks its rules: {error}."
    return ""

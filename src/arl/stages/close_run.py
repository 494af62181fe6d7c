"""Log the outcome of the monitoring run, write its pages, and close it."""

import shutil
from dataclasses import replace
from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import batch_folders
from arl.evaluation.decision import read_decision
from arl.monitoring.journal import Journal, TrainingOutcome
from arl.monitoring.runs import Reference, Run, RunDecision, begin, current, end, park
from arl.params import Params
from arl.reports.monitoring import write_index, write_run
from arl.reports.stamp import Stopwatch
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def close_run(
    params: Params,
    *,
    corpus: ReadableCorpus,
    registry: str,
    monitor: Path,
    verdict: Path | None = None,
    error: str = "",
    outage: str = "",
    owner: str = "",
) -> None:
    """Log the outcome of the monitoring run, write its pages, and close it.

    Reads the run under way and the registry; writes lines of <monitor>/log.jsonl, and index.html
    of the run and of all runs. A run that failed stays open and is resumed at the next poll. After
    watch.attempts failures it is set aside until `arl retry`, and the loop goes on with other
    batches. An outage (a store that cannot be reached, a full disk) is no failure.

    Args:
        corpus: folder of the corpus.
        registry: folder or s3://bucket/prefix of the released models.
        monitor: folder of the loop's state and log.
        verdict: decision folder of `arl gate`, where the run has trained; without it the change of
            the champion tells.
        error: message of the step that failed; empty: no step failed.
        outage: message of the step that an outage ended; empty: there was none.
        owner: the Kubeflow run that carries the monitoring run out; the run of another owner is
            left alone.

    Writes:
        monitor
    """
    # No arguments on the page: an error can name a file of the hospital.
    watch = Stopwatch("arl watch", show_arguments=False)
    journal, run = Journal(monitor), current(monitor)
    champion = None
    if not outage:
        champion = Registry(registry, keys_from_environment(params.release.signed)).champion()
    if run is not None and run.owner == owner:
        if outage:
            _log_outage(journal, run, outage)
        elif error:
            _log_failure(params, journal, run, error)
        elif _is_held(run):
            # The run waits for a person, and the loop goes on with other batches.
            write_run(journal, run, corpus, champion, watch.stamp(corpus))
            park(run)
        elif (run.folder / "decision.json").is_file():
            _log_outcome(journal, run, corpus, champion, verdict)
            write_run(journal, run, corpus, champion, watch.stamp(corpus))
            end(run)
        if current(monitor) is not None:
            write_run(journal, run, corpus, champion, watch.stamp(corpus))
            # Whoever polls next resumes it.
            begin(replace(run, owner=""))
    if journal.entries() and not outage:
        write_index(journal, champion, monitor, watch.stamp(corpus))


def _is_held(run: Run) -> bool:
    file = run.folder / "decision.json"
    return file.is_file() and RunDecision.read(file).decision.word == "held"


def _log_outage(journal: Journal, run: Run, outage: str) -> None:
    """Log an outage once, however many polls it lasts."""
    words = [f"Run {run.name} waits: {outage}; the next poll resumes it."]
    entries = [entry for entry in journal.entries() if entry.run == run.name]
    if not entries or (entries[-1].event, entries[-1].words) != ("outage", words):
        journal.append("outage", words, run=run.name)


def _log_failure(params: Params, journal: Journal, run: Run, error: str) -> None:
    """Log a failure; after the last attempt, set the run aside."""
    entries = [entry for entry in journal.entries() if entry.run == run.name]
    # A person who retries a run gives it all of its attempts again.
    retried = max((i for i, entry in enumerate(entries) if entry.event == "retry"), default=-1)
    attempt = 1 + sum(entry.event == "failed" for entry in entries[retried + 1 :])
    attempts = params.watch.attempts
    rest = (
        "the next poll resumes it"
        if attempt < attempts
        else f"that was attempt {attempt} of {attempts}"
    )
    journal.append("failed", [f"Run {run.name} failed: {error}; {rest}."], run=run.name)
    if attempt < attempts:
        return
    batch = run.incoming.alias if run.incoming else "The waiting batches"
    words = [
        f"{batch} failed {attempt} times, and the run is set aside with all that it has done: "
        f"`arl retry {run.name}` resumes it. Other batches are not affected."
    ]
    fingerprint = run.incoming.fingerprint if run.incoming else ""
    journal.append("stuck", words, run=run.name, fingerprint=fingerprint)
    park(run)


def _log_outcome(
    journal: Journal, run: Run, corpus: Path, champion: str | None, verdict: Path | None
) -> None:
    """Log the outcome of a training, once."""
    decided = RunDecision.read(run.folder / "decision.json")
    if decided.decision.word != "retrain" or journal.of_run(run.name, "outcome"):
        return
    if verdict is not None:
        # A process that was killed while it copied leaves half of the pages.
        shutil.rmtree(run.folder / "gate", ignore_errors=True)
        shutil.copytree(verdict, run.folder / "gate")
    before = Reference.read(run.folder / "reference.json").champion
    judged = read_decision(verdict) if verdict else None
    # On Kubeflow the decision lies in another pod; the change of the champion tells the outcome.
    word = judged.verdict if judged else "promote" if champion != before else "not promoted"
    explanation = [*judged.reasons, *judged.notes] if judged else []
    outcome = TrainingOutcome(word, before, champion or "")
    if word == "promote" and champion != before:
        # The corpus of this moment is what the champion was trained on; later batches are compared
        # with it.
        batches = [folder.relative_to(corpus).as_posix() for folder in batch_folders(corpus)]
        first = (
            f"The challenger passed the gate: release {champion} replaces {before}, "
            "which stays in the registry."
        )
        journal.append(
            "outcome",
            [first, *explanation],
            run=run.name,
            outcome=outcome,
            champion=champion,
            trained_on=batches,
        )
        return
    first = f"The challenger was not promoted ({word}): release {champion} stays in use."
    journal.append("outcome", [first, *explanation], run=run.name, outcome=outcome)

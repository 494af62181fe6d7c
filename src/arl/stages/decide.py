"""Decide what the batches of the monitoring run ask for, and add the new batch to the corpus."""

from datetime import UTC, datetime
from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import SCHEMA, read_table
from arl.monitoring.drift_result import DriftResult, Trigger
from arl.monitoring.journal import (
    BatchCounts,
    BatchDecision,
    DecisionWord,
    Journal,
    LogEntry,
    cooldown_end,
)
from arl.monitoring.label_checks import LabelReport
from arl.monitoring.runs import Intake, Reference, Run, RunDecision, adopt, current
from arl.params import Params

_CONSEQUENCE: dict[Trigger, str] = {
    "retrain": (
        "So the pipeline runs on the corpus with this batch, "
        "and its models challenge release {champion}."
    ),
    "no-drift": (
        "So the batch is kept in the corpus and nothing is trained; "
        "release {champion} stays in use."
    ),
    "too-few": "So the batch is kept in the corpus and tested again together with the next one.",
}
_HELD = (
    "So the batch is held and nothing of it enters the corpus until a person looks at it: "
    "`arl approve {run}` or `arl reject {run}`, with --person and --reason."
)


def decide(params: Params, *, corpus: ReadableCorpus, monitor: Path) -> None:
    """Decide what the batches of the monitoring run ask for, and add the new batch to the corpus.

    Reads the results of `arl take-batch` and `arl compare`; writes
    <monitor>/runs/<run>/decision.json (retrain, no-drift, too-few, cooling-down, held or refused,
    with
    its reasons), a line of <monitor>/log.jsonl and, unless it is refused, the batch below `corpus`.
    An earlier decision of the run stands.

    Args:
        corpus: folder of the corpus.
        monitor: folder of the loop's state and log.

    Writes:
        corpus, monitor
    """
    run = current(monitor)
    if run is None:
        return
    file = run.folder / "decision.json"
    journal = Journal(monitor)
    verdict = _person_of(journal, run)
    # A person has answered the question that held the batch.
    if verdict is not None and file.is_file() and RunDecision.read(file).decision.word == "held":
        file.unlink()
    if not file.is_file():
        # The file comes before the log and the corpus: a run that is killed in between repeats the
        # same decision.
        _decide(params, run, verdict).write(file)
    decided = RunDecision.read(file)
    word = decided.decision.word
    if word not in ("refused", "held"):
        adopt(run, corpus)
    logged = [
        entry.decision.word for entry in journal.of_run(run.name, "decision") if entry.decision
    ]
    if word not in logged:
        journal.append("decision", decided.words, run=run.name, decision=decided.decision)
    print("\n".join([f"watch: {decided.decision.word}", *(f"  {line}" for line in decided.words)]))


def _person_of(journal: Journal, run: Run) -> LogEntry | None:
    """The latest approval or rejection of a run."""
    answers = [*journal.of_run(run.name, "approved"), *journal.of_run(run.name, "rejected")]
    return max(answers, key=lambda entry: entry.sequence, default=None)


def _decide(params: Params, run: Run, verdict: LogEntry | None) -> RunDecision:
    intake = Intake.read(run.folder / "intake.json")
    arrival = _arrival(run, intake.counts)
    if not intake.accepted:
        words = [
            *arrival,
            *intake.reasons,
            "So nothing of it enters the corpus; its files stay untouched in the inbox.",
        ]
        return RunDecision(words, _decision(run, "refused", intake.reasons[0], intake.counts))
    labels = LabelReport.read(run.folder / "labels.json")
    result = DriftResult.read(run.folder / "drift" / "drift.json")
    champion = Reference.read(run.folder / "reference.json").champion
    if verdict is not None and verdict.event == "rejected":
        words = [*arrival, *verdict.words, "So nothing of it enters the corpus."]
        return RunDecision(words, _decision(run, "refused", verdict.words[0], intake.counts))
    # Contradicting labels hold a batch; a shift of the images alone asks for a training.
    questions = [check.words for check in labels.failed]
    if params.watch.approval == "manual" and run.new is not None:
        questions.append("Every batch waits for a person (watch.approval).")
    if questions and verdict is None:
        words = [*arrival, *questions, _HELD.format(run=run.name)]
        decision = _decision(run, "held", questions[0], intake.counts, result, champion)
        return RunDecision(words, decision)
    if verdict is not None:
        arrival = [*arrival, *verdict.words]
    word, consequence = _choose(params, run, result.trigger, champion)
    decision = _decision(run, word, result.reasons[0], intake.counts, result, champion)
    return RunDecision([*arrival, *result.reasons, consequence], decision)


def _decision(
    run: Run,
    word: DecisionWord,
    why: str,
    counts: BatchCounts | None,
    result: DriftResult | None = None,
    champion: str | None = None,
) -> BatchDecision:
    incoming = run.incoming
    return BatchDecision(
        word=word,
        why=why,
        incoming=incoming.alias if incoming else None,
        num_files=incoming.num_files if incoming else 0,
        num_bytes=incoming.num_bytes if incoming else 0,
        hash=run.hash,
        fingerprint=incoming.fingerprint if incoming else "",
        counts=counts,
        batches=[] if word in ("refused", "held") else run.batches,
        champion=champion,
        images=result.images if result else 0,
        patients=result.patients if result else 0,
        shifts=result.sites if result else [],
    )


def _arrival(run: Run, counts: BatchCounts | None) -> list[str]:
    words = []
    if run.incoming is not None:
        batch = run.incoming
        text = (
            f"{batch.alias} arrived with {batch.num_files:,} files "
            f"({batch.num_bytes / 1e6:,.1f} MB)"
        )
        if counts is not None:
            text += (
                f": {counts.accepted:,} of {counts.inputs:,} inputs were accepted, "
                f"as {counts.images:,} {_image_kind(run)}; {counts.refused:,} went into quarantine"
            )
        words.append(f"{text}.")
    others = run.batches[:-1] if run.incoming else run.batches
    if others:
        words.append(f"Batches that waited are tested with it: {', '.join(others)}.")
    return words


def _image_kind(run: Run) -> str:
    """Results on phantoms must not be mistaken for those of a hospital."""
    file = run.corpus / (run.new or "") / "manifest.parquet"
    synthetic = file.is_file() and read_table(file, SCHEMA)["synthetic"].any()
    return "synthetic images" if synthetic else "images"


def _choose(params: Params, run: Run, trigger: Trigger, champion: str) -> tuple[DecisionWord, str]:
    """The decision on what the drift test asks for, and a sentence about its consequence."""
    hours = params.watch.cooldown_hours
    until = cooldown_end(Journal(run.monitor).entries(), hours)
    # Batches that arrive in a row would otherwise train once each, and spend one try of the test
    # set each.
    if trigger == "retrain" and until is not None and datetime.now(UTC) < until:
        return "cooling-down", (
            f"That asks for a training, but the last one began less than {hours:g} h ago "
            "(watch.cooldown_hours): the batch is kept in the corpus and tested again after "
            f"{until:%Y-%m-%d %H:%M} UTC."
        )
    return trigger, _CONSEQUENCE[trigger].format(champion=champion)

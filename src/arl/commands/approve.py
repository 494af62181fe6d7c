"""Let a batch that is held for a person enter the corpus."""

from pathlib import Path

from arl.monitoring.journal import Journal, held_runs


def approve(run: str, *, person: str, reason: str, monitor: Path = Path("monitor")) -> None:
    """Let a batch that is held for a person enter the corpus.

    The log keeps who approved, when and why. The next poll goes on with the run: the drift test
    then
    decides whether it asks for a training.

    Args:
        run: Name of the run, as the log and the page have it.
        person: Who decided.
        reason: Why.
        monitor: Folder of the loop's state and log.

    Raises:
        ValueError: the run does not wait for a person.

    Examples:
        arl approve 20261129T014727666055-17dd20ac --person eve --reason "labels read again"
    """
    answer(run, "approved", person, reason, monitor)


def answer(run: str, event: str, person: str, reason: str, monitor: Path) -> None:
    """Log a person's answer to the question that holds a run.

    Raises:
        ValueError: the run does not wait for a person, or a name or reason is missing.
    """
    journal = Journal(monitor)
    held = held_runs(journal.entries())
    if run not in held:
        raise ValueError(
            f"run {run} does not wait for a person; these do: {', '.join(held) or 'none'}"
        )
    # An audit needs a name: an empty one would look like an automatic decision.
    if not person.strip() or not reason.strip():
        raise ValueError("the log needs the name of a person and a reason")
    words = [f"{person} {event} the batch of run {run}: {reason}"]
    journal.append("approved" if event == "approved" else "rejected", words, run=run, person=person)
    print(f"{words[0]}; the next poll goes on with it")

"""Refuse a batch that is held for a person."""

from pathlib import Path

from arl.commands.approve import answer


def reject(run: str, *, person: str, reason: str, monitor: Path = Path("monitor")) -> None:
    """Refuse a batch that is held for a person.

    The log keeps who rejected, when and why. Nothing of the batch enters the corpus; its files stay
    in the inbox.

    Args:
        run: Name of the run, as the log and the page have it.
        person: Who decided.
        reason: Why.
        monitor: Folder of the loop's state and log.

    Raises:
        ValueError: the run does not wait for a person.

    Examples:
        arl reject 20261129T014727666055-17dd20ac --person eve --reason "labels are swapped"
    """
    answer(run, "rejected", person, reason, monitor)

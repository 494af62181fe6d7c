"""The reasons for which inputs of a batch are refused, and whether the batch is worth keeping."""

import re
from collections import Counter
from collections.abc import Sequence

from arl.corpus.record import Input

# Reasons listed on the terminal.
_MAX_REASONS = 12
# Words of a reason that differ from input to input: file names, numbers, hashes.
_SPECIFIC = re.compile(r"'[^']*'|\S*[\d/]\S*|\S+\.[a-z]{2,4}\b")


class TooManyRefusedError(ValueError):
    """More inputs are refused than the settings allow, or all inputs of a class."""


def reason_table(reasons: Sequence[str | None]) -> list[str]:
    """One line for each kind of reason with its count, the most frequent first.

    Args:
        reasons: For each input, why it is refused, or None.
    """
    counts = Counter(_SPECIFIC.sub("*", reason) for reason in reasons if reason is not None)
    lines = [f"{count:7,}  {reason}" for reason, count in counts.most_common(_MAX_REASONS)]
    others = sum(counts.values()) - sum(count for _, count in counts.most_common(_MAX_REASONS))
    return [*lines, f"{others:7,}  other reasons"] if others else lines


def check_refusals(
    inputs: Sequence[Input], reasons: Sequence[str | None], max_refused: float
) -> None:
    """Check that enough inputs of a batch are accepted.

    Args:
        max_refused: Largest fraction of refused inputs; 1 accepts any batch.

    Raises:
        TooManyRefusedError: More than `max_refused` of the inputs are refused, no input is
            accepted, or no input of a class that the layout states.
    """
    if max_refused >= 1:
        return
    num_refused = sum(reason is not None for reason in reasons)
    if not inputs or num_refused > max_refused * len(inputs) or num_refused == len(inputs):
        percent = f"{num_refused / len(inputs):.0%}" if inputs else "all"
        raise TooManyRefusedError(
            f"{num_refused} of {len(inputs)} inputs are refused ({percent}), and data.max_refused "
            f"allows {max_refused:.0%}; no batch is written. Correct the data, or set "
            "data.max_refused=1 to keep the rest"
        )
    accepted = {item.label for item, reason in zip(inputs, reasons, strict=True) if reason is None}
    lost = sorted({item.label for item in inputs if item.label} - accepted)
    if lost:
        raise TooManyRefusedError(
            f"all inputs of class {', '.join(lost)} are refused; no batch is written. Correct the "
            "data, or set data.max_refused=1 to keep the rest"
        )

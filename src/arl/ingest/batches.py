"""Read the inputs of a source into one batch."""

from dataclasses import dataclass

from arl.corpus.record import Input
from arl.corpus.shard_writer import BatchWriter, DuplicateIdError
from arl.ingest.thinning import WHOLE
from arl.ingest.workers import outcomes
from arl.progress import progress
from arl.settings import Thinning


@dataclass(frozen=True)
class InputResult:
    """How an input ended.

    Attributes:
        reason: Why it is refused; None if it is accepted.
        label_rows: Rows of a label table that its images join.
    """

    reason: str | None
    label_rows: frozenset[str] = frozenset()


def write_inputs(
    inputs: list[Input],
    writer: BatchWriter,
    workers: int = 0,
    *,
    thinning: Thinning = WHOLE,
    seconds: float = 0,
) -> list[InputResult]:
    """Read every input, in order, and end each as accepted images or as a refusal.

    Args:
        workers: Processes that decode and encode; 0 for this process. The batch does not depend on
            their number.
        thinning: Which frames of clips are kept; the others are counted.
        seconds: Time limit of one input, which needs workers; 0 for none.

    Returns:
        The result of each input, in order.
    """
    writer.expect(len(inputs))
    results: list[InputResult] = []
    read = outcomes(inputs, writer.store_size, workers, thinning=thinning, seconds=seconds)
    with progress(len(inputs), "ingest", "input") as bar:
        for item, outcome in zip(inputs, read, strict=True):
            bar.update()
            if isinstance(outcome, str):
                writer.refuse(item.name, outcome)
                results.append(InputResult(outcome))
                continue
            try:
                for stored, entry in outcome.images:
                    writer.append(stored, entry, item.name)
            except DuplicateIdError:
                reason = "an image with this id was accepted before"
                results.append(InputResult(reason))
                writer.refuse(item.name, reason)
            else:
                rows = {code for _, entry in outcome.images for code in entry.label_rows}
                results.append(InputResult(None, frozenset(rows)))
                writer.thin(outcome.thinned)
                writer.drop_blank(outcome.blank)
    return results

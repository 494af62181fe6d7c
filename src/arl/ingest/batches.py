"""Read the inputs of a source into one batch."""

from arl.corpus.record import Input
from arl.corpus.shard_writer import BatchWriter, DuplicateIdError
from arl.ingest.thinning import WHOLE
from arl.ingest.workers import outcomes
from arl.progress import progress
from arl.settings import Thinning


def write_inputs(
    inputs: list[Input],
    writer: BatchWriter,
    workers: int = 0,
    *,
    thinning: Thinning = WHOLE,
    seconds: float = 0,
) -> list[str | None]:
    """Read every input, in order, and end each as accepted images or as a refusal.

    Args:
        workers: Processes that decode and encode; 0 for this process. The batch does not depend on
            their number.
        thinning: Which frames of clips are kept; the others are counted.
        seconds: Time limit of one input, which needs workers; 0 for none.

    Returns:
        For each input, why it is refused, or None if it is accepted.
    """
    writer.expect(len(inputs))
    reasons: list[str | None] = []
    results = outcomes(inputs, writer.store_size, workers, thinning=thinning, seconds=seconds)
    with progress(len(inputs), "ingest", "input") as bar:
        for item, outcome in zip(inputs, results, strict=True):
            bar.update()
            if isinstance(outcome, str):
                writer.refuse(item.name, outcome)
                reasons.append(outcome)
                continue
            try:
                for stored, entry in outcome.images:
                    writer.append(stored, entry, item.name)
            except DuplicateIdError:
                reasons.append("an image with this id was accepted before")
                writer.refuse(item.name, "an image with this id was accepted before")
            else:
                reasons.append(None)
                writer.thin(outcome.thinned)
                writer.drop_blank(outcome.blank)
    return reasons

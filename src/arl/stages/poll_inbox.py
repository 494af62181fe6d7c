"""See whether the monitoring loop has anything to do, without reading a file of a batch."""

import time
from pathlib import Path

from arl.ingest.inbox import list_batches
from arl.monitoring.journal import (
    Journal,
    answered_runs,
    cooldown_end,
    handled_fingerprints,
    waiting,
)
from arl.monitoring.runs import current
from arl.params import Params


def poll_inbox(params: Params, inbox: str, *, monitor: str) -> bool:
    """See whether the monitoring loop has anything to do.

    Reads names, sizes and times of the inbox, and the log of the loop; writes nothing. There is
    something to do where a run was interrupted or is to be retried, a complete batch is new, or
    batches wait for a cool-down that has ended.

    Args:
        inbox: A folder or s3://bucket/prefix with <site>/<batch>/ folders.
        monitor: Folder of the loop's state and log, which the first batch makes.

    Raises:
        FileNotFoundError: there is no inbox.
    """
    folder = Path(monitor)
    entries = Journal(folder).entries()
    if current(folder) is not None or answered_runs(entries):
        return True
    handled = handled_fingerprints(entries)
    for batch in list_batches(inbox, params.watch.settle_seconds, time.time()):
        if not batch.incomplete_reason and batch.fingerprint not in handled:
            return True
    # Nothing else starts a run when a cool-down ends: no file arrives.
    until = cooldown_end(entries, params.watch.cooldown_hours)
    is_over = until is None or time.time() >= until.timestamp()
    return is_over and "cooling-down" in waiting(entries).values()

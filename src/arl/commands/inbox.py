"""List the batches of an inbox with their names in the log."""

import time

from arl.ingest.inbox import list_batches
from arl.params import Params


def inbox(params: Params, folder: str) -> None:
    """List the batches of an inbox with their names in the log.

    The log and the pages name a batch by its site and a hash, since the name of its folder is the
    sender's choice and may be a patient's. This command prints both, for the hospital's own eyes.

    Args:
        folder: A folder or s3://bucket/prefix with <site>/<batch>/ folders.

    Examples:
        arl inbox /srv/inbox
    """
    for batch in list_batches(folder, params.watch.settle_seconds, time.time()):
        state = batch.problem or batch.incomplete_reason or "complete"
        print(f"{batch.alias}  {batch.name}  {batch.num_files} files  {state}")

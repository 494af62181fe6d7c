"""The split of arriving batches: they train, and they never judge."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from arl.corpus.batch_summary import BatchSummary
from arl.corpus.splits import SPLIT_SCHEMA
from arl.files import atomic_file


def train_only(batch: Path) -> None:
    """Put every row of a batch into the training split of all of its protocols.

    The sender's table may name a split. A sender that chose the test images would choose the
    verdict of the gate. Images enter a test set only through `arl testset add`.

    Args:
        batch: folder of the batch, which is not part of the corpus yet.
    """
    summary = BatchSummary.read(batch)
    splits = {}
    for file in sorted((batch / "splits").glob("*.parquet")):
        ids = pq.read_table(file)["id"].to_pylist()
        table = pa.table([ids, ["train"] * len(ids)], schema=SPLIT_SCHEMA)
        with atomic_file(file) as partial:
            pq.write_table(table, partial)
        splits[file.stem] = dict.fromkeys(summary.splits[file.stem], 0) | {"train": len(ids)}
    # The summary states the splits too, and both must agree or the validation refuses the batch.
    replace(summary, splits=splits).write(batch)

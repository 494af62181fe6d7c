"""The fan-out of the first step: one pod for each batch, or part of one, that is to be read into the corpus.

A pipeline of its own inside the others, because what comes after a loop of unknown length, perhaps
of none, can only
wait for a pipeline: kfp.local fails on results collected from an empty loop, and Kubeflow's server
on a task that waits for one (kubeflow/pipelines#10050).
"""

from kfp import dsl

from components.data import ingest
from pipelines.cluster import parallel, place


@dsl.pipeline(name="ingest-batches")
def ingest_batches(batches: list, corpus: str, overrides: list):
    """Read each of `batches`, a list of {source, root, batch, part, options}: options as `arl ingest` takes them."""
    with dsl.ParallelFor(batches, name="each-batch", parallelism=parallel("batches")) as item:
        read = ingest(
            source=item.source,
            root=item.root,
            batch=item.batch,
            part=item.part,
            options=item.options,
            corpus=corpus,
            overrides=overrides,
        )
        # a kept batch costs a listing of its inputs; the cache could not tell that a volume was
        # emptied
        place(read, "ingest").set_caching_options(False)

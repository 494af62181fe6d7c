"""The first fan-out: one pod for each batch, or part of one, that is read into the corpus.

It is a pipeline inside the others because only a pipeline can be waited for after a loop that may
be empty: kfp.local fails on results collected from an empty loop, and Kubeflow's server on a task
that waits for one (kubeflow/pipelines#10050).
"""

from kfp import dsl

from components.data import ingest
from pipelines.cluster import configure_task
from pipelines.settings import parallelism


@dsl.pipeline(name="ingest-batches")
def ingest_batches(batches: list, corpus: str, overrides: list):
    """Read batches into the corpus.

    Args:
        batches: a list of {source, root, batch, part, options}, as `arl run --batches` makes it.
        corpus: folder or s3://BUCKET/PREFIX.
        overrides: words key=value that change params.yaml.
    """
    with dsl.ParallelFor(batches, name="each-batch", parallelism=parallelism("batches")) as item:
        read = ingest(
            source=item.source,
            root=item.root,
            batch=item.batch,
            part=item.part,
            options=item.options,
            corpus=corpus,
            overrides=overrides,
        )
        # Without a cache a kept batch costs a listing of its inputs. The cache could not tell that
        # someone emptied the volume.
        configure_task(read, "ingest")

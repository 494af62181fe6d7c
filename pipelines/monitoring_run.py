"""One monitoring run: from a batch in the inbox to a decision, and to a training where it asks.

It is a pipeline inside arl_monitor so that its exit handler runs only where there is a batch.
"""

from kfp import dsl

from components.monitoring import close_run, compare, decide, take_batch

# the module, because a file that is compiled may hold one pipeline only
from pipelines import arl_full
from pipelines.cluster import configure_task


@dsl.pipeline(name="monitoring-run")
def monitoring_run(
    tasks: list, overrides: list, inbox: str, corpus: str, registry: str, monitor: str, owner: str
):
    """Take a batch, compare it, decide, and train where the decision is retrain.

    Args:
        tasks: diagnostic tasks to fine-tune.
        overrides: words that change parameters.
        inbox: folder, or s3://BUCKET/PREFIX.
        corpus: folder of the corpus.
        registry: folder of the model registry, or s3://BUCKET/PREFIX.
        monitor: folder of the loop.
        owner: the Kubeflow run that carries this monitoring run out.
    """
    lease = {"monitor": monitor, "owner": owner, "overrides": overrides}
    closed = close_run(corpus=corpus, registry=registry, **lease)
    configure_task(closed, "close_run")
    with dsl.ExitHandler(closed):
        taken = configure_task(take_batch(inbox=inbox, corpus=corpus, **lease), "take_batch")
        with dsl.If(taken.output == "arrived"):
            compared = compare(
                corpus=corpus, registry=registry, monitor=monitor, overrides=overrides
            )
            configure_task(compared, "compare")
            decided = configure_task(decide(corpus=corpus, **lease), "decide").after(compared)
            with dsl.If(decided.outputs["Output"] == "retrain"):
                arl_full.arl_full(
                    tasks=tasks,
                    overrides=overrides,
                    corpus=corpus,
                    registry=registry,
                    monitor=monitor,
                    owner=owner,
                )

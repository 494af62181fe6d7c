"""The loop on arriving data as one Kubeflow pipeline, to be run again and again: `arl schedule` makes it recurring.

The same steps as `arl watch`, on the shared volume; the training is the whole of arl_full.py. An
interrupted run is gone on with by the next one, and a second one that starts meanwhile is told so
(watch.lease_hours).
"""

import sys
from pathlib import Path

from kfp import dsl

# `kfp dsl compile --py` puts only this folder on the module path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.monitoring import close_run, compare, decide, take_batch
from pipelines import (
    arl_full,  # the module, since a file that is compiled may hold one pipeline only
)
from pipelines.cluster import place, stored


@dsl.pipeline(
    name="arl-monitor",
    description="From a batch in the inbox to a decision, and to a gated release",
)
def arl_monitor(
    tasks: list,
    overrides: list = [],  # noqa: B006  KFP reads the default and never shares it
    inbox: str = stored("inbox"),
    corpus: str = stored("data"),
    registry: str = stored("registry"),
    monitor: str = stored("monitor"),
):
    """One complete batch of the inbox, a folder or s3://bucket/prefix, is carried through to its end.

    No step is taken from the cache: what each one does depends on the folders, and is not done
        twice by itself.
    """
    mine = {"monitor": monitor, "owner": dsl.PIPELINE_JOB_NAME_PLACEHOLDER, "overrides": overrides}
    folders = {"corpus": corpus, "monitor": monitor, "overrides": overrides}
    concluded = place(
        close_run(corpus=corpus, registry=registry, **mine), "close_run"
    ).set_caching_options(False)
    with dsl.ExitHandler(concluded):
        arrived = place(
            take_batch(inbox=inbox, corpus=corpus, **mine), "take_batch"
        ).set_caching_options(False)
        with dsl.If(arrived.output == "arrived"):
            compared = place(compare(registry=registry, **folders), "compare").set_caching_options(
                False
            )
            decided = place(decide(**folders), "decide").set_caching_options(False).after(compared)
            with dsl.If(decided.output == "retrain"):
                arl_full.arl_full(
                    data_hash="", tasks=tasks, overrides=overrides, corpus=corpus, registry=registry
                )


if __name__ == "__main__":
    from arl.cli import main

    sys.exit(main(["run", __file__, *sys.argv[1:]]))

"""The loop on arriving data as a Kubeflow pipeline; `arl schedule` makes it a recurring run.

It runs the same steps as `arl watch`, on the shared volume, and trains with the whole of
arl_full.py. A later run resumes an interrupted one; a concurrent run leaves it alone for
watch.lease_hours.
"""

import sys
from pathlib import Path

from kfp import dsl

# `kfp dsl compile --py` puts only this folder on the module path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.monitoring import poll_inbox

# the module, because a file that is compiled may hold one pipeline only
from pipelines import monitoring_run
from pipelines.cluster import configure_task
from pipelines.defaults import default_tasks
from pipelines.settings import storage_path


@dsl.pipeline(
    name="arl-monitor",
    description="From a batch in the inbox to a decision, and to a gated release",
)
def arl_monitor(
    tasks: list = default_tasks(),  # noqa: B008  KFP compiles the default in
    overrides: list = [],  # noqa: B006  KFP reads the default and never shares it
    inbox: str = storage_path("inbox"),
    corpus: str = storage_path("data"),
    registry: str = storage_path("registry"),
    monitor: str = storage_path("monitor"),
):
    """Process one complete batch of the inbox, if there is one.

    No step of the loop is cached, because its result depends on the folders. A step whose result is
    there does not run again.

    Args:
        tasks: diagnostic tasks to fine-tune, e.g. ["breast", "lv"].
        overrides: words that change parameters, e.g. ["watch.cooldown_hours=24"].
        inbox: folder in which batches arrive, or s3://BUCKET/PREFIX.
        corpus: folder of the corpus.
        registry: folder of the model registry, or s3://BUCKET/PREFIX.
        monitor: folder of the loop: its log, its runs and their pages.
    """
    polled = poll_inbox(inbox=inbox, monitor=monitor, overrides=overrides)
    configure_task(polled, "poll_inbox")
    with dsl.If(polled.output == "waiting"):
        monitoring_run.monitoring_run(
            tasks=tasks,
            overrides=overrides,
            inbox=inbox,
            corpus=corpus,
            registry=registry,
            monitor=monitor,
            # The run's id. Its name is empty in a recurring run and not unique in others.
            owner=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        )


if __name__ == "__main__":
    from arl.cli import main

    sys.exit(main(["run", __file__, *sys.argv[1:]]))

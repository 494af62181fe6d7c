"""Steps that watch arriving data."""

from kfp import dsl

from components import step


@step("monitor")
def drift(
    corpus: str,
    data_hash: str,
    code_version: str,
    overrides: list,
    checkpoint: dsl.Input[dsl.Model],
    drift: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    scores: dsl.Output[dsl.Metrics],
):
    """Compare the newest batches with the reference corpus."""
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch("drift", overrides, corpus=corpus, checkpoint=checkpoint.path, drift=drift.path)
    artifacts.copy_page(drift.path, page.path)
    artifacts.log_drift(scores, drift.path)


@step("data")
def poll_inbox(inbox: str, monitor: str, overrides: list) -> str:
    """Look for a batch or an interrupted run; returns waiting or nothing.

    Most runs of the monitor end here, so this step reads names only and imports little.
    """
    from arl.cli import call

    return "waiting" if call("poll_inbox", overrides, inbox=inbox, monitor=monitor) else "nothing"


@step("data")
def take_batch(inbox: str, corpus: str, monitor: str, owner: str, overrides: list) -> str:
    """Take the next complete batch, or resume an interrupted run; returns arrived or nothing."""
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch("take_batch", overrides, inbox=inbox, corpus=corpus, monitor=monitor, owner=owner)
    return "arrived" if artifacts.open_run(monitor, owner) else "nothing"


@step("monitor")
def compare(corpus: str, registry: str, monitor: str, overrides: list):
    """Compare the batch with the champion's training data."""
    from arl.launch.stage import launch

    launch("compare", overrides, corpus=corpus, registry=registry, monitor=monitor)


@step("data")
def decide(
    corpus: str, monitor: str, owner: str, overrides: list, page: dsl.Output[dsl.HTML]
) -> str:
    """Decide what the batch asks for and record the decision.

    Returns retrain, no-drift, too-few, cooling-down or refused.
    """
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch("decide", overrides, corpus=corpus, monitor=monitor)
    return artifacts.describe_monitoring(artifacts.open_run(monitor, owner), page.path)


@step("train")
def close_run(corpus: str, registry: str, monitor: str, owner: str, overrides: list):
    """Record the outcome of the monitoring run, also after a failed step, and write its pages.

    Kubeflow's status of the pipeline is no input: an exit handler reads RUNNING where a condition
    was not met, and never SUCCEEDED (kubeflow/pipelines 2.17.0, backend/src/v2/driver/resolve.go).
    """
    from arl.launch import artifacts
    from arl.launch.stage import launch

    error, outage, verdict = artifacts.outcome_of_run(monitor, owner)
    launch(
        "close_run",
        overrides,
        corpus=corpus,
        registry=registry,
        monitor=monitor,
        verdict=verdict,
        error=error,
        outage=outage,
        owner=owner,
    )

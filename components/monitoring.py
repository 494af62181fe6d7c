"""Steps that need the monitor image."""

from kfp import dsl

from components import step


@step("monitor")
def drift(
    corpus: str,
    data_hash: str,
    overrides: list,
    checkpoint: dsl.Input[dsl.Model],
    drift: dsl.Output[dsl.Artifact],
):
    """Compare the newest batches with the reference corpus."""
    from arl.cli import call

    call("drift", overrides, corpus=corpus, checkpoint=checkpoint.path, drift=drift.path)


@step("data")
def take_batch(inbox: str, corpus: str, monitor: str, owner: str, overrides: list) -> str:
    """Take the next complete batch in, or go on with one that was left; returns arrived or nothing."""
    from pathlib import Path

    from arl.cli import call
    from arl.files import read_json

    call("take_batch", overrides, inbox=inbox, corpus=corpus, monitor=monitor, owner=owner)
    under_way = Path(monitor) / "open.json"
    return (
        "arrived" if under_way.is_file() and read_json(under_way)["owner"] == owner else "nothing"
    )


@step("monitor")
def compare(corpus: str, registry: str, monitor: str, overrides: list):
    """Compare the batch with what the champion was trained on."""
    from arl.cli import call

    call("compare", overrides, corpus=corpus, registry=registry, monitor=monitor)


@step("data")
def decide(corpus: str, monitor: str, overrides: list) -> str:
    """Decide what the batch asks for and keep it; returns retrain, no-drift, too-few, cooling-down or refused."""
    from pathlib import Path

    from arl.cli import call
    from arl.files import read_json

    call("decide", overrides, corpus=corpus, monitor=monitor)
    run = read_json(Path(monitor) / "open.json")["name"]
    return read_json(Path(monitor) / "runs" / run / "decision.json")["decision"]["word"]


@step("train")
def close_run(
    status: dsl.PipelineTaskFinalStatus,
    corpus: str,
    registry: str,
    monitor: str,
    owner: str,
    overrides: list,
):
    """Write down what came of the run, also where a step failed, and its pages."""
    from arl.cli import call

    error = (
        ""
        if status.state == "SUCCEEDED"
        else status.error_message or f"the pipeline ended as {status.state}"
    )
    call(
        "close_run",
        overrides,
        corpus=corpus,
        registry=registry,
        monitor=monitor,
        verdict=None,
        error=error,
        outage="",
        owner=owner,
    )

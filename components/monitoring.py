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

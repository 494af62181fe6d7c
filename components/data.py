"""Steps that need the data image."""

from kfp import dsl

from components import step


@step("data")
def validate(corpus: str, data_hash: str, overrides: list, validation: dsl.Output[dsl.Artifact]):
    """Check the corpus' manifest against its expectations; a critical failure stops the pipeline."""
    from arl.cli import call

    call("validate", overrides, corpus=corpus, validation=validation.path)

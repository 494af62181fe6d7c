"""Steps that need the data image."""

from kfp import dsl

from components import step


@step("data")
def ingest(
    source: str, root: str, batch: str, part: str, options: dict, corpus: str, overrides: list
):
    """Read one part of a dataset or drop into a batch of the corpus; a batch that is there is kept."""
    from arl.cli import call

    call(
        "ingest",
        overrides,
        source=source,
        root=root,
        corpus=corpus,
        batch=batch,
        name=options.get("name"),
        site=options.get("site"),
        anatomy=options.get("anatomy"),
        probe=options.get("probe"),
        device=options.get("device"),
        mask_name=options.get("mask_name"),
        part=part,
        existing="keep",
    )


@step("data")
def validate(
    corpus: str, data_hash: str, overrides: list, validation: dsl.Output[dsl.Artifact]
) -> str:
    """Check the corpus against its rules, a critical failure stops the pipeline; returns the version it has seen."""
    from pathlib import Path

    from arl.cli import call
    from arl.files import read_json

    call("validate", overrides, corpus=corpus, validation=validation.path)
    return f"{data_hash}-{read_json(Path(validation.path) / 'result.json')['corpus_version']}"

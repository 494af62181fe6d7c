"""Steps that run in the data image."""

from kfp import dsl

from components import step


@step("data")
def ingest(
    source: str, root: str, batch: str, part: str, options: dict, corpus: str, overrides: list
):
    """Read one part of a dataset into a batch of the corpus; an existing batch is kept."""
    from arl.launch.stage import launch

    launch(
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
        # a retried pod finds the batch of its first try
        existing="keep",
        retry_refused=False,
    )


@step("data")
def validate(
    corpus: str,
    data_hash: str,
    overrides: list,
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    dataset: dsl.Output[dsl.Dataset],
) -> str:
    """Check the corpus against its rules; returns the version of the data.

    The step ends well where the corpus breaks a rule, because Kubeflow uploads nothing of a step
    that fails. `accept` then stops the pipeline.
    """
    from pathlib import Path

    from arl.launch.artifacts import copy_page
    from arl.launch.corpus_artifacts import describe_dataset
    from arl.launch.stage import launch

    try:
        launch("validate", overrides, corpus=corpus, validation=validation.path)
    except (RuntimeError, ValueError):
        # the stage writes its result before it refuses the corpus
        if not (Path(validation.path) / "result.json").is_file():
            raise
    copy_page(validation.path, page.path)
    return describe_dataset(dataset, validation.path, corpus, data_hash)


@step("data")
def accept(validation: dsl.Input[dsl.Artifact], data_version: str) -> str:
    """Stop the pipeline where the corpus breaks a critical rule; returns the version of the data.

    The page of the step validate shows what is wrong.
    """
    from arl.launch.corpus_artifacts import require_accepted

    require_accepted(validation.path)
    return data_version

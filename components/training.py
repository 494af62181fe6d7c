"""Steps that need the train image."""

from kfp import dsl

from components import step


@step("train")
def pretrain(
    corpus: str,
    data_hash: str,
    overrides: list,
    checkpoint: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Artifact],
):
    """Pretrain the encoder on the corpus, on as many GPUs and nodes as the step was given."""
    from arl.launch.stage import launch

    launch(
        "pretrain",
        overrides,
        data_hash,
        corpus=corpus,
        checkpoint=checkpoint.path,
        metrics=metrics.path,
    )


@step("train")
def finetune(
    task: str,
    corpus: str,
    data_hash: str,
    overrides: list,
    checkpoint: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
):
    """Fine-tune the encoder for one diagnostic task, on as many GPUs as the step was given."""
    from arl.launch.stage import launch

    launch(
        "finetune",
        overrides,
        data_hash,
        task=task,
        corpus=corpus,
        checkpoint=checkpoint.path,
        model=model.path,
    )


@step("train")
def evaluate(
    task: str,
    corpus: str,
    data_hash: str,
    overrides: list,
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
):
    """Evaluate one task's model on its test split."""
    from arl.cli import call

    call(
        "evaluate",
        overrides,
        task=task,
        corpus=corpus,
        model=model.path,
        evaluation=evaluation.path,
    )

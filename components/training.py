"""Steps that train and measure models."""

from kfp import dsl

from components import step


@step("train")
def pretrain(
    corpus: str,
    data_hash: str,
    code_version: str,
    overrides: list,
    checkpoint: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Artifact],
    scores: dsl.Output[dsl.Metrics],
):
    """Pretrain the encoder on the corpus, on all GPUs and nodes of the step."""
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch(
        "pretrain",
        overrides,
        data_hash,
        corpus=corpus,
        checkpoint=checkpoint.path,
        metrics=metrics.path,
    )
    artifacts.describe_model(checkpoint, "pretraining", data_hash, code_version)
    artifacts.log_pretraining(scores, metrics.path)


@step("train")
def finetune(
    task: str,
    corpus: str,
    data_hash: str,
    code_version: str,
    overrides: list,
    checkpoint: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
):
    """Fine-tune the encoder for one diagnostic task, on all GPUs of the step."""
    from arl.launch import artifacts
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
    artifacts.describe_model(model, task, data_hash, code_version)


@step("train")
def evaluate(
    task: str,
    corpus: str,
    data_hash: str,
    code_version: str,
    overrides: list,
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    scores: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
):
    """Measure the model of one task on its test split."""
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch(
        "evaluate",
        overrides,
        task=task,
        corpus=corpus,
        model=model.path,
        evaluation=evaluation.path,
    )
    artifacts.log_evaluation(scores, evaluation.path)
    artifacts.log_classification(classification, evaluation.path)

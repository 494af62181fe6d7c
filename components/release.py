"""Steps that judge and publish models, and report on a run."""

from kfp import dsl

from components import step


@step("train")
def gate(
    corpus: str,
    data_hash: str,
    overrides: list,
    registry: str,
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    decision: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> str:
    """Compare the new models with the champion; returns promote, reject or inconclusive."""
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch(
        "gate",
        overrides,
        corpus=corpus,
        models=[model.path for model in models],
        evaluations=[evaluation.path for evaluation in evaluations],
        registry=registry,
        decision=decision.path,
    )
    artifacts.copy_page(decision.path, page.path)
    return artifacts.describe_decision(decision, data_hash)


@step("train")
def release(
    overrides: list,
    registry: str,
    data_hash: str,
    monitor: str,
    owner: str,
    decision: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Input[dsl.Model],
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    receipt: dsl.Output[dsl.Artifact],
    released: dsl.Output[dsl.Model],
):
    """Put promoted models into the registry and make them the champion.

    The receipt says what was done. In a monitoring run, copies of receipt and decision go into the
    folder of the run, by which `close_run` knows that the training ended well.
    """
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch(
        "release",
        overrides,
        decision=decision.path,
        checkpoint=checkpoint.path,
        models=[model.path for model in models],
        evaluations=[evaluation.path for evaluation in evaluations],
        registry=registry,
        receipt=receipt.path,
    )
    # after the release: the receipt names the version
    artifacts.describe_release(released, decision.path, receipt.path, registry, data_hash)
    artifacts.keep_outcome(monitor, owner, decision.path, receipt.path)


@step("train")
def report(
    corpus: str,
    data_hash: str,
    overrides: list,
    validation: dsl.Input[dsl.Artifact],
    metrics: dsl.Input[dsl.Artifact],
    evaluations: dsl.Input[list[dsl.Artifact]],
    decision: dsl.Input[dsl.Artifact],
    receipt: dsl.Input[dsl.Artifact],
    drift: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
):
    """Write the page that reports on the whole run."""
    from arl.launch import artifacts
    from arl.launch.stage import launch

    launch(
        "report",
        overrides,
        corpus=corpus,
        validation=validation.path,
        metrics=metrics.path,
        evaluations=[evaluation.path for evaluation in evaluations],
        decision=decision.path,
        receipt=receipt.path,
        drift=drift.path,
        report=report.path,
    )
    artifacts.copy_page(report.path, page.path)

"""Steps that judge, publish and tell."""

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
) -> str:
    """Compare the new models with the champion; returns promote, reject or inconclusive."""
    from pathlib import Path

    from arl.cli import call
    from arl.files import read_json

    call(
        "gate",
        overrides,
        corpus=corpus,
        models=[model.path for model in models],
        evaluations=[evaluation.path for evaluation in evaluations],
        registry=registry,
        decision=decision.path,
    )
    return read_json(Path(decision.path) / "decision.json")["verdict"]


@step("train")
def release(
    overrides: list,
    registry: str,
    decision: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Input[dsl.Model],
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    receipt: dsl.Output[dsl.Artifact],
):
    """Put promoted models into the registry and move the champion pointer; the receipt says what was done."""
    from arl.cli import call

    call(
        "release",
        overrides,
        decision=decision.path,
        checkpoint=checkpoint.path,
        models=[model.path for model in models],
        evaluations=[evaluation.path for evaluation in evaluations],
        registry=registry,
        receipt=receipt.path,
    )


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
):
    """Write the one page that tells what happened."""
    from arl.cli import call

    call(
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

"""The whole of ARL as one Kubeflow pipeline.

Ingest, validate, pretrain, fine-tune and evaluate tasks, gate, release, report. This file is wiring
only; dvc.yaml wires the same stages for one machine, and tests/test_wiring.py compares the two.
"""

import sys
from pathlib import Path

from kfp import dsl

# `kfp dsl compile --py` puts only this folder on the module path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.data import accept, validate
from components.monitoring import drift
from components.release import gate, release, report
from components.training import evaluate, finetune, pretrain
from components.version import code_version

# the module, because a file that is compiled may hold one pipeline only
from pipelines import ingest
from pipelines.cluster import configure_task
from pipelines.defaults import default_tasks
from pipelines.settings import parallelism, storage_path


@dsl.pipeline(name="arl-full", description="From new batches to a gated release and its report")
def arl_full(
    tasks: list = default_tasks(),  # noqa: B008  KFP compiles the default in
    data_hash: str = "",
    overrides: list = [],  # noqa: B006  KFP reads the default and never shares it
    batches: list = [],  # noqa: B006
    corpus: str = storage_path("data"),
    registry: str = storage_path("registry"),
    monitor: str = "",
    owner: str = "",
) -> str:
    """Train, evaluate, gate and release; returns promote, reject or inconclusive.

    Corpus and registry are folders that every step sees, because they are too big to be copied as
    artifacts. Kubeflow's cache does not look into folders, so each cached step gets the version of
    the corpus that `validate` read, and the version of the code.

    Args:
        tasks: diagnostic tasks to fine-tune, e.g. ["breast", "lv"].
        data_hash: hash of the corpus in data.dvc. Empty: the version that validate reads is enough.
        overrides: words that change parameters, e.g. ["pretrain.epochs=5"].
        batches: batches to ingest first, as {source, root, batch, part, options}. Empty: none.
        corpus: folder of the corpus, or s3://BUCKET/PREFIX.
        registry: folder of the model registry, or s3://BUCKET/PREFIX.
        monitor: folder of the monitoring loop that started this training. Empty: none did.
        owner: run that carries out the monitoring run. Empty: none.
    """
    ingested = ingest.ingest_batches(batches=batches, corpus=corpus, overrides=overrides)
    validated = validate(corpus=corpus, data_hash=data_hash, overrides=overrides).after(ingested)
    configure_task(validated, "validate")
    accepted = accept(
        validation=validated.outputs["validation"], data_version=validated.outputs["Output"]
    )
    configure_task(accepted, "accept")
    data = {"corpus": corpus, "data_hash": accepted.output, "overrides": overrides}
    versions = {**data, "code_version": code_version()}

    pretrained = configure_task(pretrain(**versions), "pretrain", cached=True)
    checkpoint = pretrained.outputs["checkpoint"]
    drifted = configure_task(drift(checkpoint=checkpoint, **versions), "drift", cached=True)

    with dsl.ParallelFor(tasks, name="each-task", parallelism=parallelism("tasks")) as task:
        finetuned = finetune(task=task, checkpoint=checkpoint, **versions)
        configure_task(finetuned, "finetune", cached=True)
        evaluated = evaluate(task=task, model=finetuned.outputs["model"], **versions)
        configure_task(evaluated, "evaluate", cached=True)

    # the compiler changes a Collected where it is used, so each use needs its own
    def models() -> dsl.Collected:
        return dsl.Collected(finetuned.outputs["model"])

    def evaluations() -> dsl.Collected:
        return dsl.Collected(evaluated.outputs["evaluation"])

    judged = gate(models=models(), evaluations=evaluations(), registry=registry, **data)
    configure_task(judged, "gate")
    decision = judged.outputs["decision"]

    # No dsl.If here: release reads the decision itself, as it does under DVC, and its receipt says
    # what it did. kfp 2.17 cannot take collected artifacts into a condition.
    released = release(
        models=models(),
        evaluations=evaluations(),
        decision=decision,
        checkpoint=checkpoint,
        registry=registry,
        overrides=overrides,
        data_hash=accepted.output,
        monitor=monitor,
        owner=owner,
    )
    configure_task(released, "release")

    reported = report(
        validation=validated.outputs["validation"],
        metrics=pretrained.outputs["metrics"],
        evaluations=evaluations(),
        decision=decision,
        receipt=released.outputs["receipt"],
        drift=drifted.outputs["drift"],
        **data,
    )
    configure_task(reported, "report")
    return judged.outputs["Output"]


if __name__ == "__main__":
    from arl.cli import main

    sys.exit(main(["run", __file__, *sys.argv[1:]]))

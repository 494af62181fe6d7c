"""The whole of ARL as one Kubeflow pipeline: ingest, validate, pretrain, finetune and evaluate tasks, gate, release.

It is wiring only; dvc.yaml wires the same stages for one machine, and tests/test_wiring.py keeps
the two in step.
"""

import sys
from pathlib import Path

from kfp import dsl

# `kfp dsl compile --py` puts only this folder on the module path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.data import validate
from components.monitoring import drift
from components.release import gate, release, report
from components.training import evaluate, finetune, pretrain
from pipelines import ingest  # the module, since a file that is compiled may hold one pipeline only
from pipelines.cluster import parallel, place, stored


@dsl.pipeline(name="arl-full", description="From new batches to a gated release and its report")
def arl_full(
    data_hash: str,
    tasks: list,
    overrides: list = [],  # noqa: B006  KFP reads the default and never shares it
    batches: list = [],  # noqa: B006
    corpus: str = stored("data"),
    registry: str = stored("registry"),
) -> str:
    """Returns the gate's verdict: promote, reject or inconclusive.

    `batches` are read into the corpus first; without any it is taken as it is. The corpus and the
    registry are folders that every step sees, since they are too big to be copied around as
    artifacts. KFP's execution cache does not look
    into folders: the steps after validate get the version of the corpus that it has read (and
        `data_hash`, the one in data.dvc). Ingest and validate, and what depends on the registry,
        are never taken from the cache.
    """
    ingested = ingest.ingest_batches(batches=batches, corpus=corpus, overrides=overrides)
    validated = validate(corpus=corpus, data_hash=data_hash, overrides=overrides).after(ingested)
    place(validated, "validate").set_caching_options(False)
    data = {"corpus": corpus, "data_hash": validated.outputs["Output"], "overrides": overrides}
    pretrained = place(pretrain(**data), "pretrain")
    checkpoint = pretrained.outputs["checkpoint"]
    drifted = place(drift(checkpoint=checkpoint, **data), "drift")

    with dsl.ParallelFor(tasks, name="each-task", parallelism=parallel("tasks")) as task:
        finetuned = place(finetune(task=task, checkpoint=checkpoint, **data), "finetune")
        evaluated = place(evaluate(task=task, model=finetuned.outputs["model"], **data), "evaluate")

    # the compiler changes a Collected where it is used, so each use needs its own
    def models() -> dsl.Collected:
        return dsl.Collected(finetuned.outputs["model"])

    def evaluations() -> dsl.Collected:
        return dsl.Collected(evaluated.outputs["evaluation"])

    judged = gate(models=models(), evaluations=evaluations(), registry=registry, **data)
    place(judged, "gate").set_caching_options(False)
    decision = judged.outputs["decision"]

    # No dsl.If here: release reads the decision itself, as it does under DVC, and its receipt tells
    # the report what came of it. (kfp 2.17 cannot take collected artifacts into a condition:
    # docs/decisions.md.)
    released = release(
        models=models(),
        evaluations=evaluations(),
        decision=decision,
        checkpoint=checkpoint,
        registry=registry,
        overrides=overrides,
    )
    place(released, "release").set_caching_options(False)

    reported = report(
        validation=validated.outputs["validation"],
        metrics=pretrained.outputs["metrics"],
        evaluations=evaluations(),
        decision=decision,
        receipt=released.outputs["receipt"],
        drift=drifted.outputs["drift"],
        **data,
    )
    place(reported, "report").set_caching_options(False)
    return judged.outputs["Output"]


if __name__ == "__main__":
    from arl.cli import main

    sys.exit(main(["run", __file__, *sys.argv[1:]]))

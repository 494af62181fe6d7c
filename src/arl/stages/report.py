"""One page that tells what a run did and found."""

from pathlib import Path

from arl.corpus.checks.result import ValidationResult
from arl.corpus.location import ReadableCorpus
from arl.evaluation.decision import read_decision
from arl.evaluation.pretraining import PretrainingMetrics
from arl.evaluation.results import read_metrics
from arl.files import atomic_directory
from arl.monitoring.drift_result import DriftResult
from arl.params import Params
from arl.reports import run as run_page
from arl.reports.stamp import Stopwatch
from arl.storage.metadata import Receipt


def report(
    params: Params,
    *,
    corpus: ReadableCorpus,
    validation: Path,
    metrics: Path,
    evaluations: list[Path],
    decision: Path,
    receipt: Path,
    drift: Path,
    report: Path,
) -> None:
    """Write the report of a run: one page, with the pages of its stages beside it.

    The folder can be moved and opened anywhere.

    Args:
        corpus: Folder of the corpus, or s3://bucket/prefix.
        validation: Folder that `arl validate` wrote.
        metrics: The JSON file of `arl pretrain`.
        evaluations: Folders that `arl evaluate` wrote.
        decision: Folder that `arl gate` wrote.
        receipt: The JSON file of `arl release`.
        drift: Folder that `arl drift` wrote.
        report: Folder of the report.

    Writes:
        report
    """
    watch = Stopwatch("arl report")
    decided = read_decision(decision)
    measured = [(read_metrics(folder), folder) for folder in evaluations]
    # a former experiment may have left evaluations of tasks that this one does not have
    results_ = [
        (metrics_, folder) for metrics_, folder in measured if metrics_.task in params.tasks
    ]
    pretraining = PretrainingMetrics.read(metrics)
    results = run_page.RunResults(
        experiment=params.experiment,
        seed=params.seed,
        tasks=params.tasks,
        decision=decided,
        version=Receipt.read(receipt).version,
        evaluations=results_,
        validation=ValidationResult.read(validation / ValidationResult.FILE),
        history=pretraining.history,
        features=pretraining.features,
        drift=DriftResult.read(drift / "drift.json"),
    )
    with atomic_directory(report) as out:
        run_page.write_page(results, corpus, watch.stamp(corpus), out)
        run_page.copy_pages({"validation": validation, "decision": decision, "drift": drift}, out)

"""One page that tells what a run did and found."""

import shutil
from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.evaluation.decision import read_decision
from arl.evaluation.pretraining import PretrainingMetrics
from arl.evaluation.results import read_metrics
from arl.files import atomic_directory, read_json
from arl.params import Params
from arl.reports import run as run_page
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
    decided = read_decision(decision)
    measured = [(read_metrics(folder), folder) for folder in evaluations]
    # a former experiment may have left evaluations of tasks that this one does not have
    found = [(metrics_, folder) for metrics_, folder in measured if metrics_.task in params.tasks]
    with atomic_directory(report) as out:
        for name, folder in {
            "validation": validation,
            "decision": decision,
            "drift": drift,
        }.items():
            _copy_pages(folder, out / name)
        results = run_page.RunResults(
            experiment=params.experiment,
            seed=params.seed,
            tasks=params.tasks,
            decided=decided,
            receipt=Receipt.read(receipt),
            measured=found,
            validated=read_json(validation / "result.json"),
            pretraining=PretrainingMetrics.read(metrics),
            drift=read_json(drift / "drift.json"),
            has_evidently=(drift / "evidently.html").is_file(),
        )
        run_page.write_page(results, corpus, out)


def _copy_pages(folder: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(folder.glob("*.html")):
        shutil.copyfile(file, target / file.name)

"""Compare the batches of the monitoring run with what the champion was trained on."""

from dataclasses import replace
from pathlib import Path

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import batch_folders
from arl.corpus.selection import select
from arl.monitoring.journal import Journal, trained_on
from arl.monitoring.label_checks import LabelReport
from arl.monitoring.runs import Intake, Reference, Run, current, link_batches
from arl.params import Params
from arl.stages._label_checks import check_labels, with_group
from arl.stages.drift import drift
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def compare(params: Params, *, corpus: ReadableCorpus, registry: str, monitor: Path) -> None:
    """Compare the batches of the monitoring run with what the champion was trained on.

    Reads the run under way, the corpus and the champion; writes <monitor>/runs/<run>/drift, the
    folder of `arl drift`, and labels.json, the checks of the arriving labels. The reference is what
    the champion was
    trained on and no more, so that a shift in small steps is not learnt as normal. Does nothing for
    a refused batch, or if the comparison is there.

    Args:
        corpus: folder of the corpus.
        registry: folder or s3://bucket/prefix of the released models.
        monitor: folder of the loop's state and log.

    Raises:
        ValueError: the registry has no champion to compare with.
        FileNotFoundError: the corpus lacks a batch that the champion was trained on.

    Writes:
        monitor
    """
    run = current(monitor)
    if run is None or not Intake.read(run.folder / "intake.json").accepted:
        return
    labels, tested = run.folder / "labels.json", run.folder / "drift" / "drift.json"
    # A run that was interrupted between the two tests keeps the one that is done.
    if tested.is_file() and labels.is_file():
        return
    store = Registry(registry, keys_from_environment(params.release.signed))
    champion = store.champion()
    if champion is None:
        raise ValueError(
            f"registry {store.address} has no champion to compare new data with: "
            "train and release one first"
        )
    Reference(champion).write(run.folder / "reference.json")
    view = run.folder / "reference"
    # A corpus of links: the drift test reads exactly these batches, and nothing is copied.
    link_batches(corpus, _baseline(Journal(monitor), champion, corpus, run), view)
    link_batches(run.corpus, run.batches, view)
    release = store.fetch(champion)
    if not labels.is_file():
        _check_labels(params, view, run, release).write(labels)
    if not tested.is_file():
        chosen = replace(params, drift=replace(params.drift, batches=run.batches))
        drift(chosen, corpus=view, checkpoint=release / "encoder", drift=tested.parent)


def _check_labels(params: Params, view: Path, run: Run, release: Path) -> LabelReport:
    """Check the labels of the new batch; earlier batches passed the check, or a person did."""
    if run.new is None:
        return LabelReport()
    rows = with_group(select(view, sources=[], protocols=params.data.splits))
    is_new = (rows["source"] + "/" + rows["batch"] == run.new).to_numpy()
    return check_labels(params, rows, is_new, corpus=view, champion=release)


def _baseline(journal: Journal, champion: str, corpus: Path, run: Run) -> list[str]:
    """The batches that the champion was trained on.

    Where this loop did not release the champion, they are the batches of the corpus as it is now,
    and a log entry keeps them.
    """
    logged = trained_on(journal.entries(), champion)
    if logged is not None:
        return logged
    present = (folder.relative_to(corpus).as_posix() for folder in batch_folders(corpus))
    batches = [batch for batch in present if batch not in run.batches]
    words = [
        f"Release {champion} is in use and was not released by this loop: new data are compared "
        f"with the {len(batches)} other {'batch' if len(batches) == 1 else 'batches'} of the "
        "corpus as it is now."
    ]
    journal.append("baseline", words, champion=champion, trained_on=batches)
    return batches

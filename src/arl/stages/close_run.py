"""Write down what came of the monitoring run, and its pages."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import batch_folders
from arl.evaluation.decision import read_decision
from arl.files import read_json
from arl.monitoring.journal import Journal
from arl.monitoring.runs import Run, begin, current, end
from arl.params import Params
from arl.reports.monitoring import write_index, write_run
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def close_run(
    params: Params,
    *,
    corpus: ReadableCorpus,
    registry: str,
    monitor: Path,
    verdict: Path | None = None,
    error: str = "",
    owner: str = "",
) -> None:
    """Write down what came of the monitoring run, and its pages; close the run.

    Reads the run under way and the registry; writes lines of <monitor>/log.jsonl, index.html of the
    run and of all runs. A run that failed stays open, to be gone on with, until it has failed
    watch.attempts times.

    Args:
        verdict: the decision folder of `arl gate`, where the run has trained; without it the
            champion tells.
        error: what failed; empty: nothing.
        owner: see `arl take_batch`; the run of another owner is left alone.
    """
    store, journal = (
        Registry(registry, keys_from_environment(params.release.signed)),
        Journal(monitor),
    )
    run = current(monitor)
    if run is not None and run.owner == owner:
        if error:
            done = _failed(params, journal, run, error)
        else:
            done = _concluded(journal, run, corpus, store, verdict)
        write_run(journal, run, corpus, store.champion())
        if done:
            end(run)
        else:
            begin(replace(run, owner=""))  # whoever comes next goes on with it
    if journal.entries():
        write_index(journal, store.champion(), monitor)


def _failed(params: Params, journal: Journal, run: Run, error: str) -> bool:
    """Note a failure; whether it was the last one."""
    tried = len(journal.of_run(run.name, "failed")) + 1
    left = params.watch.attempts - tried
    again = (
        "the next look goes on from there"
        if left > 0
        else f"that was attempt {tried} of {params.watch.attempts}"
    )
    journal.append("failed", [f"Run {run.name} failed: {error}; {again}."], run=run.name)
    if left > 0:
        return False
    drop = run.drop.name if run.drop else "The waiting batches"
    words = [
        f"{drop} was given up after {tried} attempts; the files stay where they arrived, to be sent again."
    ]
    journal.append(
        "given-up", words, run=run.name, fingerprint=run.drop.fingerprint if run.drop else ""
    )
    return True


def _concluded(
    journal: Journal, run: Run, corpus: Path, store: Registry, verdict: Path | None
) -> bool:
    """Note what came of a training, once; whether the run was decided at all."""
    file = run.folder / "decision.json"
    if not file.is_file():
        return False
    if read_json(file)["decision"] == "retrain" and not journal.of_run(run.name, "outcome"):
        if verdict is not None:
            _keep_pages(verdict, run.folder / "gate")
        journal.append("outcome", **_outcome(run, corpus, store, verdict))
    return True


def _keep_pages(verdict: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(verdict, target)


def _outcome(run: Run, corpus: Path, store: Registry, verdict: Path | None) -> dict[str, Any]:
    before = read_json(run.folder / "champion.json")["version"]
    after = store.champion()
    judged = read_decision(verdict) if verdict else None
    more = [*judged.reasons, *judged.notes] if judged else []
    word = judged.verdict if judged else "promote" if after != before else "not promoted"
    about = {"run": run.name, "verdict": word, "before": before, "champion": after}
    if word == "promote" and after != before:
        batches = [folder.relative_to(corpus).as_posix() for folder in batch_folders(corpus)]
        words = [
            f"The challenger passed the gate: release {after} replaces {before}, which stays in the registry."
        ]
        return {"words": [*words, *more], **about, "trained_on": batches}
    words = [f"The challenger was not promoted ({word}): release {after} stays in use."]
    return {"words": [*words, *more], **about}

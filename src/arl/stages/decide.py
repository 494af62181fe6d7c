"""Decide what a new batch asks for, and keep it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import SCHEMA, read_table
from arl.files import read_json, write_json
from arl.monitoring.drift_result import DriftResult
from arl.monitoring.journal import Decision, Journal, cools_until
from arl.monitoring.runs import Run, adopt, current
from arl.params import Params

_SO = {
    "retrain": "So the pipeline runs on the corpus with this batch, and its models challenge release {champion}.",
    "no-drift": "So the batch is kept in the corpus and nothing is trained; release {champion} stays in use.",
    "too-few": "So the batch is kept in the corpus and tested again together with the next one.",
}


def decide(params: Params, *, corpus: ReadableCorpus, monitor: Path) -> None:
    """Decide what the batches of the monitoring run ask for, write it into the log, and add the new one to the corpus.

    Reads what `arl take_batch` and `arl compare` found; writes <monitor>/runs/<run>/decision.json
    (retrain, no-drift, too-few, cooling-down or refused, with its reasons), a line of
    <monitor>/log.jsonl, and the batch below `corpus` unless it was refused. What was decided before
    stays decided.
    """
    run = current(monitor)
    if run is None:
        return
    file = run.folder / "decision.json"
    if not file.is_file():
        write_json(file, _decided(params, run))
    decided = read_json(file)
    if decided["decision"] != "refused":
        adopt(run, corpus)
    journal = Journal(monitor)
    if not journal.of_run(run.name, "decision"):
        journal.append("decision", run=run.name, **decided)
    print("\n".join([f"watch: {decided['decision']}", *(f"  {line}" for line in decided["words"])]))


def _decided(params: Params, run: Run) -> dict[str, Any]:
    """The decision, why, and the numbers behind it."""
    intake = read_json(run.folder / "intake.json")
    drop = run.drop
    about: dict[str, Any] = {
        "drop": drop.name if drop else None,
        "files": drop.files if drop else 0,
        "bytes": drop.size if drop else 0,
        "hash": run.hash,
        "fingerprint": drop.fingerprint if drop else "",
        "counts": intake.get("counts"),
    }
    arrived = _arrived(run, intake.get("counts"))
    if not intake["accepted"]:
        words = [
            *arrived,
            *intake["reasons"],
            "So nothing of it enters the corpus; its files stay untouched where they arrived.",
        ]
        return {
            "decision": "refused",
            "why": intake["reasons"][0],
            "words": words,
            "batches": [],
            **about,
        }
    result = DriftResult.read(run.folder / "drift" / "drift.json")
    champion = read_json(run.folder / "champion.json")["version"]
    decision, so = _choose(params, run, result.trigger, champion)
    return {
        "decision": decision,
        "why": result.reasons[0],
        "words": [*arrived, *result.reasons, so],
        "batches": run.batches,
        **about,
        "champion": champion,
        "drift": {
            key: result.to_json()[key] for key in ("decision", "images", "patients", "sites")
        },
    }


def _arrived(run: Run, counts: dict[str, Any] | None) -> list[str]:
    words = []
    if run.drop is not None:
        what = (
            f"{run.drop.name} arrived with {run.drop.files:,} files ({run.drop.size / 1e6:,.1f} MB)"
        )
        if counts is None:
            words.append(f"{what}.")
        else:
            words.append(
                f"{what}: {counts['accepted']:,} of {counts['given']:,} inputs were accepted, as {counts['images']:,} "
                f"{_kind(run)}; {counts['refused']:,} went into quarantine."
            )
    others = run.batches[:-1] if run.drop else run.batches
    if others:
        words.append(f"Batches that waited are tested with it: {', '.join(others)}.")
    return words


def _kind(run: Run) -> str:
    """Figures on phantoms must not be taken for a hospital's."""
    file = run.corpus / (run.new or "") / "manifest.parquet"
    synthetic = file.is_file() and read_table(file, SCHEMA)["synthetic"].any()
    return "synthetic images" if synthetic else "images"


def _choose(params: Params, run: Run, asked: Decision, champion: str) -> tuple[Decision, str]:
    """What is done about what drift asks for, and a sentence that says so."""
    until = cools_until(Journal(run.monitor).entries(), params.watch.cooldown_hours)
    if asked == "retrain" and until is not None and datetime.now(UTC) < until:
        return "cooling-down", (
            f"That asks for a training, but the last one began less than {params.watch.cooldown_hours:g} h ago "
            f"(watch.cooldown_hours): the batch is kept in the corpus and looked at again after {until:%Y-%m-%d %H:%M} "
            "UTC."
        )
    return asked, _SO[asked].format(champion=champion)

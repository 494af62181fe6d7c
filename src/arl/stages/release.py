"""Put promoted models into the registry."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arl.evaluation.decision import Decision, read_decision
from arl.evaluation.model_card import model_card
from arl.evaluation.results import Metrics, ReleaseMetrics, read_metrics
from arl.files import tree_hash
from arl.model_config import read_config
from arl.params import Params
from arl.stages._chain import POLICY_FILE, check_policy, verify_decision
from arl.storage.attestations import SUFFIX
from arl.storage.metadata import GitState, Provenance, Receipt
from arl.storage.registry import Registry, version_of
from arl.storage.sbom import licence_of, sbom
from arl.storage.signing import keys_from_environment

_DATA_FILE = Path("data.dvc")
_IMAGE = "ARL_IMAGE"  # environment variable: name and digest of the container image


def release(
    params: Params,
    *,
    decision: Path,
    checkpoint: Path,
    models: list[Path],
    evaluations: list[Path],
    registry: str,
    receipt: Path,
) -> None:
    """Add promoted models to the registry and make them the champion.

    If the verdict is promote, adds one version to the registry, signs it if release.signed is true,
    and moves the champion pointer. The pointer moves only if the champion is still the one that the
    gate compared with. Writes a receipt in every case: the verdict, and the version or null.

    Args:
        decision: Folder that `arl gate` wrote.
        checkpoint: Folder of the encoder.
        models: Folders of the task models.
        evaluations: Folders of their evaluations.
        registry: The registry, a folder or s3://bucket/prefix.
        receipt: The JSON file of the receipt.

    Raises:
        ValueError: the decision is about other models, another release has become champion since,
            the version was rolled back before, or there is no key to sign with.

    Writes:
        registry, receipt

    Next:
        arl models --registry {registry}

    Examples:
        arl release --decision out/decision --checkpoint out/pretrain --models out/finetune/*
            --evaluations out/evaluate/* --registry registry --receipt out/receipt.json
    """
    decided = read_decision(decision)
    version = None
    if decided.verdict == "promote":
        policy = (
            check_policy(params, _tasks_of_champion(params, registry))
            if params.release.signed
            else ""
        )
        attestation = verify_decision(params, decision / Decision.FILE, evaluations, policy)
        # By content hash, so that the models released are those judged, wherever they lie.
        tasks = _judged_models(decided, models)
        metrics = [_metrics_of(task, decided.models[task], evaluations) for task in sorted(tasks)]
        version = version_of(checkpoint, tasks)
        documents = {
            Decision.FILE: decided.to_text(),
            ReleaseMetrics.FILE: ReleaseMetrics({one.task: one for one in metrics}).to_text(),
            "params.json": _text(_settings(params)),
            "licences.json": _text(_licences(decided)),
            "sbom.json": _text(sbom("arl")),
            "model_card.md": model_card(version, metrics, decided, read_config(checkpoint)),
        }
        if attestation is not None:
            signed = decision / f"{Decision.FILE}{SUFFIX}"
            documents[signed.name] = signed.read_text(encoding="utf-8")
            documents[POLICY_FILE.name] = POLICY_FILE.read_text(encoding="utf-8")
        store = Registry(registry, keys_from_environment(params.release.signed))
        store.add_version(checkpoint, tasks, documents=documents, provenance=_provenance(params))
        # Compare-and-swap: if another run promoted meanwhile, this decision is about the wrong
        # champion.
        store.promote(version, expected=decided.champion)
    Receipt(decided.verdict, version).write(receipt)


def _tasks_of_champion(params: Params, registry: str) -> list[str]:
    store = Registry(registry, keys_from_environment(params.release.signed))
    champion = store.champion()
    return store.manifest(champion).tasks if champion is not None else []


def _judged_models(decided: Decision, models: list[Path]) -> dict[str, Path]:
    """Task -> model folder, for the models that the decision is about."""
    folders = {tree_hash(model): model for model in models}
    for task, digest in decided.models.items():
        if digest not in folders:
            listed = ", ".join(str(model) for model in models)
            raise ValueError(
                f"the gate judged another model for {task} than those in {listed}: "
                "run the gate again"
            )
    return {task: folders[digest] for task, digest in decided.models.items()}


def _metrics_of(task: str, model_hash: str, evaluations: list[Path]) -> Metrics:
    for folder in evaluations:
        metrics = read_metrics(folder)
        if (metrics.task, metrics.model_hash) == (task, model_hash):
            return metrics
    folders = ", ".join(str(folder) for folder in evaluations)
    raise ValueError(
        f"none of {folders} is the evaluation of the model for {task} that the gate judged"
    )


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _licences(decided: Decision) -> dict[str, Any]:
    """The licences of the code and of all images of the corpus: both may bind the weights."""
    return {
        "code": licence_of("arl"),
        "data": {name: asdict(terms) for name, terms in decided.sources.items()},
    }


def _settings(params: Params) -> dict[str, Any]:
    """The settings that made the models."""
    return {
        "seed": params.seed,
        "experiment": params.experiment,
        "data": asdict(params.data),
        "model": asdict(params.model),
        "objective": asdict(params.objective),
        "pretrain": asdict(params.pretrain),
        "finetune": asdict(params.finetune),
        "task": {task: asdict(params.task[task]) for task in params.tasks},
    }


def _provenance(params: Params) -> Provenance:
    return Provenance(_git(), _data_hash(), os.environ.get(_IMAGE) or None, params.release.signed)


def _git() -> GitState | None:
    """The state of the working directory; None outside a repository."""
    # Containers of the cluster have no git; $ARL_IMAGE names their origin.
    if shutil.which("git") is None:
        return None
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if commit.returncode:
        return None
    status = subprocess.run(
        ["git", "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    return GitState(commit.stdout.strip(), bool(status.stdout))


def _data_hash() -> str | None:
    """The hash by which DVC knows the corpus; None where there is no data.dvc."""
    match = (
        re.search(r"md5: (\S+)", _DATA_FILE.read_text(encoding="utf-8"))
        if _DATA_FILE.is_file()
        else None
    )
    return match.group(1) if match else None

"""The chain from an evaluation to a release: the policy, and the gate's signed decision."""

import json
from dataclasses import asdict
from pathlib import Path

import yaml

from arl.evaluation.results import Metrics, read_metrics
from arl.files import sha256
from arl.params import Params
from arl.storage.attestations import Attestation, Step, attest, verify_attestation
from arl.storage.signing import keys_from_environment

POLICY_FILE = Path("policy.yaml")


class PolicyError(ValueError):
    """Parameters are weaker than policy.yaml."""


def check_policy(params: Params, champions_tasks: list[str], path: Path = POLICY_FILE) -> str:
    """Compare the parameters of a signed release with policy.yaml; return the file's SHA-256.

    Raises:
        PolicyError: a parameter is weaker, a task of the champion is missing, or the file is
            missing or no policy.
    """
    try:
        # The file of the working directory: no override of the command line changes it.
        policy = yaml.safe_load(path.read_text(encoding="utf-8"))
        gate = policy["gate"]
        problems = [
            f"gate.alpha is {params.gate.alpha:g}, at most {gate['alpha']:g}"
            if params.gate.alpha > gate["alpha"]
            else "",
            f"gate.bootstrap is {params.gate.bootstrap}, at least {gate['bootstrap']}"
            if params.gate.bootstrap < gate["bootstrap"]
            else "",
            f"gate.min_slice_patients is {params.gate.min_slice_patients}, "
            f"at most {gate['min_slice_patients']}"
            if params.gate.min_slice_patients > gate["min_slice_patients"]
            else "",
            f"gate.min_patients is {params.gate.min_patients}, at least {gate['min_patients']}"
            if params.gate.min_patients < gate["min_patients"]
            else "",
            f"gate.max_trials is {params.gate.max_trials}, at most {gate['max_trials']}"
            if params.gate.max_trials > gate["max_trials"]
            else "",
            f"gate.max_calibration_error is {params.gate.max_calibration_error:g}, "
            f"at most {gate['max_calibration_error']:g}"
            if params.gate.max_calibration_error > gate["max_calibration_error"]
            else "",
            f"evaluate.anatomy is {params.evaluate.anatomy}, must be {policy['anatomy']}"
            if params.evaluate.anatomy != policy["anatomy"]
            else "",
        ]
        for name in params.tasks:
            task = params.task[name]
            if task.margin > policy["margin"]:
                problems.append(
                    f"task.{name}.margin is {task.margin:g}, at most {policy['margin']:g}"
                )
            if task.floor < policy["floor"]:
                problems.append(
                    f"task.{name}.floor is {task.floor:g}, at least {policy['floor']:g}"
                )
        # A release that drops a task leaves hospitals without it, so someone has to consent.
        missing = sorted(set(champions_tasks) - set(params.tasks))
        if missing and not policy["drop_tasks"]:
            problems.append(f"the release would lack the champion's task {', '.join(missing)}")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PolicyError(
            f"{path} is no policy, and a signed release needs one: {error}"
        ) from error
    messages = [problem for problem in problems if problem]
    if messages:
        raise PolicyError(f"weaker than {path}: {'; '.join(messages)}")
    return sha256(path)


def attest_decision(
    params: Params, file: Path, evaluations: dict[str, Path], champion: str | None, policy: str
) -> None:
    """Sign the gate's decision with the hashes of everything that it rests on."""
    keys = keys_from_environment(params.release.signed)
    # A machine may evaluate without the private key; its decision is then unsigned, and `arl
    # release` refuses it.
    if keys is None or keys.private is None:
        return
    inputs = {"champion": champion or "none"}
    for task, folder in sorted(evaluations.items()):
        inputs[f"{task}/model"] = read_metrics(folder).model_hash
        for name in (Metrics.FILE, "predictions.parquet"):
            inputs[f"{task}/{name}"] = sha256(folder / name)
    parameters = {
        "gate": json.dumps(asdict(params.gate), sort_keys=True),
        "evaluate": json.dumps(asdict(params.evaluate), sort_keys=True),
        **{
            f"task.{task}": json.dumps(asdict(params.task[task]), sort_keys=True)
            for task in params.tasks
        },
    }
    attest(file, Step("gate", inputs, parameters, {"policy": policy}), keys)


def verify_decision(
    params: Params, file: Path, evaluations: list[Path], policy: str
) -> Attestation | None:
    """Check the gate's signature and that decision, evaluations and policy are the ones it signed.

    Returns None for an unsigned registry.

    Raises:
        ValueError: the decision or an evaluation was changed after the gate, or the policy is
            another one.
    """
    keys = keys_from_environment(params.release.signed)
    if keys is None:
        return None
    attestation = verify_attestation(file, "gate", keys)
    if attestation.step.environment.get("policy") != policy:
        raise PolicyError(f"{file} was decided under another {POLICY_FILE}: run the gate again")
    for folder in evaluations:
        task = read_metrics(folder).task
        for name in (Metrics.FILE, "predictions.parquet"):
            signed = attestation.step.inputs.get(f"{task}/{name}")
            # Evaluations of tasks that the gate did not judge may lie beside the others.
            if signed is not None and signed != sha256(folder / name):
                raise ValueError(f"{folder / name} was changed after the gate: evaluate again")
    return attestation

"""Forgeries between an evaluation and a release, and the check that refuses each of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from arl.evaluation.decision import Decision
from arl.evaluation.predictions import write_predictions
from arl.files import sha256
from arl.params import Params
from arl.stages import _recompute
from arl.stages._chain import PolicyError, check_policy
from arl.stages.evaluate import evaluate
from arl.storage.attestations import SUFFIX, Step, attest, verify_attestation
from arl.storage.registry import Registry
from arl.storage.signing import Keys, SignatureError

POLICY = (
    "gate: {alpha: 0.05, bootstrap: 10, min_slice_patients: 20, min_patients: 1,\n"
    "  max_trials: 20, max_calibration_error: 1.0}\n"
    "margin: 2.0\nfloor: 0.0\nanatomy: given\ndrop_tasks: false\n"
)


@dataclass
class Chain:
    """A run that was judged under a policy, with everything that a forger may write to."""

    run: Any
    folder: Path
    keys: Keys
    others: Keys

    @property
    def decision(self) -> Path:
        return self.run.folder / "decision" / Decision.FILE

    @property
    def evaluation(self) -> Path:
        return self.run.folder / "evaluations" / "breast"

    def evaluate(self, anatomy: str) -> None:
        params = replace(
            self.run.params, evaluate=replace(self.run.params.evaluate, anatomy=anatomy)
        )
        evaluate(
            params,
            task="breast",
            corpus=self.run.corpus,
            model=self.run.folder / "models" / "breast",
            evaluation=self.evaluation,
        )


@pytest.fixture
def chain(
    lenient: Params,
    make_run: Callable[..., Any],
    tmp_path: Path,
    new_keys: Callable[[Path], Keys],
    monkeypatch: pytest.MonkeyPatch,
) -> Chain:
    keys, others = new_keys(tmp_path / "keys"), new_keys(tmp_path / "others")
    monkeypatch.setenv("ARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ARL_VERIFY_KEY", str(keys.public[0]))
    monkeypatch.setenv("ARL_SIGNING_KEY", str(keys.private))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    run = make_run(replace(lenient, release=replace(lenient.release, signed=True)))
    assert run.judge().verdict == "promote"
    return Chain(run, tmp_path, keys, others)


def test_an_honest_run_is_released_and_its_chain_verified(
    chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    from arl.commands.verify import verify

    receipt = chain.run.publish()
    assert receipt.version is not None
    verify(chain.run.params, registry=str(chain.run.registry))
    printed = capsys.readouterr().out
    assert "the gate's decision is signed with key" in printed
    assert "the gate's policy is the released policy.yaml" in printed
    folder = Registry(chain.run.registry, chain.keys).fetch(receipt.version)
    assert (folder / f"decision.json{SUFFIX}").is_file()
    assert (folder / "policy.yaml").read_text() == POLICY


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def perfect(file: Path) -> None:
    """Predictions as a model without an error would make them."""
    table = pd.read_parquet(file)
    table["score_1"] = table["label"].astype(float)
    table["score_0"] = 1 - table["score_1"]
    write_predictions(table, file)


def edited_verdict(chain: Chain) -> None:
    edit(chain.decision, '"promote"', '"promote" ')


def edited_reason(chain: Chain) -> None:
    content = json.loads(chain.decision.read_text())
    content["reasons"] = ["It is excellent."]
    chain.decision.write_text(json.dumps(content))


def edited_settings(chain: Chain) -> None:
    content = json.loads(chain.decision.read_text())
    content["settings"]["alpha"] = 0.9999
    chain.decision.write_text(json.dumps(content))


def no_attestation(chain: Chain) -> None:
    chain.decision.with_name(chain.decision.name + SUFFIX).unlink()


def cut_attestation(chain: Chain) -> None:
    file = chain.decision.with_name(chain.decision.name + SUFFIX)
    file.write_text(file.read_text()[:-40])


def foreign_key(chain: Chain) -> None:
    attest(
        chain.decision, Step("gate", {}, {}, {"policy": sha256(Path("policy.yaml"))}), chain.others
    )


def another_step(chain: Chain) -> None:
    attest(chain.decision, Step("evaluate", {}), chain.keys)


def another_file(chain: Chain) -> None:
    """The attestation of another file, signed with the right key."""
    other = chain.folder / "decision.json"
    other.write_text("{}")
    shutil.copy(
        attest(other, Step("gate", {}), chain.keys),
        chain.decision.with_name(chain.decision.name + SUFFIX),
    )


def edited_metrics(chain: Chain) -> None:
    file = chain.evaluation / "metrics.json"
    content = json.loads(file.read_text())
    content["images"] += 1
    file.write_text(json.dumps(content))


def perfect_predictions_after_the_gate(chain: Chain) -> None:
    perfect(chain.evaluation / "predictions.parquet")


def changed_policy(chain: Chain) -> None:
    edit(Path("policy.yaml"), "floor: 0.0", "floor: -1.0")


def no_policy(chain: Chain) -> None:
    Path("policy.yaml").unlink()


AFTER_THE_GATE: dict[str, tuple[Callable[[Chain], None], str]] = {
    "an edited verdict": (edited_verdict, "is not the file that `arl gate` wrote"),
    "an edited reason": (edited_reason, "is not the file that `arl gate` wrote"),
    "edited gate settings": (edited_settings, "is not the file that `arl gate` wrote"),
    "no attestation": (no_attestation, "has no attestation"),
    "an attestation cut short": (cut_attestation, "is damaged"),
    "an attestation of another key": (foreign_key, "by no trusted key"),
    "an attestation of another step": (another_step, "about the step evaluate"),
    "an attestation of another file": (another_file, "is not the file that"),
    "edited metrics": (edited_metrics, "was changed after the gate"),
    "edited predictions": (perfect_predictions_after_the_gate, "was changed after the gate"),
    "another policy": (changed_policy, "was decided under another policy.yaml"),
    "no policy": (no_policy, "a signed release needs one"),
}


@pytest.mark.parametrize("name", AFTER_THE_GATE)
def test_a_forgery_after_the_gate_is_not_released(chain: Chain, name: str) -> None:
    forge, message = AFTER_THE_GATE[name]
    forge(chain)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        chain.run.publish()
    assert Registry(chain.run.registry, None).versions() == []


def perfect_predictions(chain: Chain) -> None:
    perfect(chain.evaluation / "predictions.parquet")


def missing_predictions(chain: Chain) -> None:
    file = chain.evaluation / "predictions.parquet"
    write_predictions(pd.read_parquet(file).iloc[:-1], file)


def make_conditional(chain: Chain) -> None:
    """Give the parameters that begin at zero values: an untrained model does not use the organ."""
    file = chain.run.folder / "models" / "breast" / "model.safetensors"
    weights = load_file(file)
    rng = np.random.default_rng(0)
    for name, value in weights.items():
        if not value.any():
            weights[name] = rng.normal(0, 0.5, value.shape).astype(value.dtype)
    save_file(weights, file)


def without_anatomy(chain: Chain) -> None:
    make_conditional(chain)
    chain.evaluate("none")


def shuffled_anatomy(chain: Chain) -> None:
    make_conditional(chain)
    chain.evaluate("shuffled")


BEFORE_THE_GATE: dict[str, tuple[Callable[[Chain], None], str]] = {
    "perfect predictions": (perfect_predictions, "are not those of"),
    "missing predictions": (missing_predictions, "lacks predictions of test images"),
    "an evaluation without the organ": (without_anatomy, "are not those of"),
    "an evaluation with another organ": (shuffled_anatomy, "are not those of"),
}


@pytest.mark.parametrize("name", BEFORE_THE_GATE)
def test_a_forgery_before_the_gate_is_not_judged(
    chain: Chain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recompute, "SAMPLE", 1000)  # all test images, so that no draw decides
    monkeypatch.setattr(_recompute, "TOLERANCE", 1e-6)  # the tiny model hardly hears the organ
    forge, message = BEFORE_THE_GATE[name]
    forge(chain)
    with pytest.raises(ValueError, match=message):
        chain.run.judge()


WEAKER: dict[str, tuple[Callable[[Params], Params], str]] = {
    "alpha": (lambda p: replace(p, gate=replace(p.gate, alpha=0.9999)), "gate.alpha is 0.9999"),
    "bootstrap": (lambda p: replace(p, gate=replace(p.gate, bootstrap=5)), "gate.bootstrap is 5"),
    "slices": (
        lambda p: replace(p, gate=replace(p.gate, min_slice_patients=999)),
        "gate.min_slice_patients is 999",
    ),
    "patients": (
        lambda p: replace(p, gate=replace(p.gate, min_patients=0)),
        "gate.min_patients is 0",
    ),
    "tries": (
        lambda p: replace(p, gate=replace(p.gate, max_trials=999)),
        "gate.max_trials is 999",
    ),
    "calibration": (
        lambda p: replace(p, gate=replace(p.gate, max_calibration_error=2.0)),
        "gate.max_calibration_error is 2",
    ),
    "margin": (
        lambda p: replace(p, task={**p.task, "breast": replace(p.task["breast"], margin=5.0)}),
        "task.breast.margin is 5",
    ),
    "floor": (
        lambda p: replace(p, task={**p.task, "breast": replace(p.task["breast"], floor=-1.0)}),
        "task.breast.floor is -1",
    ),
    "anatomy": (
        lambda p: replace(p, evaluate=replace(p.evaluate, anatomy="none")),
        "evaluate.anatomy is none",
    ),
    "a dropped task": (lambda p: replace(p, tasks=["lv"]), "lack the champion's task breast"),
}


@pytest.mark.parametrize("name", WEAKER)
def test_the_command_line_cannot_weaken_the_policy(chain: Chain, name: str) -> None:
    change, message = WEAKER[name]
    with pytest.raises(PolicyError, match=message):
        check_policy(change(chain.run.params), ["breast", "lv"])


@pytest.mark.parametrize("text", ["", "[]", "gate: 3", "gate: {alpha: 0.05}", "{", "\x00"])
def test_a_damaged_policy_releases_nothing(chain: Chain, text: str) -> None:
    Path("policy.yaml").write_text(text)
    with pytest.raises(PolicyError, match="is no policy"):
        check_policy(chain.run.params, [])


def test_a_revoked_key_attests_nothing(chain: Chain) -> None:
    revoked = Keys((*chain.keys.public, *chain.others.public), None, chain.keys.public)
    with pytest.raises(SignatureError, match="which is revoked"):
        verify_attestation(chain.decision, "gate", revoked)


def test_a_model_that_the_gate_did_not_judge_is_found_in_the_registry(
    chain: Chain, make_run: Callable[..., Any]
) -> None:
    """Somebody with the signing key releases other models beside an honest decision."""
    from arl.commands.verify import verify

    other = make_run(chain.run.params, seed=1)
    documents = {
        name: (chain.decision.parent / name).read_text()
        for name in ("decision.json", f"decision.json{SUFFIX}")
    } | {"policy.yaml": POLICY}
    from arl.storage.metadata import Provenance

    registry = Registry(chain.run.registry, chain.keys)
    models = {path.name: path for path in (other.folder / "models").iterdir()}
    version = registry.add_version(
        other.folder / "pretrain", models, documents=documents, provenance=Provenance()
    )
    with pytest.raises(ValueError, match="the gate did not judge the model of task"):
        verify(chain.run.params, registry=str(chain.run.registry), version=version)

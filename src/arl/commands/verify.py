"""Verify the hashes, the signatures and the champion pointer of a released model."""

from pathlib import Path

from arl.files import read_json, sha256, tree_hash
from arl.params import Params
from arl.storage.attestations import verify_attestation
from arl.storage.registry import Registry, tasks_of
from arl.storage.signing import keys_from_environment


def verify(params: Params, *, registry: str, version: str = "") -> None:
    """Verify the hashes, the signatures and the champion pointer of a released version.

    Prints one line per check. $ARL_VERIFY_KEY names the trusted public keys. With
    release.signed=false the hashes alone are verified.

    Args:
        registry: The registry, a folder or s3://bucket/prefix.
        version: The version. Default: the champion.

    Raises:
        ValueError: a file is changed, missing or added, no signature holds, the pointer is not
            signed or older than one that was read before, or there is no such version.

    Examples:
        arl verify --registry registry
    """
    store = Registry(registry, keys_from_environment(params.release.signed))
    pointer = store.pointer()
    chosen = version or (pointer.version if pointer else "")
    if not chosen:
        raise ValueError(
            f"registry {registry} has no champion: name a version of {store.versions()}"
        )
    checked = store.verify(chosen)
    print(f"{chosen}: {checked.files} files have the SHA-256 of the manifest")
    print(f"{chosen}: the name is that of its weights and configurations")
    if checked.key is None:
        print(f"{chosen}: NOT CHECKED: signatures, the registry is unsigned (release.signed)")
    else:
        print(f"{chosen}: the signature of key {checked.key} holds")
        _verify_chain(params, checked.folder, chosen)
    if pointer is None:
        print("champion: none")
        return
    signed = "signed by a trusted key" if checked.key is not None else "NOT CHECKED: not signed"
    print(f"champion: {pointer.version}, pointer {pointer.number} of {pointer.at}, {signed}")
    for bar in pointer.barred:
        print(f"barred: {bar.version}, rolled back by {bar.person} at {bar.at}: {bar.reason}")


def _verify_chain(params: Params, folder: Path, version: str) -> None:
    """Check the gate's signed statement against the models and documents of the version."""
    keys = keys_from_environment(params.release.signed)
    assert keys is not None
    # The version's signature says who released it; this statement says what the gate judged.
    attestation = verify_attestation(folder / "decision.json", "gate", keys)
    for task, model in tasks_of(folder).items():
        # A valid signature of a decision about other weights proves nothing.
        if attestation.step.inputs.get(f"{task}/model") != tree_hash(model):
            raise ValueError(f"{version}: the gate did not judge the model of task {task}")
    policy = folder / "policy.yaml"
    # The policy travels with the release, so that a later edit of the file cannot excuse an old
    # decision.
    if not policy.is_file() or attestation.step.environment.get("policy") != sha256(policy):
        raise ValueError(f"{version}: the gate decided under another policy than the one released")
    # The registry can be written by hand: only the signed verdict counts.
    verdict = read_json(folder / "decision.json")["verdict"]
    if verdict != "promote":
        raise ValueError(f"{version}: the gate decided {verdict}, and the version was released")
    print(f"{version}: the gate's decision is signed with key {attestation.key}, for these models")
    print(f"{version}: the gate's policy is the released policy.yaml")

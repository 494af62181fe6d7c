"""Sign a released version and the champion pointer with the current key."""

from arl.params import Params
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def sign(params: Params, *, registry: str, person: str, reason: str, version: str = "") -> None:
    """Sign a released version and the champion pointer with the current key.

    For a rotation of keys: after it, versions of the old key verify with the new one too. After a
    revocation, check a version by other means first: whoever signs vouches for it. Hashes are
    checked, earlier signatures are not. $ARL_SIGNING_KEY names the key.

    Args:
        registry: The registry, a folder or s3://bucket/prefix.
        person: Who decided.
        reason: Why.
        version: The version. Default: the champion, and the pointer.

    Raises:
        ValueError: the registry is unsigned, there is no trusted key to sign with, a file was
            changed, or there is no such version.

    Examples:
        arl sign --registry registry --person eve --reason "rotation of keys"
    """
    store = Registry(registry, keys_from_environment(params.release.signed))
    if version:
        print(f"{version}: signed with key {store.sign(version)}")
        return
    # The pointer's own signature may be the one of a revoked key.
    champion = Registry(registry, None).champion()
    if champion is None:
        raise ValueError(f"registry {registry} has no champion: name a version")
    print(f"{champion}: signed with key {store.sign(champion)}")
    pointer = store.sign_pointer(person, reason)
    assert pointer is not None
    print(f"champion: pointer {pointer.number} is signed with the same key")

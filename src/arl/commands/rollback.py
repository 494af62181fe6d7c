"""Put the champion before this one back into use."""

from arl.params import Params
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def rollback(params: Params, *, registry: str, person: str, reason: str) -> None:
    """Make the previous champion the champion again.

    The version is verified first. The replaced version stays in the registry and is barred: no gate
    promotes it again. The pointer keeps who rolled back, when and why.

    Args:
        registry: The registry, a folder or s3://bucket/prefix.
        person: Who decided.
        reason: Why.

    Raises:
        ValueError: there is no earlier champion, it was changed, or another run moved the champion
            at the same moment.

    Next:
        arl models --registry {registry}

    Examples:
        arl rollback --registry registry --person eve --reason "worse on site B"
    """
    store = Registry(registry, keys_from_environment(params.release.signed))
    before = store.champion()
    after = store.rollback(person, reason)
    print(f"{after} is champion again, in place of {before}, which is barred from promotion")

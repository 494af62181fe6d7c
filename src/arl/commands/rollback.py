"""Put the champion before this one back into use."""

from arl.params import Params
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def rollback(params: Params, *, registry: str) -> None:
    """Make the previous champion the champion again.

    The version is verified first. The replaced version stays in the registry.

    Args:
        registry: The registry, a folder or s3://bucket/prefix.

    Raises:
        ValueError: there is no earlier champion, it was changed, or another run moved the champion
            at the same moment.

    Next:
        arl models --registry {registry}

    Examples:
        arl rollback --registry registry
    """
    store = Registry(registry, keys_from_environment(params.release.signed))
    before = store.champion()
    print(f"{store.rollback()} is champion again, in place of {before}")

"""Hold a released version against its hashes and its signature."""

from arl.params import Params
from arl.storage.registry import Registry
from arl.storage.signing import keys_from_environment


def verify(params: Params, *, registry: str, version: str = "") -> None:
    """Verify the hashes and the signature of a released version.

    The public key is the file $ARL_VERIFY_KEY. With release.signed=false the hashes alone are
    verified.

    Args:
        registry: The registry, a folder or s3://bucket/prefix.
        version: The version. Default: the champion.

    Raises:
        ValueError: a file is changed, missing or added, the signature does not hold, or there is no
            such version.

    Examples:
        arl verify --registry registry
    """
    store = Registry(registry, keys_from_environment(params.release.signed))
    chosen = version or store.champion()
    if chosen is None:
        raise ValueError(
            f"registry {registry} has no champion: name a version of {store.versions()}"
        )
    store.fetch(chosen)
    what = (
        "files, name and signature hold"
        if params.release.signed
        else "files and name hold; it is not signed"
    )
    print(f"{chosen}: {what}")

"""List the released versions and the one in use."""

from typing import Any

from arl.storage.registry import Registry


def models(*, registry: str) -> None:
    """List the released versions and the champion.

    Prints one line per version: tasks, commit, corpus, and whether it is signed. `arl verify`
    verifies a version.

    Args:
        registry: The registry, a folder or s3://bucket/prefix.

    Examples:
        arl models --registry registry
    """
    store = Registry(registry, None)
    champion = store.champion()
    for version in store.versions():
        mark = "champion" if version == champion else ""
        print(f"{version}  {mark:8s}  {_about(store.manifest(version))}")
    print(f"{len(store.versions())} versions in {store.address}; champion: {champion or 'none'}")


def _about(manifest: dict[str, Any]) -> str:
    tasks = sorted({name.split("/")[1] for name in manifest["files"] if name.startswith("tasks/")})
    commit = manifest.get("git") or {"commit": "unknown", "dirty": False}
    changed = " with changes" if commit["dirty"] else ""
    signed = "signed" if manifest.get("signed") else "unsigned"
    return f"{signed:8s}  {', '.join(tasks)}  commit {commit['commit'][:12]}{changed}  data {manifest.get('data') or '?'}"

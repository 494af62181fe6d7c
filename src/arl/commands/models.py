"""List the released versions and the one in use."""

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
        manifest = store.manifest(version)
        origin, tasks = manifest.provenance, ", ".join(manifest.tasks)
        # A version that was trained outside of a repository has no commit.
        commit = "unknown" if origin.git is None else origin.git.commit[:12]
        changed = " with changes" if origin.git is not None and origin.git.dirty else ""
        signed = "signed" if origin.signed else "unsigned"
        print(
            f"{version}  {mark:8s}  {signed:8s}  {tasks}  commit {commit}{changed}"
            f"  data {origin.data or '?'}"
        )
    print(f"{len(store.versions())} versions in {store.address}; champion: {champion or 'none'}")

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
        commit = "unknown"
        if origin.git is not None:
            commit = origin.git.commit[:12] + " with changes" * origin.git.dirty
        signed = "signed" if origin.signed else "unsigned"
        text = f"{signed:8s}  {tasks}  commit {commit}  data {origin.data or '?'}"
        print(f"{version}  {mark:8s}  {text}")
    print(f"{len(store.versions())} versions in {store.address}; champion: {champion or 'none'}")

"""The corpus under DVC on a real S3 server: push, pull, a new hospital, an earlier version."""

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from arl.corpus.manifest import read_manifest
from arl.files import tree_hash
from arl.storage.s3 import Store

pytestmark = pytest.mark.slow
CONFTEST = runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))
BIN = Path(sys.executable).parent
IDENTITY = {
    f"GIT_{role}_{what}": "arl@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


class Repo:
    """A clone of a git repository with DVC in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"

    def run(self, *words: str) -> str:
        program = str(BIN / words[0]) if words[0] == "dvc" else words[0]
        environment = {
            **os.environ,
            **IDENTITY,
            "DVC_NO_ANALYTICS": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            [program, *words[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def version(self, message: str) -> str:
        """Track the corpus as it is, push it, and commit; the commit."""
        self.run("dvc", "add", "--quiet", "data")
        self.run("dvc", "push", "--quiet")
        self.run("git", "add", "-A")
        self.run("git", "commit", "--quiet", "-m", message)
        return self.run("git", "rev-parse", "HEAD").strip()


@pytest.fixture
def repo(tmp_path: Path, s3_bucket: str, tiny_corpus: Path) -> Repo:
    """One hospital, not yet under DVC."""
    made = Repo(tmp_path / "repo")
    made.folder.mkdir()
    made.run("git", "init", "--quiet", "-b", "main")
    made.run("dvc", "init", "--quiet")
    made.run("dvc", "remote", "add", "--quiet", "-d", "s3", f"s3://{s3_bucket}/dvc")
    made.run("dvc", "remote", "modify", "s3", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    shutil.copytree(tiny_corpus, made.data)
    return made


def objects(bucket: str) -> dict[str, int]:
    """Name in DVC's cache -> bytes, of everything in the remote."""
    return {
        item.key.replace("/", ""): item.size
        for item in Store(f"s3://{bucket}/dvc/files/md5").objects()
    }


def names(folder: Path) -> set[str]:
    """The names that the files of a folder have in DVC's cache."""
    return {
        hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_push_pull_add_a_hospital_roll_back(
    repo: Repo, s3_bucket: str, tmp_path: Path, new_batch: Path
) -> None:
    first, small = repo.version("one hospital"), tree_hash(repo.data)
    before = objects(s3_bucket)
    shutil.copytree(new_batch, repo.data, dirs_exist_ok=True)
    second, large = repo.version("a second one"), tree_hash(repo.data)
    added = objects(s3_bucket).keys() - before.keys()

    # the new batch alone was sent, and the new list of all files
    tracked = yaml.safe_load((repo.folder / "data.dvc").read_text())["outs"][0]["md5"]
    assert added == names(new_batch) - before.keys() | {tracked}

    # another machine
    clone = Repo(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", repo.folder, clone.folder], check=True)
    clone.run("dvc", "pull", "--quiet")
    assert tree_hash(clone.data) == large
    assert set(read_manifest(clone.data)["source"]) == {"clinic", "hospital"}

    # back, and forward again, with an empty cache
    for commit, expected in ((first, small), (second, large)):
        clone.run("git", "checkout", "--quiet", commit)
        shutil.rmtree(clone.folder / ".dvc" / "cache")
        clone.run("dvc", "pull", "--quiet", "--force")
        assert tree_hash(clone.data) == expected


@pytest.fixture
def new_batch(tmp_path: Path) -> Path:
    """A corpus of a second hospital alone."""
    CONFTEST["write_batch"](tmp_path / "new", "hospital", seed=1)
    return tmp_path / "new"


def test_a_damaged_object_is_not_taken(repo: Repo, s3_bucket: str) -> None:
    """DVC checks what it pulls against data.dvc where `verify` is on, as the guide says."""
    repo.version("one hospital")
    shard = next(repo.data.rglob("shard-*.parquet"))
    name = hashlib.md5(shard.read_bytes(), usedforsecurity=False).hexdigest()
    Store(f"s3://{s3_bucket}/dvc/files/md5").put(f"{name[:2]}/{name[2:]}", b"something else")
    repo.run("dvc", "remote", "modify", "s3", "verify", "true")
    shutil.rmtree(repo.data)
    shutil.rmtree(repo.folder / ".dvc" / "cache")
    with pytest.raises(AssertionError, match="Checkout failed"):
        repo.run("dvc", "pull")

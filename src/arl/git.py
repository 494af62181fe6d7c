"""The git commit of the working directory."""

import shutil
import subprocess


def head_commit() -> str | None:
    """The commit of the working directory, "with changes" if files differ; None outside of git."""
    if shutil.which("git") is None:
        return None
    # Containers have no git; they carry the version in a file instead.
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    return f"{commit} with changes" if _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()

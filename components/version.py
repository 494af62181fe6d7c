"""The version of the code, an input of every step that Kubeflow may answer from its cache.

Kubeflow's cache key holds the image by the name that was compiled in (kubeflow/pipelines 2.17.0,
backend/src/v2/cacheutils/cache.go). Under a tag, code that changed would be answered by results of
the old code.
"""

import hashlib
import os
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]
# what an image holds in place of the sources
_RECORD = _PROJECT / "code-version"


def code_version() -> str:
    """16 hexadecimal digits over the Python files of arl and the components.

    ARL_CODE_VERSION takes precedence, then the file code-version of an image.
    """
    recorded = os.environ.get("ARL_CODE_VERSION")
    if recorded is None and _RECORD.is_file():
        recorded = _RECORD.read_text(encoding="utf-8").strip()
    if recorded is not None:
        return recorded
    # over contents, because times and folders differ between checkouts
    digest = hashlib.sha256()
    for folder in ("src/arl", "components"):
        for file in sorted((_PROJECT / folder).rglob("*.py")):
            digest.update(file.relative_to(_PROJECT).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]

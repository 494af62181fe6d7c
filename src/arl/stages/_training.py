"""Folders of the training states of an interrupted run."""

import hashlib
import json
import os
from pathlib import Path


def runs() -> Path:
    """Return the folder of training states and logs."""
    return Path(os.environ.get("ARL_RUNS", "runs"))


def state_folder(stage: str, *inputs: object) -> Path:
    """Return the folder of the training states of a run.

    Args:
        stage: name of the stage.
        inputs: everything that decides the result, e.g. settings and hashes of data.
    """
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return runs() / f"{stage}-{digest[:16]}"

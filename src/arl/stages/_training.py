"""Where the stages that train keep the states of an interrupted run."""

import hashlib
import json
import os
from pathlib import Path


def runs() -> Path:
    """The folder of training states and logs."""
    return Path(os.environ.get("ARL_RUNS", "runs"))


def state_folder(stage: str, *inputs: object) -> Path:
    """Where a run of a stage with these inputs (settings, hashes of data) keeps its training states."""
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return runs() / f"{stage}-{digest[:16]}"

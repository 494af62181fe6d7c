"""Defaults of the pipelines' parameters, taken from the project when a pipeline is compiled."""

from pathlib import Path

import yaml

_PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


def default_tasks() -> list[str]:
    """The tasks of params.yaml, so that a run can be started from a form without typing JSON."""
    if not _PARAMS.is_file():
        return []
    return list(yaml.safe_load(_PARAMS.read_text(encoding="utf-8"))["tasks"])

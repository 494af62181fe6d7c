"""What a command asks of the process that knows kfp: `python -m pipelines.runner COMMAND`.

kfp runs in a process of its own, because kfp.local leaves `print` and the root logger changed.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Self, TypedDict


class BatchPart(TypedDict):
    """A batch, or one part of a batch, that one pod reads into the corpus."""

    source: str
    root: str
    batch: str
    # "2/32": the second of 32
    part: str
    options: dict[str, str]


@dataclass(frozen=True)
class RecurringRun:
    """A run that Kubeflow starts by itself; `cron` has Kubeflow's six fields, seconds first."""

    name: str
    # a pipeline file
    pipeline: str
    cron: str
    enabled: bool
    arguments: dict[str, object]


@dataclass(frozen=True)
class Request:
    """A pipeline file and what to do with it; each command uses the fields that it needs."""

    pipeline: str = ""
    # JSON values for the parameters of the pipeline; a pipeline takes those that it has
    arguments: dict[str, object] = field(default_factory=dict)
    root: str = "runs"
    output: str = ""
    name: str = ""
    description: str = ""
    dry_run: bool = False
    schedules: tuple[RecurringRun, ...] = ()

    def to_json(self) -> str:
        """The request as the runner reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """The request of `to_json`."""
        fields = json.loads(text)
        schedules = tuple(RecurringRun(**run) for run in fields.pop("schedules"))
        return cls(**fields, schedules=schedules)

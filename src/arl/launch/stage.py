"""Run a stage with as many processes and nodes as its pod was given."""

import json
import os
from typing import Any

from arl.cli import call

_VARIABLE = (
    "ARL_LAUNCH"  # set by pipelines/cluster.py: {"processes": 4}, or the fields of `trainjob.Job`
)


def launch(name: str, overrides: list[str], version: str, /, **arguments: Any) -> None:
    """Run a stage here, or by torchrun on the GPUs of this pod, or as a TrainJob on several nodes.

    `version` is that of the corpus: a TrainJob on another version is another job.

    Raises:
        RuntimeError: the processes or the TrainJob failed; what they printed says why.
    """
    needs = json.loads(os.environ.get(_VARIABLE, "{}"))
    if needs.get("nodes", 1) > 1:
        from arl.launch import trainjob  # half a second for the Kubernetes client

        trainjob.run(trainjob.Job(**needs), name, overrides, version, arguments)
    elif needs.get("processes", 1) > 1:
        from arl.corpus.s3_copy import local_copy
        from arl.launch import torchrun

        with local_copy(arguments["corpus"]) as corpus:  # once for all processes
            torchrun.run(needs["processes"], name, overrides, {**arguments, "corpus": corpus})
    else:
        call(name, overrides, **arguments)

"""Run a stage with the processes and nodes that cluster.yaml gives its step."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arl.cli import call
from arl.launch.attempt import MARKER

# set by pipelines/cluster.py: {"processes": 4, "attempts": 3}, or the fields of `trainjob.Job`
_VARIABLE = "ARL_LAUNCH"
_FIRST_WAIT = 10.0  # seconds before the second attempt; each later wait is twice as long


def launch(
    name: str,
    overrides: list[str],
    version: str = "",
    /,
    *,
    first_wait: float = _FIRST_WAIT,
    **arguments: Any,
) -> None:
    """Run a stage in this process, in child processes, or as a TrainJob.

    Without ARL_LAUNCH, as on a single machine, the stage runs in this process. On a cluster it runs
    in a child process, or by torchrun in one process for each GPU. After a transient error, as of
    S3 or CUDA, a new child process tries again: a CUDA error leaves its process unusable.

    Args:
        name: of the stage.
        overrides: words key=value on params.yaml.
        version: of the corpus. A TrainJob on another version is another job.
        first_wait: seconds before the second attempt.
        arguments: of the stage.

    Raises:
        RuntimeError: the last attempt or the TrainJob failed.
    """
    needs = json.loads(os.environ.get(_VARIABLE, "{}"))
    if not needs:
        call(name, overrides, **arguments)
    elif needs.get("nodes", 1) > 1:
        # the Kubernetes client takes half a second to import
        from arl.launch import trainjob

        trainjob.run(trainjob.Job(**needs), name, overrides, version, arguments)
    elif needs["processes"] > 1:
        from arl.corpus.s3_copy import local_copy

        # the processes of a pod share one copy
        with local_copy(arguments["corpus"]) as corpus:
            # standalone: the ranks of one pod meet on a free port of it, so steps cannot collide
            ranks = ["--standalone", f"--nproc-per-node={needs['processes']}"]
            command = [sys.executable, "-m", "torch.distributed.run", *ranks]
            shared = {**arguments, "corpus": str(corpus)}
            _run_attempts(command, name, overrides, shared, needs["attempts"], first_wait)
    else:
        command = [sys.executable]
        _run_attempts(command, name, overrides, arguments, needs["attempts"], first_wait)


def _run_attempts(
    command: list[str],
    name: str,
    overrides: list[str],
    arguments: Mapping[str, object],
    attempts: int,
    first_wait: float,
) -> None:
    # paths become words
    text = json.dumps([name, overrides, arguments], default=str)
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / "transient"
        for attempt in range(1, attempts + 1):
            marker.unlink(missing_ok=True)
            code = subprocess.run(
                [*command, "-m", "arl.launch.attempt", text],
                env={**os.environ, MARKER: str(marker)},
                check=False,
            ).returncode
            if code == 0:
                return
            if attempt == attempts and marker.is_file() and "monitor" in arguments:
                # the import takes 0.2 s, which no step that ends well needs
                from arl.launch.artifacts import note_outage

                outage = f"{name}: {marker.read_text(encoding='utf-8')}"
                note_outage(str(arguments["monitor"]), outage)
            if attempt == attempts or not marker.is_file():
                raise RuntimeError(
                    f"{name} failed in attempt {attempt} with exit code {code}; "
                    "its own message is above"
                )
            wait = first_wait * 2 ** (attempt - 1)
            reason = marker.read_text(encoding="utf-8")
            print(f"{name}: attempt {attempt + 1} in {wait:g} s, after {reason}", flush=True)
            time.sleep(wait)

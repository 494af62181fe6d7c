"""Attempts of a stage in a pod: which errors are worth another one."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arl.launch.transient import transient_reason

# A stage of the tests. It fails as often as its file says, with the error that it is given.
STAGE = """
import sys, types
from pathlib import Path
import arl.launch.attempt as attempt

def call(name, overrides, **arguments):
    count = Path(arguments["count"])
    count.write_text(str(int(count.read_text()) + 1))
    if int(count.read_text()) <= arguments["failures"]:
        exec(arguments["error"])

attempt.call = call
sys.exit(attempt.main(sys.argv[1]))
"""
LAUNCH = """
import json, sys
from arl.launch import stage
stage.launch("drift", [], first_wait=0.01, **json.loads(sys.argv[1]))
"""


def launch(folder: Path, error: str, failures: int, attempts: int = 3) -> tuple[int, int, str]:
    """Exit code, number of attempts and output of a stage that fails some times."""
    # `python -m arl.launch.attempt` runs this file in place of the module
    package = folder / "bin"
    package.mkdir()
    (package / "stage.py").write_text(STAGE)
    interpreter = package / "python"
    interpreter.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {package}/stage.py "$@"\n')
    interpreter.chmod(0o755)
    count = folder / "count"
    count.write_text("0")
    arguments = {"count": str(count), "failures": failures, "error": error}
    needs = {"ARL_LAUNCH": json.dumps({"processes": 1, "attempts": attempts})}
    program = f"import sys; sys.executable = {str(interpreter)!r}\n{LAUNCH}"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)],
        env={**os.environ, **needs},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, int(count.read_text()), done.stdout + done.stderr


@pytest.mark.parametrize(
    "error",
    [
        "raise ConnectionResetError('peer')",
        "raise RuntimeError('CUDA error: an illegal memory access was encountered')",
        "raise ValueError('the store does not answer') from TimeoutError('S3')",
    ],
)
def test_a_transient_error_is_tried_again_in_a_new_process(tmp_path: Path, error: str) -> None:
    """Kubeflow does not retry a step that fails: its Argo has retryPolicy OnError.

    kubeflow/pipelines 2.17.0, manifests/kustomize/third-party/argo/base/
    workflow-controller-configmap-patch.yaml.
    """
    code, attempts, output = launch(tmp_path, error, failures=2)
    assert (code, attempts) == (0, 3), output
    assert "drift: attempt 2 in 0.01 s" in output


def test_attempts_end(tmp_path: Path) -> None:
    code, attempts, output = launch(tmp_path, "raise ConnectionResetError('peer')", failures=9)
    assert (code, attempts) == (1, 3)
    assert "drift failed in attempt 3 with exit code 1" in output


@pytest.mark.parametrize("error", ["raise ValueError('no such task')", "raise KeyError('x')"])
def test_a_lasting_error_is_not_tried_again(tmp_path: Path, error: str) -> None:
    code, attempts, output = launch(tmp_path, error, failures=9)
    assert (code, attempts) == (1, 1)
    assert "arl drift: " in output


class OutOfMemoryError(RuntimeError):
    """As torch.OutOfMemoryError is called."""


class S3Error(Exception):
    """As minio.error.S3Error carries its code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (OSError(errno.ESTALE, "stale file handle"), True),
        (OSError(errno.ENOSPC, "no space left"), True),
        (FileNotFoundError("corpus"), False),
        (S3Error("SlowDown"), True),
        (S3Error("AccessDenied"), False),
        (RuntimeError("NCCL error in: ProcessGroupNCCL"), True),
        (OutOfMemoryError("CUDA error: out of memory"), False),
        (ValueError("tasks is empty"), False),
    ],
)
def test_transient_errors(error: Exception, transient: bool) -> None:
    assert (transient_reason(error) is not None) is transient


def test_on_one_machine_the_stage_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from arl.launch import stage

    calls: list[Any] = []
    monkeypatch.delenv("ARL_LAUNCH", raising=False)
    monkeypatch.setattr(stage, "call", lambda *words, **options: calls.append((words, options)))
    stage.launch("drift", ["seed=3"], drift="out")
    assert calls == [(("drift", ["seed=3"]), {"drift": "out"})]

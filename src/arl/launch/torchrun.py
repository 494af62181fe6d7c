"""Several processes of one stage on this machine."""

import subprocess
import sys
from typing import Any


def words(name: str, overrides: list[str], arguments: dict[str, Any]) -> list[str]:
    """The command line of a stage, after `arl`."""
    flags = [
        word
        for key, value in sorted(arguments.items())
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]
    return [name, *flags, *overrides]


def run(processes: int, name: str, overrides: list[str], arguments: dict[str, Any]) -> None:
    """Run a stage in `processes` processes that find each other on this machine.

    Raises:
        RuntimeError: a process failed.
    """
    ranks = ["--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", "torch.distributed.run", *ranks, "-m", "arl.cli"]
    code = subprocess.run([*command, *words(name, overrides, arguments)], check=False).returncode
    if code:
        raise RuntimeError(
            f"{name} failed in one of {processes} processes (exit code {code}); it has said why above"
        )

"""What the engine's tests, which run in this process, can not see."""

import os
import subprocess
import sys

import pytest

# The first to be registered are the last to be called: gloo's thread gets a core when `sum` has the
# GIL already, and keeps it until the interpreter ends. Until then that thread shares a core with
# one that it can not interrupt.
PROGRAM = """
import atexit, os
atexit.register(sum, range(30_000_000))
atexit.register(os.sched_setaffinity, 0, {cores[1]})
import torch
import torch.distributed as dist
from arl.training import distributed
distributed.initialize()
for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {cores[0]})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
dist.all_reduce(torch.ones(3))
"""


def test_a_process_ends_well_right_after_a_collective() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    program = PROGRAM.replace("cores[0]", str(cores[0])).replace("cores[1]", str(cores[1]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "PermissionError" in done.stderr:
        pytest.skip("needs the right to choose how a thread is scheduled")
    assert done.returncode == 0, done.stderr

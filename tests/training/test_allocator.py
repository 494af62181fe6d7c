"""Freed memory is kept: a tensor of the same size costs no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from arl.training.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):  # until the heap has its size
    torch.ones(10_000_019)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(7):
    torch.ones(10_000_019)  # 40 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(
        subprocess.run(
            [sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True
        ).stdout
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is what is set")
def test_a_tensor_takes_the_memory_of_the_last_one() -> None:
    assert faults("kept") < 100
    assert faults("as it is") > 7 * 100  # huge pages make few faults of many

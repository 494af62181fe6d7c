"""What importing `arl` sets for the libraries that are loaded after it."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "found"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_of_torch_soon_stop_spinning(given: dict[str, str], found: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    program = [sys.executable, "-c", "import arl, torch"]
    said = subprocess.run(
        program,
        env=inherited | {"OMP_DISPLAY_ENV": "VERBOSE"} | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{found}'" in said.stderr

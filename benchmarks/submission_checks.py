"""CPU seconds until `arl run --backend kfp` refuses a cluster that lacks one thing.

`python benchmarks/submission_checks.py` prints one JSON line for each missing thing, with the CPU
time of the command and its children and the first problem that it prints. The cluster is the stub
of tests/commands/test_doctor.py.
"""

import inspect
import json
import resource
import runpy
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TESTS = Path(__file__).parents[1] / "tests" / "commands"
DOCTOR = SimpleNamespace(**runpy.run_path(str(TESTS / "test_doctor.py")))
SERVER = SimpleNamespace(**runpy.run_path(str(TESTS / "conftest.py")))


def started(server: Any) -> Any:
    """The server, answering in a thread."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def cases() -> list[tuple[str, Any, dict[str, str], int]]:
    """What is missing: a name, a change of the stub, variables, the status of a list."""
    marks = DOCTOR.test_each_missing_thing_is_named_with_its_remedy_before_the_first_pod.pytestmark
    missing = [(subject, change, {}, 0) for change, subject, _ in marks[0].args[1]]
    addresses = DOCTOR.test_a_wrong_address_is_refused.pytestmark[0].args[1]
    missing += [(message, None, changes, 0) for changes, message in addresses]
    refusals = DOCTOR.test_a_token_or_namespace_that_is_refused.pytestmark[0].args[1]
    return missing + [(message, None, {}, status) for status, message in refusals]


def main() -> None:
    """Measure each case."""
    fixture = inspect.unwrap(getattr(DOCTOR.arl, "__wrapped__", DOCTOR.arl))
    for subject, change, variables, status in cases():
        cluster, kubeflow = started(DOCTOR.Cluster()), started(SERVER.Kubeflow())
        kubeflow.forbid = status
        if change:
            change(cluster)
        with tempfile.TemporaryDirectory() as folder:
            arl = fixture(cluster, kubeflow, Path(folder))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = arl(*DOCTOR.SUBMIT, **variables)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        lines = [line for line in done.stderr.splitlines() if subject in line] or [done.stderr]
        answer = {"missing": subject, "exit": done.returncode, "cpu_seconds": round(seconds, 2)}
        submitted = len(kubeflow.runs)
        print(json.dumps({**answer, "runs_submitted": submitted, "message": lines[0]}), flush=True)
        for server in (cluster, kubeflow):
            server.shutdown()
            server.server_close()


if __name__ == "__main__":
    sys.exit(main())

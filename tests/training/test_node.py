"""Two gloo ranks of one node: the first makes a table, and both have it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

TABLE = """
import json, sys
import pandas as pd
from arl.training import distributed
from arl.training.node import make_per_node
distributed.initialize()
calls = []

def make():
    calls.append(1)
    if sys.argv[1] == "full":  # the table and the message find no room
        import os, pathlib
        def no_room(*arguments, **options):
            raise OSError(28, os.strerror(28))
        pd.DataFrame.to_feather = pathlib.Path.write_text = no_room
    if sys.argv[1] == "fail":
        raise ValueError("corpus x has no source ['y']")
    return pd.DataFrame({"id": ["a", None], "n": [1, 2], "labels": [[{"name": "q"}], None]})[::-1]

try:
    rows = make_per_node(make)
    result = json.loads(rows.to_json(orient="records"))
except (ValueError, OSError) as error:
    result = str(error)
print("RESULT", json.dumps([len(calls), result]))
"""

PRETRAIN = """
import json, sys
from pathlib import Path
from arl import params
from arl.corpus import selection
from arl.stages.pretrain import pretrain
search, calls = selection.duplicate_clusters, []
selection.duplicate_clusters = lambda rows: calls.append(1) or search(rows)
out = Path(sys.argv[1])
settings = params.load(json.loads(sys.argv[3]) + ["pretrain.max_steps=2"], Path(sys.argv[4]))
pretrain(settings, corpus=Path(sys.argv[2]), checkpoint=out / "model", metrics=out / "m.json")
print("RESULT", json.dumps(len(calls)))
"""


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def run_on_two_ranks(code: str, *arguments: str, runs: Path) -> list[object]:
    """The results that the ranks print."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, *arguments],
            env=os.environ
            | group
            | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            | {"ARL_RUNS": str(runs), "TMPDIR": str(runs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in ranks]
    finally:
        # A rank without its partner waits in a collective.
        for process in ranks:
            process.kill()
            process.wait()
    lines = [
        line.removeprefix("RESULT ")
        for output, error in outputs
        for line in output.splitlines() or [error]
        if line.startswith("RESULT ")
    ]
    assert len(lines) == 2, outputs
    return [json.loads(line) for line in lines]


def test_one_rank_makes_the_table_and_both_have_it(tmp_path: Path) -> None:
    expected = [
        {"id": None, "n": 2, "labels": None},
        {"id": "a", "n": 1, "labels": [{"name": "q"}]},
    ]
    assert run_on_two_ranks(TABLE, "make", runs=tmp_path) == [[1, expected], [0, expected]]
    assert not list(tmp_path.glob("arl-rows-*"))


def test_both_ranks_raise_the_error_of_the_one_that_fails(tmp_path: Path) -> None:
    message = "corpus x has no source ['y']"
    assert run_on_two_ranks(TABLE, "fail", runs=tmp_path) == [[1, message], [0, message]]


def test_a_full_disk_of_the_first_rank_leaves_no_rank_waiting(tmp_path: Path) -> None:
    first, second = run_on_two_ranks(TABLE, "full", runs=tmp_path)
    assert first == [1, "[Errno 28] No space left on device"]
    assert second == [0, "the first rank of this node failed; its own message has the reason"]


def test_one_rank_of_a_node_searches_leaks(
    tmp_path: Path, tiny_corpus: Path, tiny_overrides: list[str]
) -> None:
    params = Path(__file__).parents[2] / "params.yaml"
    arguments = [str(tmp_path), str(tiny_corpus), json.dumps(tiny_overrides), str(params)]
    assert run_on_two_ranks(PRETRAIN, *arguments, runs=tmp_path) == [1, 0]

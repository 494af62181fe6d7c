"""Two gloo ranks with half of the batch each measure what one process with the whole batch does."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_ranks.py")


def _one_process():
    spec = importlib.util.spec_from_file_location("two_ranks", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.measure(rank=0, world_size=1)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of the two ranks, then of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    outs = [folder / "0.pt", folder / "1.pt"]
    runs = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), "2", str(folder / "store"), str(out)]
        )
        for rank, out in enumerate(outs)
    ]
    try:
        assert [run.wait(timeout=120) for run in runs] == [0, 0]
    finally:
        for run in runs:
            run.kill()
    return [*(torch.load(out, weights_only=True) for out in outs), _one_process()]


@pytest.mark.parametrize(
    "name",
    [
        "center",
        "uneven_center",
        "loss",
        "sinkhorn",
        "gradient_norm",
        "weight",
        "contrastive",
        "query_gradient",
    ],
)
def test_two_ranks_equal_one(results, name) -> None:
    first, second, expected = (result[name] for result in results)
    assert torch.allclose(first, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(first, second)

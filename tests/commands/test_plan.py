"""The plan that `arl plan` prints."""

from pathlib import Path

import pytest

from arl.commands.plan import plan
from arl.corpus.manifest import read_manifest
from arl.corpus.selection import select
from arl.params import Params


def test_the_plan_counts_training_images_only(
    tiny_corpus: Path, tiny_params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(["model=avit_micro"], gpu="h100-80gb", corpus=tiny_corpus)
    printed = capsys.readouterr()
    rows = select(tiny_corpus, sources=[], held_out=[], protocols=tiny_params.data.splits)
    training = int((rows["split"] == "train").sum())
    assert training < len(read_manifest(tiny_corpus))
    assert f"{training:,} images, batch" in printed.out + printed.err

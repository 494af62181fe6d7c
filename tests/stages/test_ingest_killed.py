"""Ingest of hospital DICOM, killed at random moments: no partial batch, and the same bytes."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from arl.corpus.manifest import batch_folders
from arl.files import tree_hash

ROOT = Path(__file__).parents[2]
KILLS = 20
SMALL = ("color-px.dcm", "OBXXXX1A_rle.dcm", "gdcm-US-ALOKA-16.dcm")


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """Twelve stills of three machines, a clip, a torn file and a text."""
    folder = tmp_path / "drop"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(13):
            name = "examples_ybr_color.dcm" if number == 7 else SMALL[number % 3]
            dataset = dcmread(get_testdata_file(name, download=False))
            dataset.SOPInstanceUID = f"1.2.3.{number}"
            dataset.save_as(folder / f"{number:02d}.dcm", enforce_file_format=False)
    (folder / "13.dcm").write_bytes((folder / "07.dcm").read_bytes()[:20_000])
    (folder / "notes.txt").write_text("no picture")
    return folder


def start(drop: Path, corpus: Path) -> "subprocess.Popen[bytes]":
    words = [
        "dicom-folder",
        "--root",
        str(drop),
        "--corpus",
        str(corpus),
        "--existing",
        "keep",
        "data.workers=2",
    ]
    environment = os.environ | {"ARL_HASH_KEY": "7e1f90ac4b2d8365c0f7a91e5d3b8246"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        [sys.executable, "-m", "arl.cli", "ingest", *words], cwd=ROOT, env=environment, **quiet
    )


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_gives_the_same_bytes(
    drop: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    assert start(drop, tmp_path / "whole").wait() == 0
    duration = time.monotonic() - began
    whole = tree_hash(tmp_path / "whole")
    torn = tmp_path / "torn"
    finished = partial = 0
    for moment in np.random.default_rng(0).uniform(0, duration, KILLS):
        process = start(drop, torn)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        partial += bool(list(torn.rglob(".*.partial")))
        if (torn / "dicom-folder/0000").exists():  # it was done before it was killed: begin anew
            finished += 1
            assert batch_folders(torn) == [torn / "dicom-folder/0000"]
            assert tree_hash(torn / "dicom-folder/0000") == tree_hash(
                tmp_path / "whole/dicom-folder/0000"
            )
            (torn / "dicom-folder/0000").rename(tmp_path / f"done-{finished}")
    print(
        f"{KILLS} kills over {duration:.1f} s: {partial} left a partial folder, "
        f"{finished} came too late"
    )
    assert partial > 0
    assert start(drop, torn).wait() == 0
    assert tree_hash(torn) == whole

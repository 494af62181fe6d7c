"""Inputs read in this process, in several, and in ones that die."""

import ctypes
import os
import re
import subprocess
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.record import Input
from arl.corpus.shard_writer import BatchWriter
from arl.files import tree_hash
from arl.ingest.batches import write_inputs
from arl.ingest.readers import fallmud
from arl.ingest.tables import read_csv
from arl.ingest.workers import Outcome, outcomes


def tree(root: Path, count: int) -> list[Input]:
    for folder in ("images", "fascicle_masks"):
        (root / "NeilCronin" / folder).mkdir(parents=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (17, 23), dtype=np.uint8)
        cv2.imwrite(str(root / f"NeilCronin/images/{number:02d}.tif"), image)
        if number % 5:  # the others have no mask and are refused
            cv2.imwrite(
                str(root / f"NeilCronin/fascicle_masks/{number:02d}.png"),
                (image > 128) * np.uint8(255),
            )
    return fallmud.read(root)


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    inputs = tree(tmp_path / "FALLMUD", 21)
    for workers in (0, 2):
        with BatchWriter(
            tmp_path / str(workers),
            "fallmud",
            "0000",
            20,
            origin=BatchOrigin(licence="", citation=""),
        ) as writer:
            write_inputs(inputs, writer, workers)
    assert len({tree_hash(tmp_path / str(workers)) for workers in (0, 2)}) == 1


def reasons(read: list[Outcome]) -> list[str]:
    return [outcome if isinstance(outcome, str) else "" for outcome in read]


def test_inputs_that_kill_their_process_are_refused_and_the_others_are_read(tmp_path: Path) -> None:
    inputs = tree(tmp_path / "FALLMUD", 7)
    expected = reasons(list(outcomes(inputs, 20, 0)))
    aborts, exits, faults = (
        Input("aborts", os.abort),
        Input("exits", partial(os._exit, 1)),
        Input("faults", partial(ctypes.string_at, 0)),
    )
    read = reasons(list(outcomes([aborts, *inputs[:4], exits, faults, *inputs[4:]], 20, 2)))
    killed = "reading it ended the process: its decoder crashed, or memory ran out"
    assert [read.pop(0), read.pop(4), read.pop(4)] == 3 * [killed]
    assert read == expected


@pytest.mark.parametrize(
    ("hang", "workers"),
    [(partial(time.sleep, 600), 1), (partial(re.match, "(a+)+$", 64 * "a" + "b"), 2)],
    ids=["waits", "holds-the-lock"],
)
def test_an_input_that_hangs_is_refused_and_the_others_are_read(
    tmp_path: Path, hang, workers: int
) -> None:
    inputs = tree(tmp_path / "FALLMUD", 7)
    expected = reasons(list(outcomes(inputs, 20, 0)))
    read = reasons(
        list(outcomes([*inputs[:4], Input("hangs", hang), *inputs[4:]], 20, workers, seconds=0.3))
    )
    assert re.fullmatch(
        r"reading it took more than (0.3 seconds of processor time|3 seconds)", read.pop(4)
    )
    assert read == expected


def test_the_time_of_an_input_begins_when_it_is_read(tmp_path: Path) -> None:
    """The time in the queue does not count: three waits of 1.5 s stay below a limit of 4 s."""
    # of the standard library, since the process that reads does not know this file; no output is no
    # image
    slow = [
        Input(str(number), partial(subprocess.check_output, ["sleep", "1.5"]))
        for number in range(3)
    ]  # type: ignore[arg-type]
    assert reasons(list(outcomes(slow, 20, 1, seconds=0.4))) == 3 * ["it holds no image"]


def test_what_no_reader_foresaw_is_a_refusal_that_names_the_place_and_no_content() -> None:
    unforeseen = Input("odd", partial(read_csv, None, []))  # type: ignore[arg-type]
    (reason,) = outcomes([unforeseen], 20, 0)
    assert reason == "reading it failed unexpectedly (AttributeError in tables.read_csv)"


def test_a_consumer_that_stops_leaves_no_process(tmp_path: Path) -> None:
    inputs = tree(tmp_path / "FALLMUD", 5)
    read = outcomes([*inputs, Input("hangs", partial(time.sleep, 600))], 20, 2)
    next(read)
    assert len(active_children()) == 2
    read.close()  # type: ignore[attr-defined]
    assert active_children() == []


def test_more_workers_than_inputs_and_none_at_all(tmp_path: Path) -> None:
    assert len(list(outcomes(tree(tmp_path / "FALLMUD", 2), 20, 3))) == 2
    assert list(outcomes([], 20, 3)) == []

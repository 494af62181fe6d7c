"""Inputs read in this process, in several, and in ones that die."""

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from arl.data.outcomes import outcomes
from arl.data.record import Input
from arl.data.shards import BatchWriter
from arl.data.sources import fallmud, write
from arl.files import tree_hash


def tree(root: Path, count: int) -> list[Input]:
    for folder in ("images", "fascicle_masks"):
        (root / "NeilCronin" / folder).mkdir(parents=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (17, 23), dtype=np.uint8)
        cv2.imwrite(str(root / f"NeilCronin/images/{number:02d}.tif"), image)
        if number % 5:  # the others have no mask and are refused
            cv2.imwrite(str(root / f"NeilCronin/fascicle_masks/{number:02d}.png"), (image > 128) * np.uint8(255))
    return fallmud.read(root)


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    inputs = tree(tmp_path / "FALLMUD", 21)
    for workers in (0, 2):
        with BatchWriter(tmp_path / str(workers), "fallmud", "0000", 20, licence="", citation="") as writer:
            write(inputs, writer, workers)
    assert len({tree_hash(tmp_path / str(workers)) for workers in (0, 2)}) == 1


def test_an_input_that_kills_its_process_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    inputs = tree(tmp_path / "FALLMUD", 7)
    expected = [isinstance(outcome, str) for outcome in outcomes(inputs, 20, 0)]
    killer = Input("killer", partial(os.abort))  # type: ignore[arg-type]
    read = list(outcomes([*inputs[:4], killer, *inputs[4:]], 20, 1))
    assert read.pop(4) == "reading it ended the process: its decoder crashed, or memory ran out"
    assert [isinstance(outcome, str) for outcome in read] == expected

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
    for workers in (0, 1, 3):
        with BatchWriter(tmp_path / str(workers), "fallmud", "0000", 20, licence="", citation="") as writer:
            write(inputs, writer, workers)
    assert len({tree_hash(tmp_path / str(workers)) for workers in (0, 1, 3)}) == 1


def test_an_input_that_kills_its_process_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    inputs = tree(tmp_path / "FALLMUD", 13)
    expected = [isinstance(outcome, str) for outcome in outcomes(inputs, 20, 0)]
    killer = partial(os.abort)
    mixed = [*inputs[:4], Input("killer", killer), *inputs[4:12], Input("killer", killer), inputs[12]]  # type: ignore[arg-type]
    read = list(outcomes(mixed, 20, 2))
    for position in (4, 13):
        assert read[position] == "reading it ended the process: its decoder crashed, or memory ran out"
    rest = [outcome for position, outcome in enumerate(read) if position not in (4, 13)]
    assert [isinstance(outcome, str) for outcome in rest] == expected

"""Which frames of a clip stay, and that none is lost without being counted."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from pydicom.data import get_testdata_file
from pydicom.pixels import iter_pixels

from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.pixels import perceptual_hash
from arl.corpus.record import Entry, Input, Record
from arl.corpus.shard_writer import BatchWriter
from arl.files import read_json
from arl.ingest.batches import write_inputs
from arl.ingest.workers import Read, prepare
from arl.settings import Thinning

RNG = np.random.default_rng(0)
PICTURES = [cv2.resize(RNG.integers(0, 256, (5, 7), dtype=np.uint8), (61, 43)) for _ in range(4)]


def clip(
    pictures: list[int], *, masked: tuple[int, ...] = (), official: tuple[int, ...] = ()
) -> Iterator[Record]:
    """A clip that shows the numbered pictures, one after the other."""
    for frame, number in enumerate(pictures):
        name = "lv" if frame in masked else None
        entry = Entry(
            key=f"c/{frame}",
            clip="c",
            frame=frame,
            anatomy="cardiac",
            mask_name=name,
            official=frame in official,
        )
        yield Record(PICTURES[number], entry, PICTURES[number] > 99 if name else None)


def kept(records: Iterator[Record], thinning: Thinning) -> list[int]:
    given = list(records)
    read = prepare(Input("c", partial(iter, given)), 512, thinning)
    assert isinstance(read, Read)
    assert len(read.images) + read.thinned == len(given)
    return [entry.frame for _, entry in read.images]


def test_pictures_of_the_tests_differ() -> None:
    codes = [perceptual_hash(picture) for picture in PICTURES]
    assert min((a ^ b).bit_count() for a in codes for b in codes if a is not b) > 12


def test_the_hash_is_that_of_imagehash() -> None:
    """imagehash 4.3.2 scales by Lanczos, so its hash of a fixed picture differs by a few bits."""
    rows, columns = np.mgrid[:64, :96]
    picture = (127 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 13 + rows / 21)).astype(np.uint8)
    assert (perceptual_hash(picture) ^ 0x9FB5E0356037603D).bit_count() <= 4


def test_by_default_every_frame_stays() -> None:
    assert kept(clip([0] * 7), Thinning()) == list(range(7))


def test_every_third() -> None:
    assert kept(clip([0] * 11), Thinning(every=3)) == [0, 3, 6, 9]


def test_a_part_of_a_clip_keeps_its_first_frame() -> None:
    records = [record for record in clip([0] * 11) if record.entry.frame >= 4]
    assert kept(iter(records), Thinning(every=5)) == [4, 9]


def test_frames_that_differ_from_the_last_one_kept() -> None:
    assert kept(clip([0, 0, 0, 1, 1, 0, 2, 2]), Thinning(distance=6)) == [0, 3, 5, 6]


def test_at_most_so_many_evenly_spaced() -> None:
    assert kept(clip([0] * 11), Thinning(max_frames=3)) == [0, 5, 10]
    assert kept(clip([0] * 2), Thinning(max_frames=3)) == [0, 1]


def test_masked_and_official_frames_stay() -> None:
    for thinning in (Thinning(every=100), Thinning(distance=64), Thinning(max_frames=1)):
        assert {3, 4, 7} <= set(kept(clip([0] * 9, masked=(3, 4), official=(7,)), thinning))
    assert kept(clip([0] * 9, masked=(3,), official=(7,)), Thinning(max_frames=3)) == [0, 3, 7]


def test_stills_and_other_clips_are_not_compared() -> None:
    stills = [Record(PICTURES[0], Entry(key=str(n), anatomy="lung")) for n in range(3)]
    assert len(kept(iter(stills), Thinning(every=9, distance=9, max_frames=1))) == 3
    clips = [
        Record(PICTURES[0], Entry(key=f"{n}", clip=f"{n % 2}", anatomy="lung")) for n in range(6)
    ]
    assert len(kept(iter(clips), Thinning(distance=9))) == 2
    assert len(kept(iter(clips), Thinning(max_frames=1))) == 2


def test_regions_of_one_screen_are_compared_each_with_itself() -> None:
    shapes = (PICTURES[0], PICTURES[1][:33])
    records = [
        Record(
            shapes[region], Entry(key=f"{frame}-{region}", clip="c", frame=frame, anatomy="lung")
        )
        for frame in range(5)
        for region in range(2)
    ]
    assert kept(iter(records), Thinning(distance=6)) == [0, 0]


def test_the_batch_counts_what_was_thinned(tmp_path: Path) -> None:
    inputs = [
        Input("one", partial(clip, [0] * 7)),
        Input("two", partial(clip, [0] * 7)),
    ]  # the second is a duplicate
    with BatchWriter(
        tmp_path,
        "cine",
        "0000",
        512,
        origin=BatchOrigin(licence="", citation="", reader="x"),
    ) as writer:
        write_inputs(inputs, writer, thinning=Thinning(every=3))
    about = read_json(tmp_path / "cine/0000/batch.json")
    counts = {
        name: about[name]
        for name in ("num_inputs", "accepted", "refused", "images", "thinned", "reader")
    }
    assert counts == {
        "num_inputs": 2,
        "accepted": 1,
        "refused": 1,
        "images": 3,
        "thinned": 4,
        "reader": "x",
    }
    assert manifest.read_manifest(tmp_path)["frame"].tolist() == [0, 3, 6]


def test_a_real_cine_thins_by_its_hashes() -> None:
    """Neighbouring frames of one heart differ by few bits, so a small distance thins them."""
    file = str(get_testdata_file("color3d_jpeg_baseline.dcm", download=False))
    codes = [perceptual_hash(frame[..., 0]) for frame in iter_pixels(file, indices=range(20))]
    steps = [(a ^ b).bit_count() for a, b in pairwise(codes)]
    assert 0 < np.median(steps) <= 4

"""Hostile and odd files, each with its right outcome; all names in them are invented."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from arl.corpus import limits, manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.near_duplicates import duplicate_clusters
from arl.corpus.pixels import store, unpack
from arl.corpus.record import Entry, Input, Record, Refused
from arl.corpus.shard_writer import BatchWriter
from arl.inference.inputs import read_all_inputs
from arl.ingest.batches import write_inputs
from arl.ingest.dicom.pixel_data import check_regular, is_dicom
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.readers import dicom_folder
from arl.ingest.readers.dicom_folder import Reading, file_input
from arl.ingest.transient import TRANSIENT_REASON
from arl.ingest.workers import KILLED, Limits, Outcome, Read, isolated, prepare
from arl.models.baselines.files import read_checkpoint

HOSTILE = Path(__file__).with_name("hostile")
READING = Reading("h", b"k3y-of-the-hostile-trial-0123456789", AnatomyRules([], [], {}), "mask")


def read(name: str) -> Outcome:
    return prepare(file_input(HOSTILE / name, Path(name), READING), 256)


@pytest.mark.parametrize(
    ("name", "images", "blank"),
    [
        ("bits16_values8.dcm", 1, 0),
        ("clip_black_first.dcm", 7, 1),
        ("deflated.dcm", 1, 0),
        ("jpeg_ycc_nojfif_tag_RGB.dcm", 1, 0),
        ("nf_missing_jpeg6.dcm", 6, 0),
        ("nf_missing_native6.dcm", 6, 0),
        ("no_preamble_implicit.dcm", 1, 0),
    ],
)
def test_odd_files_are_read_whole(name: str, images: int, blank: int) -> None:
    outcome = read(name)
    assert isinstance(outcome, Read), outcome
    assert (len(outcome.images), outcome.blank) == (images, blank)
    for stored, entry in outcome.images:
        assert (entry.clip is not None) == (images > 1)
        assert not entry.color_doppler
        assert not limits.is_blank_image(stored)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deflate_bomb_128MiB.dcm", "inflates to more than 16 MiB"),
        ("jls_crash.dcm", "a compressed frame has 80 x 80 pixels, the header says 48338 x 80"),
        ("nf_neg.dcm", "its NumberOfFrames is negative"),
        ("no_pixeldata.dcm", "it has no pixel data"),
        ("thin_70x880.dcm", "is stored as 20 x 256 pixels"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_their_reason(name: str, reason: str) -> None:
    outcome = read(name)
    assert isinstance(outcome, str)
    assert reason in outcome


@pytest.mark.parametrize(
    "name",
    [
        "p1_arabic_name.dcm",
        "p1_cyrillic_name.dcm",
        "p1_korean_name.dcm",
        "p1_name_in_first_frame_only.dcm",
        "p1_name_in_frames_5_6_7_of_12.dcm",
        "p1_qr.dcm",
        "p1_title_card_first_notags.dcm",
    ],
)
def test_no_name_is_stored(name: str) -> None:
    """Refused, or stored with black in place of the text; the text is the brightest of the file."""
    outcome = read(name)
    if isinstance(outcome, str):
        assert "text is burnt into its scan" in outcome
        return
    for stored, _ in outcome.images:
        image = unpack(stored.image, stored.columns["height"], stored.columns["width"])
        assert int((image > 235).sum()) < 0.002 * image.size
        assert zxingcpp.read_barcodes(image) == []


def test_a_name_in_the_model_is_no_device() -> None:
    outcome = read("p2_name_in_model.dcm")
    assert isinstance(outcome, Read)
    assert outcome.images[0][1].device is not None
    assert outcome.images[0][1].device.startswith("device-")


def test_predict_answers_the_good_files_beside_the_bad() -> None:
    names = ["jls_crash.dcm", "nf_neg.dcm", "black.png", "deflated.dcm"]
    answers = list(read_all_inputs([HOSTILE / name for name in names], 64, "breast"))
    assert [isinstance(answer, str) for answer in answers] == [True, True, True, False]
    assert "it is blank" in answers[2]


def test_a_picture_for_predict_loses_its_name() -> None:
    (answer,) = read_all_inputs([HOSTILE / "named.png"], 256, "breast")
    if isinstance(answer, str):
        assert "text is burnt into its picture" in answer
    else:
        assert int((answer[0].canvas > 235).sum()) < 0.002 * answer[0].canvas.size


def test_equal_pictures_of_two_patients_are_on_one_side(tmp_path: Path) -> None:
    """One picture under two instances of one patient and one of another patient."""
    corpus = tmp_path / "corpus"
    folder = HOSTILE / "same_picture_twice_then_other_id"
    origin = BatchOrigin(licence="", citation="")
    with BatchWriter(corpus, "dicom-folder", "0000", 256, origin=origin) as writer:
        write_inputs(dicom_folder.inputs(folder, READING), writer)
    rows = manifest.read_manifest(corpus)
    equal = rows.groupby("perceptual_hash").filter(lambda part: len(part) > 1)
    assert (len(rows), len(equal), equal["patient"].nunique()) == (6, 3, 2)
    # the worst case: the two patients are on two sides
    first = equal["patient"] == equal["patient"].iloc[0]
    rows["split"] = "val"
    rows.loc[equal.index, "split"] = np.where(first, "train", "test")
    members = duplicate_clusters(rows)
    withheld = set(members.loc[members["withheld"], "id"])
    kept = equal[~equal["id"].isin(withheld)]
    assert rows.loc[kept.index, "split"].nunique() == 1


def test_an_archive_that_states_a_huge_array_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        read_checkpoint(HOSTILE / "bomb.npz")


def test_special_files_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("fifo", "loop", "broken"):
        with pytest.raises(Refused, match=r"regular file|cannot be resolved|does not exist"):
            is_dicom(tmp_path / name)
    with pytest.raises(Refused, match="not a regular file"):
        check_regular(Path("/dev/zero"))


def test_the_kernel_limits_the_memory_of_a_worker() -> None:
    """The worker is told to make a list of bytes: the standard library has a function for it."""
    limit = Limits(20, memory=1 << 30)
    assert list(isolated(bytes, [4], 1, limit)) == [bytes(4)]
    assert list(isolated(bytearray, [1 << 31], 1, limit)) == [KILLED]


def test_an_io_error_is_tried_again_and_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arl.ingest.workers._PAUSE", 0)
    tries: list[int] = []
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)

    def records(failures: int) -> list[Record]:
        tries.append(1)
        if len(tries) <= failures:
            raise OSError(5, "Input/output error", "/hospital/Okonkwo.dcm")
        return [Record(image, Entry(key="a", anatomy="other"))]

    assert isinstance(prepare(Input("a", partial(records, 2)), 64), Read)
    tries.clear()
    assert prepare(Input("a", partial(records, 9)), 64) == TRANSIENT_REASON


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(8, 300),
    width=st.integers(8, 300),
    low=st.integers(0, 255),
    span=st.integers(0, 60),
    seed=st.integers(0, 9),
)
def test_what_ingest_accepts_validate_accepts(
    height: int, width: int, low: int, span: int, seed: int
) -> None:
    """Stills of any size, brightness and contrast against the rules of `arl validate`."""
    rng = np.random.default_rng(seed)
    image = (low + rng.integers(0, span + 1, (height, width))).clip(0, 255).astype(np.uint8)
    source = Input("a", lambda: [Record(image, Entry(key="a", anatomy="other"))])
    outcome = prepare(source, 256)
    stored = store(image, None, 256)
    columns = stored.columns
    valid = (
        limits.SMALLEST <= columns["height"] <= limits.LARGEST
        and limits.SMALLEST <= columns["width"] <= limits.LARGEST
        and limits.DARKEST <= columns["mean"] <= limits.BRIGHTEST
        and columns["std"] >= limits.FLATTEST
    )
    assert isinstance(outcome, Read) == valid

"""DICOM that holds MPEG-2, MPEG-4 part 2, H.264 or HEVC, whole and in fragments."""

import runpy
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import HEVCMP51, MPEG2MPML, MPEG2MPMLF, MPEG4HP41, MPEG4HP41F, UID

from arl import params
from arl.corpus.record import Refused
from arl.ingest.dicom.burnt_in_text import KEEP, MASK, QUARANTINE
from arl.ingest.dicom.frames import frames
from arl.ingest.dicom.rules import AnatomyRules

RULES = AnatomyRules.from_settings(params.load([], Path(__file__).parents[3] / "params.yaml").dicom)
encode = runpy.run_path(str(Path(__file__).with_name("h264.py")))["encode"]
FRAMES = 17


@pytest.fixture(scope="module")
def cine() -> np.ndarray:
    """RGB (17, 480, 640, 3): whole screens of the cardiac clip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pydicom.pixels import iter_pixels

        file = get_testdata_file("color3d_jpeg_baseline.dcm", download=False)
        return np.stack(list(iter_pixels(file, indices=range(FRAMES))))


def written(pictures: np.ndarray, target: Path, codec: str) -> bytes:
    height, width = pictures.shape[1:3]
    level = cv2.utils.logging.setLogLevel(0)
    video = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*codec), 30, (width, height))
    assert video.isOpened()
    for picture in pictures:
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    video.release()
    cv2.utils.logging.setLogLevel(level)
    return target.read_bytes()


def dicom(
    stream: bytes, target: Path, syntax: UID, fragments: int = 1, number: object = FRAMES
) -> Path:
    """The cine's own header around a stream."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(get_testdata_file("color3d_jpeg_baseline.dcm", download=False))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
        dataset.NumberOfFrames = number
        dataset.PixelData = encapsulate(
            [stream], fragments_per_frame=fragments, has_bot=fragments == 1
        )
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(target, enforce_file_format=False)
    return target


@pytest.mark.parametrize(
    ("codec", "suffix", "syntax", "fragments", "error"),
    [
        ("mpg2", "m2v", MPEG2MPML, 1, 5),
        ("mpg2", "mpg", MPEG2MPMLF, 3, 5),
        ("mpg2", "ts", MPEG2MPML, 1, 5),
        ("mp4v", "mp4", MPEG4HP41, 1, 5),
        ("h264", "", MPEG4HP41, 1, 1),
        ("h264", "", MPEG4HP41F, 7, 1),
    ],
)
def test_every_frame_is_decoded_and_cropped(
    tmp_path: Path,
    cine: np.ndarray,
    codec: str,
    suffix: str,
    syntax: UID,
    fragments: int,
    error: float,
) -> None:
    stream = encode(cine) if codec == "h264" else written(cine, tmp_path / f"clip.{suffix}", codec)
    read = list(
        frames(dicom(stream, tmp_path / "one.dcm", syntax, fragments), RULES, burnt_in_text=KEEP)
    )
    assert len(read) == FRAMES
    for (scan, info), screen in zip(read, cine, strict=True):
        assert (info.frames, info.region_rule, info.probe, scan.shape) == (
            FRAMES,
            "tag",
            "sector",
            (384, 512),
        )
        truth = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)[31:415, 84:596]
        assert np.abs(scan.astype(int) - truth).mean() < error


def test_the_stream_tells_how_many_frames_there_are(tmp_path: Path, cine: np.ndarray) -> None:
    """Writers estimate the number. A clip without a number is a clip, too."""
    for number in (None, 1, 6):
        file = dicom(encode(cine[:5]), tmp_path / "one.dcm", MPEG4HP41, number=number)
        read = [info for _, info in frames(file, RULES, burnt_in_text=KEEP)]
        assert [(info.frame, info.frames) for info in read] == [(k, 5) for k in range(5)]
    file = dicom(encode(cine[:5]), tmp_path / "one.dcm", MPEG4HP41, number=1000)
    with pytest.raises(Refused, match="its video holds 5 frames, NumberOfFrames is 1000"):
        list(frames(file, RULES, burnt_in_text=KEEP))


def test_text_is_masked_in_all_frames_or_the_file_refused(tmp_path: Path, cine: np.ndarray) -> None:
    named = cine.copy()
    for picture in named[5:13]:  # in eight of them only
        cv2.putText(
            picture,
            "NIGHTINGALE F",
            (260, 300),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.6,
            (255, 255, 255),
            1,
            cv2.LINE_AA,
        )
    file = dicom(encode(named), tmp_path / "one.dcm", MPEG4HP41)
    with pytest.raises(Refused, match=r"^text is burnt into its scan$"):
        list(frames(file, RULES, burnt_in_text=QUARANTINE))
    masked = [scan for scan, _ in frames(file, RULES, burnt_in_text=MASK)]
    assert len(masked) == FRAMES
    assert all((scan[288 - 31 : 300 - 31, 262 - 84 : 380 - 84] == 0).all() for scan in masked)


def moving(count: int = 9) -> np.ndarray:
    """A textured ellipse of depth 144 whose texture moves: what moving.hevc shows."""
    rows, columns = np.mgrid[:144, :192]
    inside = np.hypot((rows - 72) / 60, (columns - 96) / 80) < 1
    waves = [120 + 60 * np.sin((rows + 3 * k) / 9) * np.cos(columns / 11) for k in range(count)]
    return np.where(inside, waves, 0).astype(np.uint8)


@pytest.mark.parametrize("fragments", [1, 3])
def test_hevc_with_predicted_frames_is_read_in_order(tmp_path: Path, fragments: int) -> None:
    """x265 made moving.hevc (full range, CRF 16, two B-frames): ARL installs no HEVC encoder."""
    stream = Path(__file__).with_name("moving.hevc").read_bytes()
    file = dicom(stream, tmp_path / "moving.dcm", HEVCMP51, fragments=fragments, number=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(file)
        dataset.Rows, dataset.Columns = 144, 192
        del dataset.SequenceOfUltrasoundRegions
        dataset.save_as(file, enforce_file_format=False)
    read = list(frames(file, RULES, burnt_in_text=KEEP))
    assert [told.frame for _, told in read] == list(range(9))
    assert {told.region_rule for _, told in read} == {"variance"}
    for (scan, _), shown in zip(read, moving(), strict=True):
        top, left = shown.any(axis=1).argmax(), shown.any(axis=0).argmax()
        cut = shown[top : top + scan.shape[0], left : left + scan.shape[1]].astype(int)
        assert np.abs(scan.reshape(*scan.shape[:2], -1)[..., 0] - cut).mean() < 4


@pytest.mark.parametrize("syntax", [MPEG2MPML, MPEG4HP41, HEVCMP51])
@pytest.mark.parametrize("stream", [b"\0" * 64, b"\0\0\0\1", b"Nightingale" * 99])
def test_streams_that_are_none_are_refused(tmp_path: Path, syntax: UID, stream: bytes) -> None:
    with pytest.raises(Refused, match=r"^its (video|pixels) ") as refusal:
        list(frames(dicom(stream, tmp_path / "Nightingale.dcm", syntax), RULES, burnt_in_text=KEEP))
    assert "Nightingale" not in str(refusal.value)


def test_a_torn_stream_gives_the_frames_that_are_whole_or_is_refused(
    tmp_path: Path, cine: np.ndarray
) -> None:
    stream = encode(cine[:4])
    file = dicom(stream[: len(stream) * 5 // 8], tmp_path / "one.dcm", MPEG4HP41, number=4)
    try:
        read = list(frames(file, RULES, burnt_in_text=KEEP))
    except Refused:
        return
    assert 2 <= len(read) <= 3

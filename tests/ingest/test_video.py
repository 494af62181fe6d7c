"""Videos in the containers that public sets and DICOM use, whole, torn and damaged."""

import struct
import warnings
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from arl.corpus.record import Refused
from arl.ingest.video import grey_unless_coloured, read_frames

FRAMES = 13
CONTAINERS = {
    "a.avi": "MJPG",
    "b.AVI": "XVID",
    "c.mp4": "mp4v",
    "d.mov": "MJPG",
    "e.m4v": "mp4v",
    "f.mpeg": "mpg1",
    "g.mpg": "mpg2",
    "h.m2v": "mpg2",
    "i.ts": "mpg2",
}


def level(number: int) -> int:
    return 20 + 15 * number


def write(file: Path, codec: str, frames: int = FRAMES) -> Path:
    """Frame k is 64 x 48 of grey `level(k)`."""
    writer = cv2.VideoWriter(
        str(file), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, (64, 48)
    )
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((48, 64, 3), level(number), np.uint8))
    writer.release()
    return file


@pytest.mark.parametrize(("name", "codec"), CONTAINERS.items())
def test_every_frame_in_its_order_from_a_file_and_from_bytes(
    tmp_path: Path, name: str, codec: str
) -> None:
    file = write(tmp_path / name, codec)
    for source in (file, file.read_bytes()):
        frames = list(read_frames(source))
        assert {frame.shape for frame in frames} == {(48, 64, 3)}
        found = [float(grey_unless_coloured(frame).mean()) for frame in frames]
        assert found == pytest.approx([level(number) for number in range(FRAMES)], abs=5)


def test_the_name_does_not_decide_and_need_not_be_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp4", "mp4v")
    odd = tmp_path / b"\xff\xfe.avi".decode("utf-8", "surrogateescape")
    file.rename(odd)
    assert len(list(read_frames(odd))) == FRAMES


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "red.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48)
    )
    writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))
    writer.release()
    frame = next(read_frames(tmp_path / "red.avi"))
    assert frame[20, 20, 0] > 200
    assert frame[20, 20, 2] < 50
    assert grey_unless_coloured(frame).ndim == 3


def test_a_gif_with_partial_frames(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (31, 17), (level(number),) * 3) for number in range(5)]
    pictures[3].putpixel((2, 2), (255, 255, 255))
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=40)
    frames = list(read_frames(tmp_path / "a.gif"))
    assert [frame.shape for frame in frames] == [(17, 31, 3)] * 5
    assert [int(frame[9, 9, 0]) for frame in frames] == [level(number) for number in range(5)]
    torn = (tmp_path / "a.gif").read_bytes()[:120]
    with (
        warnings.catch_warnings(),
        pytest.raises(Refused, match="its video is not a readable video"),
    ):
        list(read_frames(torn))


def test_frames_come_one_by_one_and_a_clip_may_be_left(tmp_path: Path) -> None:
    file = write(tmp_path / "a.avi", "MJPG")
    frames = read_frames(file)
    assert len(list(islice(frames, 2))) == 2
    frames.close()  # type: ignore[attr-defined]
    file.unlink()


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "MJPG"), ("b.mp4", "mp4v"), ("c.mov", "MJPG")]
)
def test_a_torn_file_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, codec: str, keep: float
) -> None:
    data = write(tmp_path / name, codec).read_bytes()
    (tmp_path / name).write_bytes(data[: int(keep * len(data))])
    capfd.readouterr()  # of the writer
    with pytest.raises(
        Refused, match=f"{name} is cut off: it ends before the length that it states"
    ):
        list(read_frames(tmp_path / name))
    assert capfd.readouterr().err == ""


def test_bytes_after_the_last_box_do_not_matter(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp4", "mp4v")
    assert len(list(read_frames(file.read_bytes() + bytes(100)))) == FRAMES


def damaged(file: Path, number: int, length: int | None = None) -> bytes:
    """The bytes of an MJPEG AVI with zeros in the place of one frame, or of its first bytes."""
    data = bytearray(file.read_bytes())
    starts = [
        place
        for place in range(data.index(b"movi"), len(data))
        if data[place : place + 4] == b"00dc"
    ]
    (whole,) = struct.unpack("<I", data[starts[number] + 4 : starts[number] + 8])
    cut = length or whole
    data[starts[number] + 8 : starts[number] + 8 + cut] = bytes(cut)
    return bytes(data)


def test_a_damaged_frame_would_move_the_later_ones_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = damaged(write(tmp_path / "a.avi", "MJPG"), 5)
    capfd.readouterr()
    with pytest.raises(Refused, match="its video is damaged: its frame 5 cannot be decoded"):
        list(read_frames(data))
    assert capfd.readouterr().err == ""


def test_a_damaged_last_frame_shows_by_the_count(tmp_path: Path) -> None:
    data = damaged(write(tmp_path / "a.avi", "MJPG"), FRAMES - 1)
    with pytest.raises(
        Refused, match=f"its video is damaged: 1 of its {FRAMES} frames cannot be decoded"
    ):
        list(read_frames(data))


def test_an_index_without_frames(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.avi", "MJPG").read_bytes())
    for place in range(len(data)):
        if data[place : place + 4] == b"00dc":
            data[place : place + 4] = b"junk"
    with pytest.raises(Refused, match="holds no frame that can be decoded"):
        list(read_frames(bytes(data)))


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", b"not a video at all", bytes(5000), b"GIF89a", b"\x00\x00\x00\x18ftypisom"],
)
def test_what_is_no_video(data: bytes) -> None:
    with pytest.raises(Refused, match=r"its video is (not a readable video|torn)"):
        list(read_frames(data))


@pytest.mark.parametrize("data", [b"#EXTM3U\n/etc/passwd\n", b"ffconcat version 1.0\nfile a.avi\n"])
def test_a_list_of_other_files_is_not_followed(data: bytes) -> None:
    with pytest.raises(Refused, match="its video is a list of other files, not a video"):
        list(read_frames(data))


def test_an_index_that_points_to_nowhere(tmp_path: Path) -> None:
    """OpenCV's way through Python's streams ended the process on such files."""
    data = bytearray(write(tmp_path / "a.avi", "MJPG").read_bytes())
    index = data.rindex(b"idx1") + 8
    for place in range(index, len(data) - 16, 16):
        data[place + 8 : place + 12] = b"\xff\xff\xff\xff"
    with pytest.raises(
        Refused, match="its video is damaged: 12 of its 13 frames cannot be decoded"
    ):
        list(read_frames(bytes(data)))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^a\.avi is missing$"):
        list(read_frames(tmp_path / "a.avi"))


def test_a_header_that_asks_for_all_the_memory(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.avi", "MJPG").read_bytes())
    for old, new in (("<ii", 32000), (">HH", 65000)):  # of the container, and of the pictures in it
        data = data.replace(struct.pack(old, 64, 48), struct.pack(old, new, new))
        data = data.replace(struct.pack(old, 48, 64), struct.pack(old, new, new))
    with pytest.raises(
        Refused, match=r"its video (states frames of more than|is not a readable|holds no frame)"
    ):
        list(read_frames(bytes(data)))

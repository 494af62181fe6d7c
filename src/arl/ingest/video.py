"""Frames of videos, decoded one at a time by OpenCV's FFmpeg (LGPL), or by Pillow for GIF.

The content decides the format, not the name: AVI, MP4, MOV, M4V, MPEG program and transport
streams, bare MPEG streams, Matroska. A video is opened by its descriptor, so no decoder gets a file
name and nothing is written to a disk. (OpenCV also takes Python's streams, but releases them
without the interpreter's lock, which crashed the process on 12 of 1,500 damaged files.) The number
of frames is the number that decodes, because some containers state estimates.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageSequence

from arl.corpus.pixels import as_grey
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom.scan_region import coloured_fraction
from arl.ingest.pictures import DAMAGE
from arl.ingest.transient import is_transient

# fraction of coloured pixels: 0.000-0.007 on grey scans of seven makers, 0.05-0.17 on colour
# Doppler
_COLOURED = 0.02
# of a frame; headers of damaged files ask for more than memory holds.
_MAX_PIXELS = 1 << 24
# FFmpeg would open the files that they name.
_PLAYLISTS = (b"#EXTM3U", b"ffconcat")
# a damaged frame also ends the reading, but the next one can be read.
_AFTER_THE_END = 3
# AV_LOG_QUIET.
_QUIET = "-8"

# FFmpeg reads the level once, when the first video is opened
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)


def read_frames(source: Path | bytes | BinaryIO) -> Iterator[Pixels]:
    """The frames of a video, in order, one in memory at a time: RGB uint8 (H, W, 3).

    Frames of a phone's video are turned upright.

    Args:
        source: a file, its bytes, or an open stream with a descriptor.

    Raises:
        Refused: the file is missing, is not a video, or is cut off: AVI and MP4 state their length.
            A damaged frame refuses the video, because it would be skipped and shift later frames.
    """
    if isinstance(source, bytes):
        with os.fdopen(os.memfd_create("video"), "w+b") as memory:
            memory.write(source)
            memory.flush()
            yield from _frames(memory, "its video")
        return
    if not isinstance(source, Path):
        yield from _frames(source, "its video")
        return
    if not source.is_file():
        raise Refused(f"{source.name} is missing")
    try:
        stream = source.open("rb")
    except OSError as error:
        if is_transient(error):
            raise
        raise Refused(f"{source.name} cannot be opened ({type(error).__name__})") from error
    with stream:
        yield from _frames(stream, source.name)


def grey_unless_coloured(frame: Pixels) -> Pixels:
    """A frame as grey, unless it has enough coloured pixels for colour Doppler."""
    return frame if coloured_fraction(frame) > _COLOURED else as_grey(frame)


def _frames(stream: BinaryIO, name: str) -> Iterator[Pixels]:
    stream.seek(0)
    head = stream.read(12)
    size = stream.seek(0, os.SEEK_END)
    if head.startswith(_PLAYLISTS):
        raise Refused(f"{name} is a list of other files, not a video")
    if _is_cut_off(stream, head, size):
        raise Refused(f"{name} is cut off: it ends before the length that it states")
    stream.seek(0)
    if head[:3] == b"GIF":
        yield from _gif(stream, name)
    else:
        yield from _decoded(stream, name, exact=head[:4] == b"RIFF")


def _is_cut_off(stream: BinaryIO, head: bytes, size: int) -> bool:
    if head[:4] == b"RIFF" and len(head) >= 8:
        return int(struct.unpack("<I", head[4:8])[0]) > size
    return head[4:8] == b"ftyp" and _box_beyond(stream, size)


def _box_beyond(stream: BinaryIO, size: int) -> bool:
    """Whether a box of an ISO media file (ISO/IEC 14496-12, 4.2) reaches over its end."""
    position = 0
    while position + 16 <= size:
        stream.seek(position)
        length, kind, long = struct.unpack(">I4sQ", stream.read(16))
        # bytes after the last box, or a box up to the end of the file
        if not kind.isalnum() or length == 0:
            return False
        position += max(8, long if length == 1 else length)
    return position > size


def _decoded(stream: BinaryIO, name: str, *, exact: bool) -> Iterator[Pixels]:
    with _opened(stream, name) as video:
        count = 0
        while (frame := _next(video, name)) is not None:
            count += 1
            yield frame
        if any(_next(video, name) is not None for _ in range(_AFTER_THE_END)):
            raise Refused(f"{name} is damaged: its frame {count} cannot be decoded")
        if count == 0:
            raise Refused(f"{name} holds no frame that can be decoded")
        stated = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        codec = int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
        # FFmpeg skips damaged MJPEG frames in silence; other codecs may state an estimate.
        if exact and codec == b"MJPG" and count < stated:
            raise Refused(
                f"{name} is damaged: {stated - count} of its {stated} frames cannot be decoded"
            )


@contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[cv2.VideoCapture]:
    # OpenCV writes to the standard error stream itself; the call returns the level before
    level = cv2.utils.logging.setLogLevel(0)
    try:
        video = cv2.VideoCapture(
            f"/proc/self/fd/{stream.fileno()}", cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]
        )
    except cv2.error as error:
        raise Refused(f"{name} is not a readable video ({type(error).__name__})") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not video.isOpened():
            raise Refused(f"{name} is not a readable video")
        size = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if size > _MAX_PIXELS:
            raise Refused(f"{name} states frames of more than {_MAX_PIXELS} pixels")
        yield video
    finally:
        video.release()


def _next(video: cv2.VideoCapture, name: str) -> Pixels | None:
    try:
        has_frame, frame = video.read()
    except (cv2.error, MemoryError) as error:
        raise Refused(f"{name} is not a readable video ({type(error).__name__})") from error
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8) if has_frame else None


def _gif(stream: BinaryIO, name: str) -> Iterator[Pixels]:
    try:
        with Image.open(stream, formats=["GIF"]) as picture:
            for frame in ImageSequence.Iterator(picture):
                yield np.asarray(frame.convert("RGB"), np.uint8)
    except DAMAGE as error:
        raise Refused(f"{name} is not a readable video ({type(error).__name__})") from error

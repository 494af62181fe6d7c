"""Text burnt into scans: names, words, dates and numbers that a machine has drawn over the tissue.

Found by PP-OCRv6 (rapidocr, Apache-2.0), whose models lie in its package, so that nothing is
downloaded. What it reads leaves this module only by `words`, for the audit. Ticks, measurements and
single letters name nobody and are let pass.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom.scan_region import Box

QUARANTINE, MASK, KEEP = "quarantine", "mask", "keep"  # what is done with a file that holds text
_BLOCK = 4  # frames; text that stands for 2 * _BLOCK - 1 frames fills a block wherever it begins
_SPAN = 128  # frames of one composite: the maximum over many more would drown text in bright tissue
_ENLARGED, _LONG_SIDE = (
    1.5,
    1280,
)  # the detector sees pictures enlarged, up to a long side of so many pixels
_FOUND, _READ = (
    0.3,
    0.5,
)  # scores of the detector, and of the reader: two or three characters below it are speckle
_SURE = 0.9  # score of the reader from which four digits are a number and no ruler
_MARGIN = 0.3  # of a box's height, masked around it
_UNIT = "mm|cm|m|ms|s|cm/s|m/s|mmhg|hz|khz|mhz|db|bpm|fps|%|°|x"
# "72", "+ 13.4mm", "x 9.9 mm", "-1.20 m/s", "D1 2.1 cm": a tick, a caliper's number and a
# measurement
_MEASURED = re.compile(
    rf"([^\W\d]\d?\s*|[^\w\s]\s*|\d\s+)?[-+]?\d{{1,3}}([.,]\d{{1,2}})?\s*({_UNIT})?\W?",
    re.IGNORECASE,
)


class StandingText:
    """Looks for text in the frames of one scan region as they pass; text stands still, speckle does not.

    A composite is the maximum over blocks of four frames of the minimum within each, so that text
    which stands for seven frames or more, anywhere in the clip, is as bright in it as on the
    screen. The detector sees one composite for each 128 frames; a still is its own composite.
    """

    def __init__(self) -> None:
        self._boxes: list[Box] = []
        self._block: list[Pixels] = []
        self._composite: Pixels | None = None
        self._frames = 0

    def add(self, scan: Pixels) -> None:
        """Take the next frame, grey (H, W) or RGB (H, W, 3), always of one shape."""
        self._block.append(scan)
        self._frames += 1
        if len(self._block) == _BLOCK:
            self._close_block()
        if self._frames % _SPAN == 0:
            self._search()

    def boxes(self) -> list[Box]:
        """Where text stood in any of the frames; empty where all of it is harmless."""
        if self._composite is None and self._block:
            self._close_block()
        self._block = []
        self._search()
        return list(self._boxes)

    def _close_block(self) -> None:
        darkest = np.minimum.reduce(self._block)
        self._composite = (
            darkest if self._composite is None else np.maximum(self._composite, darkest)
        )
        self._block = []

    def _search(self) -> None:
        if self._composite is None:
            return
        texts, self._composite = _texts(self._composite), None
        if any(
            _may_name(found) for found in texts
        ):  # then a number beside it may be half of a date
            self._boxes += [
                found.box for found in texts if _may_name(found) or found.score >= _READ
            ]


def words(picture: Pixels) -> list[str]:
    """All that can be read on a picture, for the audit: it may name people, and must not be kept."""
    return [found.text for found in _texts(picture)]


def mask(scan: Pixels, boxes: list[Box]) -> Pixels:
    """The scan with its boxes black."""
    masked = scan.copy()
    for top, left, bottom, right in boxes:
        masked[top:bottom, left:right] = 0
    return masked


@dataclass(frozen=True)
class _Text:
    box: Box
    score: float  # of the reader
    text: str = field(repr=False)  # may be a name


def _may_name(found: _Text) -> bool:
    """Whether a text may name a person, a place or a day: two letters or more, or a number longer than a tick."""
    text = found.text.strip()
    if _MEASURED.fullmatch(text) or (len(text) <= 3 and found.score < _READ):
        return False
    letters = sum(character.isalpha() for character in text)
    digits = sum(character.isdigit() for character in text)
    return letters >= 2 or digits >= 5 or (digits == 4 and found.score >= _SURE)


def _texts(picture: Pixels) -> list[_Text]:
    """Every text that is found on a picture.

    Raises:
        Refused: the picture is too large for the detector's memory.
    """
    scale = min(_ENLARGED, _LONG_SIDE / max(picture.shape[:2]))
    shown = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR)
    try:
        read = _reader()(cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
    except MemoryError:
        raise Refused("it cannot be searched for text: memory ran out") from None
    if read.boxes is None:
        return []
    # a box that could not be read counts as text
    texts = getattr(read, "txts", None) or ["??"] * len(read.boxes)
    scores = read.scores or [1.0] * len(read.boxes)
    boxes = [_box(corners / scale, picture.shape[:2]) for corners in read.boxes]
    return [
        _Text(box, float(score), text)
        for box, score, text in zip(boxes, scores, texts, strict=True)
    ]


def _box(corners: Any, shape: tuple[int, ...]) -> Box:
    left, top = np.floor(corners.min(axis=0))
    right, bottom = np.ceil(corners.max(axis=0))
    margin = round(_MARGIN * (bottom - top)) + 1
    height, width = shape
    rows = max(0, int(top) - margin), min(height, int(bottom) + margin)
    columns = max(0, int(left) - margin), min(width, int(right) + margin)
    return rows[0], columns[0], rows[1], columns[1]


@cache
def _reader() -> Any:
    """One for each process; on one thread, since inputs are read by as many processes as there are cores."""
    import rapidocr  # 0.7 s and 150 MB, which only hospital files need

    models = (
        Path(rapidocr.__file__).parent / "models"
    )  # named, or rapidocr would look for newer ones on the network
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Global.text_score": 0.0,
            "Global.max_side_len": _LONG_SIDE,
            "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
            "Det.limit_type": "max",
            "Det.limit_side_len": _LONG_SIDE,
            "Det.box_thresh": _FOUND,
            "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

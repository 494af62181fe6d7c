"""Text and codes burnt into scans: names, words, dates, numbers, QR codes and barcodes.

Three searches work together:

- `overlays` finds text of any script without reading it, in every frame.
- PP-OCRv6 (rapidocr, Apache-2.0, models inside its package) detects and reads text. It runs on the
  first and last frame, on all frames of short clips, and on every frame with a candidate overlay.
- zxing-cpp decodes QR codes and barcodes in the same frames.

A box that is wider than a letter counts as text even if it cannot be read. Ticks, measurements and
single letters name nobody and stay. The texts leave this module only by `words`, for the audit.

Not covered: faces in rendered volumes, text with a contrast below about 60 grey levels,
handwriting.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zxingcpp

from arl.corpus.pixels import as_grey
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom.boxes import Box, area, clipped, merged, overlap, with_margin
from arl.ingest.dicom.overlays import (
    Overlay,
    brightest_channel,
    find_overlays,
    find_thin_overlays,
)

QUARANTINE, MASK, KEEP = "quarantine", "mask", "keep"  # actions on a file that holds text

SHORT_CLIP = 4  # frames; text detection runs on all frames of clips up to this length
_MAX_READINGS = 40  # frames of one clip that are read; further candidates count as text unread

# The composite of a clip: the maximum over blocks of four frames of the minimum within each. It
# shows text that stands for seven frames or more on darkened tissue, so faint text is found, too.
_BLOCK = 4
_SPAN = 128  # frames of one composite; over many more the maximum would hide text in bright tissue

# The detector gets pictures enlarged by this factor, up to a long side of so many pixels.
_SCALE, _LONG_SIDE = 1.5, 1280
_DETECTED = 0.3  # score of the text detector
_READ = 0.5  # score of the reader; up to three characters below it are speckle
_SURE = 0.9  # score of the reader from which four digits are a number and not a ruler
_LEGIBLE = 0.8  # score of the reader from which a word is certain
# Score of the reader from which a measurement needs no masking. It reads short Hebrew names as two
# digits with a score of up to 0.89, and ticks with 0.99.
_CERTAIN = 0.95
_WIDE = 1.3  # width over height of a detected box that is more than a letter
_TALL = 1.5  # height over width of a detected box that is a bar rather than a word
_CHARACTERS = 1.2  # of a measurement, at least, in a box as wide as it is high
_WORD = 4  # characters of a word that speckle does not spell
_MARGIN = 0.3  # of a box's height, masked around it

# A frame is a card, e.g. a title or a report page, if text covers this fraction of it or lies in
# this many boxes.
_CARD_FRACTION, _CARD_BOXES = 0.2, 5
_MAX_MASKED = 0.5  # of a scan; masking more leaves too little of it
# "72", "+ 13.4mm", "x 9.9 mm", "-1.20 m/s", "D1 2.1 cm": a tick, a calliper's number, a measurement
_UNIT = "mm|cm|m|ms|s|cm/s|m/s|mmhg|hz|khz|mhz|db|bpm|fps|%|°|x"
_MEASUREMENT = re.compile(
    rf"([^\W\d]\d?\s*|[^\w\s]\s*|\d\s+)?[-+]?\d{{1,3}}([.,]\d{{1,2}})?\s*({_UNIT})?\W?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Text:
    """One text on a picture."""

    box: Box
    score: float  # of the reader
    text: str = field(repr=False)  # may be a name

    @property
    def is_harmless(self) -> bool:
        """Whether the reader is sure of a tick, a measurement or a single character."""
        content = self.text.strip()
        top, left, bottom, right = self.box
        # The reader gives one or two characters for a word of a script that it does not know, so a
        # box has to be as narrow as its characters.
        if len(content) < _CHARACTERS * (right - left) / max(1, bottom - top):
            return False
        single = len(content) == 1 and self.score >= _READ
        return single or (self.score >= _CERTAIN and _MEASUREMENT.fullmatch(content) is not None)

    @property
    def may_name(self) -> bool:
        """Whether the content has two letters or more, or a number longer than a tick."""
        content = self.text.strip()
        if _MEASUREMENT.fullmatch(content) or (len(content) <= 3 and self.score < _READ):
            return False
        letters = sum(character.isalpha() for character in content)
        digits = sum(character.isdigit() for character in content)
        return letters >= 2 or digits >= 5 or (digits == 4 and self.score >= _SURE)

    def may_identify(self, overlays: list[Overlay]) -> bool:
        """Whether the text may name a person, a place or a day, by its content or by its shape."""
        top, left, bottom, right = self.box
        # The reader also finds short words in callipers, grey bars and speckle. An overlay at the
        # same place confirms them; a long word that is read well needs no confirmation.
        confirming = [
            overlay
            for overlay in overlays
            if max(overlap(overlay.box, self.box), overlap(self.box, overlay.box)) > 0.3
        ]
        if bottom - top > _TALL * (right - left):
            return self.may_name and any(overlay.sure for overlay in confirming)
        if self.may_name:
            legible = len(self.text.strip()) >= _WORD and self.score >= _LEGIBLE
            return legible or bool(confirming)
        wide = right - left >= _WIDE * (bottom - top)
        return wide and bool(confirming) and not self.is_harmless


@dataclass(frozen=True)
class TextBoxes:
    """Where a clip shows text.

    Attributes:
        boxes: boxes of all frames but the cards; to be masked in every frame.
        cards: numbers of frames that consist mostly of text; to be dropped.
    """

    boxes: tuple[Box, ...]
    cards: frozenset[int]

    def __bool__(self) -> bool:
        return bool(self.boxes or self.cards)

    def mask(self, scan: Pixels, number: int) -> Pixels:
        """The scan of frame `number` with its texts black; a card is black as a whole.

        Raises:
            Refused: the texts cover most of the scan.
        """
        if number in self.cards:
            return np.zeros_like(scan)
        covered = 1 - mask(np.ones(scan.shape[:2], np.uint8), self.boxes).mean()
        if covered > _MAX_MASKED:
            raise Refused("text covers most of its scan")
        return mask(scan, self.boxes)


class TextSearch:
    """Searches the frames of one scan region for text and codes as they pass."""

    def __init__(self) -> None:
        self._boxes: dict[int, list[Box]] = {}  # by frame
        self._last: Pixels | None = None
        self._searched: list[_Searched] = []
        self._short: list[Pixels] = []
        self._block: list[Pixels] = []
        self._composite: Pixels | None = None
        self._composite_boxes: list[Box] = []
        self._count = 0
        self._readings = 0
        self._last_read = -1

    def add(self, scan: Pixels) -> None:
        """Search the next frame, grey (H, W) or RGB (H, W, 3); all frames have one shape."""
        number = self._count
        self._count += 1
        overlays = find_overlays(scan)
        if number < SHORT_CLIP:
            self._short.append(scan)
        if number == 0 or (overlays and not self._is_repeated(scan, overlays, number)):
            self._search(scan, overlays, number)
        self._last = scan
        self._add_to_composite(scan)

    def result(self) -> TextBoxes:
        """Where any frame showed text; empty if all of it is harmless."""
        # A card is often the first or the last frame, and may be missed by the overlay test.
        if self._count <= SHORT_CLIP:
            pending = range(1, self._count)
        else:
            pending = range(self._count - 1, self._count)
        for number in pending:
            scan = self._short[number] if self._count <= SHORT_CLIP else self._last
            if number != self._last_read and scan is not None and number not in self._boxes:
                self._search(scan, find_overlays(scan), number)
        if self._count > SHORT_CLIP:
            if self._block:
                self._close_block()
            self._search_composite()
        cards = frozenset(number for number in self._boxes if self._is_card(number))
        # A card fades in and out: its neighbours may show it faintly.
        cards = frozenset(
            number + step
            for number in cards
            for step in (-1, 0, 1)
            if 0 <= number + step < self._count
        )
        boxes = [
            box
            for number, frame_boxes in self._boxes.items()
            if number not in cards
            for box in frame_boxes
        ]
        return TextBoxes(tuple(merged(boxes + self._composite_boxes)), cards)

    def _is_repeated(self, scan: Pixels, overlays: list[Overlay], number: int) -> bool:
        """Whether an earlier frame had the same overlays; its boxes then hold for this one."""
        for searched in reversed(self._searched[-3:]):
            if all(searched.covers(scan, overlay.box) for overlay in overlays):
                if searched.boxes:
                    self._boxes[number] = searched.boxes
                return True
        return False

    def _search(self, scan: Pixels, overlays: list[Overlay], number: int) -> None:
        # A limit, because a clip whose text changes in every frame would take minutes.
        if self._readings < _MAX_READINGS or not overlays:
            boxes = text_boxes(scan, overlays)
        else:
            boxes = [with_margin(overlay.box, _MARGIN, scan.shape) for overlay in overlays]
        self._readings += 1
        self._last_read = number
        self._searched.append(_Searched(scan, overlays, boxes))
        del self._searched[:-3]
        if boxes:
            self._boxes[number] = boxes

    def _is_card(self, number: int) -> bool:
        boxes = self._boxes[number]
        assert self._last is not None
        fraction = sum(area(box) for box in boxes) / (self._last.shape[0] * self._last.shape[1])
        return self._count > 1 and (fraction > _CARD_FRACTION or len(boxes) >= _CARD_BOXES)

    def _add_to_composite(self, scan: Pixels) -> None:
        self._block.append(scan)
        if len(self._block) == _BLOCK:
            self._close_block()
        # Bounded work and memory for clips of any length.
        if self._count % _SPAN == 0:
            self._search_composite()

    def _close_block(self) -> None:
        darkest = np.minimum.reduce(self._block)
        if self._composite is not None:
            darkest = np.maximum(self._composite, darkest)
        self._composite, self._block = darkest, []

    def _search_composite(self) -> None:
        if self._composite is not None:
            self._composite_boxes += text_boxes(self._composite, find_overlays(self._composite))
            self._composite = None


@dataclass(frozen=True)
class _Searched:
    """A frame that was searched, to recognise overlays that stand for many frames."""

    scan: Pixels
    overlays: list[Overlay]
    boxes: list[Box]

    def covers(self, scan: Pixels, box: Box) -> bool:
        """Whether the pixels of the box, which is an overlay of both frames, are nearly equal."""
        if not any(overlap(box, overlay.box) > 0.8 for overlay in self.overlays):
            return False
        here = scan[box[0] : box[2], box[1] : box[3]].astype(np.int16)
        there = self.scan[box[0] : box[2], box[1] : box[3]]
        # letters that change differ by their whole contrast; speckle moves behind standing letters
        changed = np.abs(here - there) > 40
        return float(changed.mean()) < 0.1


def text_boxes(scan: Pixels, overlays: list[Overlay]) -> list[Box]:
    """Boxes of the texts and codes of one frame that may identify somebody.

    Raises:
        Refused: the search runs out of memory.
    """
    overlays = overlays + find_thin_overlays(scan)
    texts = read_texts(scan)
    harmless = [text.box for text in texts if text.is_harmless]
    boxes = [text.box for text in texts if text.may_identify(overlays)]
    boxes += [
        with_margin(overlay.box, _MARGIN, scan.shape)
        for overlay in overlays
        if overlay.sure and not any(overlap(overlay.box, box) > 0.6 for box in harmless)
    ]
    boxes += codes(scan)
    if boxes:
        # A number beside a name may be a part of a date or an identifier.
        boxes += [text.box for text in texts if text.score >= _READ]
    return merged(boxes)


def words(picture: Pixels) -> list[str]:
    """Read all texts and codes of a picture; for the audit only, since they name people."""
    # A code holds more than a name: its content has to be compared with what was planted.
    read = zxingcpp.read_barcodes(np.ascontiguousarray(as_grey(picture)))
    return [text.text for text in read_texts(picture)] + [code.text for code in read]


def mask(scan: Pixels, boxes: tuple[Box, ...] | list[Box]) -> Pixels:
    """The scan with its boxes black."""
    masked = scan.copy()
    for top, left, bottom, right in boxes:
        masked[top:bottom, left:right] = 0
    return masked


def codes(scan: Pixels) -> list[Box]:
    """Boxes of the QR codes and barcodes that can be decoded."""
    boxes = []
    for code in zxingcpp.read_barcodes(np.ascontiguousarray(as_grey(scan))):
        # Speckle decodes to one or two digits at times.
        if len(code.text) < 3:
            continue
        corners = [
            getattr(code.position, name)
            for name in ("top_left", "top_right", "bottom_right", "bottom_left")
        ]
        rows, columns = [corner.y for corner in corners], [corner.x for corner in corners]
        # A linear code is found on one line of pixels: mask it as high as it may be.
        side = max(max(rows) - min(rows), (max(columns) - min(columns)) // 3)
        middle = (max(rows) + min(rows)) // 2
        box = (middle - side // 2 - 4, min(columns) - 4, middle + side // 2 + 4, max(columns) + 4)
        boxes.append(clipped(box, scan.shape))
    return boxes


def read_texts(picture: Pixels) -> list[Text]:
    """Every text that the detector finds on a picture.

    Raises:
        Refused: the picture is too large for the detector's memory.
    """
    scale = min(_SCALE, _LONG_SIDE / max(picture.shape[:2]))
    # The detector is trained on photographs: letters of 12 pixels are found only when enlarged.
    level = cv2.cvtColor(brightest_channel(picture), cv2.COLOR_GRAY2BGR)
    try:
        enlarged = cv2.resize(level, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        output = _reader()(enlarged)
    except MemoryError:
        raise Refused("it cannot be searched for text: memory ran out") from None
    if output.boxes is None:
        return []
    # a box without a reading counts as text
    texts = getattr(output, "txts", None) or ["??"] * len(output.boxes)
    scores = output.scores or [1.0] * len(output.boxes)
    read = []
    for corners, score, text in zip(output.boxes / scale, scores, texts, strict=True):
        left, top = np.floor(corners.min(axis=0)).astype(int).tolist()
        right, bottom = np.ceil(corners.max(axis=0)).astype(int).tolist()
        box = with_margin((top, left, bottom, right), _MARGIN, picture.shape)
        read.append(Text(box, float(score), text))
    return read


@cache
def _reader() -> Any:
    """The text detector and reader, on one thread, because ingest runs one process per core."""
    import rapidocr  # 0.7 s and 150 MB, which only hospital files need

    # named, because rapidocr would otherwise look for newer models on the network
    models = Path(rapidocr.__file__).parent / "models"
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Global.text_score": 0.0,
            "Global.max_side_len": _LONG_SIDE,
            "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
            "Det.limit_type": "max",
            "Det.limit_side_len": _LONG_SIDE,
            "Det.box_thresh": _DETECTED,
            "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

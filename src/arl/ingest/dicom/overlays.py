"""Overlays in scans, found without reading: text in any script, QR codes and barcodes.

A small convolutional network gives each 4 x 4 block of pixels a probability of being part of an
overlay. Overlays differ from speckle by flat grey levels and by edges of one pixel. The network is
trained on random letters of all scripts drawn into scans (benchmarks/train_overlay_network.py);
callipers, rulers, frames and curves are its negative examples. One frame of 640 x 480 pixels takes
about 25 ms on one core, so every frame of a clip is searched.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from arl.corpus.record import Pixels
from arl.ingest.dicom.boxes import Box

STRIDE = 4  # pixels of a block
_LONG_SIDE = 1280  # pixels; larger frames are scaled down
_MIN_SIDE = 32  # pixels; smaller frames are padded
_NETWORK = Path(__file__).with_name("overlays.onnx")
_BLOCK = 0.5  # probability of a block that belongs to a component
_GAP = 5  # blocks between letters that are closed, along a line

# A component of this probability and size is an overlay without being read.
_SURE, _SURE_BLOCKS = 0.8, 10
# Strokes of Arabic and Hebrew are thinner than those of other scripts of the same height. The
# network finds them when the picture is enlarged, and then sees more speckle as letters, too: at
# this probability 2 of 499 scans without text.
_ENLARGED, _SURE_ENLARGED = 1.5, 0.84
# A smaller or less probable one is a candidate, which the text detector has to confirm.
_CANDIDATE, _CANDIDATE_BLOCKS = 0.6, 3


@dataclass(frozen=True)
class Overlay:
    """One connected overlay."""

    box: Box
    probability: float  # the mean of its blocks
    blocks: int  # of `STRIDE` x `STRIDE` pixels
    sure: bool  # needs no confirmation by the text detector


def find_overlays(picture: Pixels) -> list[Overlay]:
    """The overlays of a picture, grey (H, W) or RGB (H, W, 3)."""
    return _overlays(brightest_channel(picture), 1.0, _SURE)


def find_thin_overlays(picture: Pixels) -> list[Overlay]:
    """The sure overlays of the enlarged picture, which `find_overlays` may miss.

    It takes twice as long as `find_overlays`.
    """
    # A large picture is not enlarged: its letters have more pixels.
    overlays = _overlays(brightest_channel(picture), _ENLARGED, _SURE_ENLARGED)
    return [overlay for overlay in overlays if overlay.sure]


def _overlays(level: Pixels, scale: float, sure: float) -> list[Overlay]:
    """The overlays of the picture at a scale, or at `_LONG_SIDE` if that is smaller."""
    height, width = level.shape
    scale = min(scale, _LONG_SIDE / max(height, width))
    if scale != 1:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        level = np.asarray(cv2.resize(level, None, fx=scale, fy=scale, interpolation=how), np.uint8)
    probability = _probability(level)
    blocks = (probability > _BLOCK).astype(np.uint8)
    joined = cv2.morphologyEx(blocks, cv2.MORPH_CLOSE, np.ones((1, _GAP), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined)
    overlays = []
    for i in range(1, count):
        left, top, columns, rows, _ = (int(value) for value in stats[i])
        window = np.s_[top : top + rows, left : left + columns]
        inside = (labels[window] == i) & (blocks[window] > 0)
        size, mean = int(inside.sum()), float(probability[window][inside].mean())
        if size < _CANDIDATE_BLOCKS or mean < _CANDIDATE:
            continue
        unit = STRIDE / scale
        box = (
            max(0, int((top - 0.5) * unit)),
            max(0, int((left - 0.5) * unit)),
            min(height, round((top + rows + 0.5) * unit)),
            min(width, round((left + columns + 0.5) * unit)),
        )
        # A bright row at the edge of a picture is a frame line, not a line of text.
        edge_line = rows <= 2 and (top == 0 or top + rows == probability.shape[0])
        # As many pixels of the picture at any scale.
        large = size >= _SURE_BLOCKS * max(1.0, scale) ** 2
        overlays.append(Overlay(box, mean, size, large and mean >= sure and not edge_line))
    return overlays


def brightest_channel(picture: Pixels) -> Pixels:
    """Grey (H, W): the maximum over the channels, in which coloured text is as bright as white."""
    if picture.ndim == 2:
        return picture
    red, green, blue = cv2.split(picture)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def _probability(level: Pixels) -> npt.NDArray[np.float32]:
    """Probability of overlay (rows, columns) of each block."""
    height, width = level.shape
    # The dilated convolutions see 40 pixels; a smaller picture would be mostly zero padding.
    bottom, right = max(0, _MIN_SIDE - height), max(0, _MIN_SIDE - width)
    if bottom or right:
        level = np.pad(level, ((0, bottom), (0, right)), mode="edge")
    image = level[None, None].astype(np.float32) / 255
    (probability,) = _session().run(None, {"image": image})
    return np.asarray(probability[0, 0], np.float32)


@cache
def _session() -> Any:
    """The network on one thread, because ingest runs one process per core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(_NETWORK), options, providers=["CPUExecutionProvider"])

"""Pictures on pages: thumbnails of images, and panels with what a model saw in them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.corpus.pixels import encode_png, fit
from arl.corpus.record import Pixels
from arl.corpus.shard_reader import read_images
from arl.evaluation.metrics import Floats
from arl.evaluation.panels import Panel
from arl.reports.elements import Picture, Thumbnail

THUMBNAIL = 176  # long side, pixels
_STRIP_HEIGHT = 64
_PANEL = 224  # short side of a panel, at least, pixels
_HEAT_OPACITY = 0.45
_COLD, _WARM = np.array([59, 76, 192.0]), np.array([180, 4, 38.0])  # against, for
_YELLOW = (255, 210, 74)

RGB = npt.NDArray[np.uint8]


def thumbnail(image: Pixels, alt: str) -> Picture:
    """The image with a long side of THUMBNAIL pixels."""
    # Whole images, not squares: the sector of a probe would lose its corners.
    height, width = fit(image.shape[0], image.shape[1], THUMBNAIL)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return Picture(encode_png(np.ascontiguousarray(small, np.uint8)), alt)


def contact_sheet(
    corpus: Path,
    rows: pd.DataFrame,
    describe: Callable[["pd.Series[Any]"], Sequence[str]],
    *,
    show_ids: bool = False,
) -> list[Thumbnail]:
    """The images of manifest rows; `describe` returns the lines below one."""
    sheet = []
    for (_, row), image in zip(rows.iterrows(), read_images(corpus, rows), strict=True):
        kind = "Synthetic image" if row["synthetic"] else "Ultrasound image"
        label = f", {row['label']}" if pd.notna(row["label"]) else ""
        # The text for screen readers says first whether a picture is real.
        picture = thumbnail(image, f"{kind}: {row['anatomy']}{label}")
        lines = [line for line in describe(row) if line]
        name = str(row["id"]) if show_ids else ""
        sheet.append(Thumbnail(picture, lines, bool(row["synthetic"]), name))
    return sheet


def describe(row: "pd.Series[Any]", *names: str) -> str:
    """The values of a manifest row that are known, e.g. "breast, benign"."""
    return ", ".join(str(row[name]) for name in names if pd.notna(row[name]))


def strip(images: Sequence[Pixels]) -> bytes:
    """A PNG of squares cut from the middles of images, side by side."""
    squares = []
    for image in images:
        side = min(image.shape)
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        squares.append(cv2.resize(square, (_STRIP_HEIGHT, _STRIP_HEIGHT)))
    return encode_png(np.concatenate(squares, axis=1))


def panel(one: Panel) -> Picture:
    """A panel with its overlays, enlarged so that they can be seen."""
    height, width = one.picture.shape[:2]
    scale = max(1.0, _PANEL / min(height, width))
    size = (round(width * scale), round(height * scale))
    # Patch maps keep hard edges: smoothing would suggest a resolution that they lack.
    smooth = cv2.INTER_LINEAR if one.picture.ndim == 2 else cv2.INTER_NEAREST
    canvas = cv2.resize(_rgb(one.picture), size, interpolation=smooth)
    if one.heat is not None:
        # Blue where patches speak against the call, red where they speak for it.
        large = cv2.resize(np.asarray(one.heat, np.float32), canvas.shape[1::-1])
        relative = (large / (float(np.abs(one.heat).max()) or 1.0)).clip(-1, 1)[:, :, None]
        colour = np.where(relative > 0, _WARM, _COLD)
        opacity = _HEAT_OPACITY * np.abs(relative)
        canvas = np.ascontiguousarray((canvas * (1 - opacity) + colour * opacity).astype(np.uint8))
    if one.outline is not None:
        mask = cv2.resize(one.outline.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, _YELLOW, 2)
    if one.arrows is not None:
        _draw_arrows(canvas, *one.arrows, scale)
    return Picture(_encode_rgb(canvas), one.title or "Image")


def panels(rows: Sequence[Sequence[Panel]]) -> list[list[tuple[Picture, str]]]:
    """Rows of pictures with their titles, for the macro `picture_grid`."""
    return [[(panel(one), one.title) for one in row] for row in rows]


def _rgb(picture: npt.NDArray[Any]) -> RGB:
    if picture.ndim == 2:
        grey = picture.clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    return np.ascontiguousarray((picture.clip(0, 1) * 255).round().astype(np.uint8))


def _draw_arrows(canvas: RGB, tails: Floats, heads: Floats, scale: float) -> None:
    for (y0, x0), (y1, x1) in zip(tails * scale, heads * scale, strict=True):
        start, end = (round(float(x0)), round(float(y0))), (round(float(x1)), round(float(y1)))
        cv2.arrowedLine(canvas, start, end, _YELLOW, 1, cv2.LINE_AA, tipLength=0.35)


def _encode_rgb(canvas: RGB) -> bytes:
    done, content = cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
    assert done
    return content.tobytes()

"""Pixels on their way into and out of the corpus: grey, scaled, packed, measured, letterboxed."""

import hashlib
from dataclasses import dataclass
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt

from arl.corpus.record import Mask, Pixels

Packed = bytes | memoryview
# scaled down by less, speckle is smooth enough for bilinear interpolation, which is five times as
# fast as averaging
_MILD = 1.5


def as_grey(image: Pixels) -> Pixels:
    """(H, W, 3) to (H, W) by luma; a grey image as it is."""
    return (
        image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    )


def _drop_equal_channels(image: Pixels) -> Pixels:
    if (
        image.ndim == 3
        and np.array_equal(image[..., 0], image[..., 1])
        and np.array_equal(image[..., 0], image[..., 2])
    ):
        return np.ascontiguousarray(image[..., 0])
    return image


def fit(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after scaling the long side to `size`, each at least 1."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _shrink(image: npt.NDArray[Any], size: int, interpolation: int) -> npt.NDArray[Any]:
    height, width = image.shape[:2]
    if max(height, width) <= size:
        return image
    rows, columns = fit(height, width, size)
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=interpolation))


def pack(image: Pixels) -> bytes:
    """Second differences along rows and columns, plane by plane, modulo 256.

    Speckle is smooth, so that each pixel is nearly `left + above - above left`. Under zstd this is
    smaller than PNG and decodes six times as fast (benchmarks/loader.py); PNG's own filters are
    one-dimensional or slow to undo.
    """
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    difference = planes.copy()
    difference[:, 1:] -= planes[:, :-1]
    difference[:, :, 1:] -= difference[:, :, :-1].copy()
    return difference.tobytes()


def unpack(packed: Packed, height: int, width: int) -> Pixels:
    """The image uint8 (H, W), or RGB (H, W, 3), that `pack` has packed.

    Raises:
        ValueError: the bytes do not fill one or three planes.
    """
    difference = np.frombuffer(packed, np.uint8)
    channels, rest = divmod(len(difference), height * width)
    if rest or channels not in (1, 3):
        raise ValueError(
            f"{len(difference)} stored bytes are not {height} x {width} pixels, grey or RGB"
        )
    # Sums over rows and columns, modulo 256, are the low bytes of OpenCV's integral image.
    planes: list[Pixels] = [
        cv2.integral(plane)[1:, 1:].astype(np.uint8)
        for plane in difference.reshape(channels, height, width)
    ]
    return planes[0] if channels == 1 else np.dstack(planes)


def in_channels(image: Pixels, channels: int) -> Pixels:
    """A grey or RGB image as uint8 (H, W) for one channel, (H, W, 3) for three."""
    if channels == 1 or image.ndim == 3:
        return as_grey(image) if channels == 1 else image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def encode_png(image: Pixels) -> bytes:
    """PNG of a grey (H, W) or RGB (H, W, 3) image, for pages."""
    done, png = cv2.imencode(
        ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    )
    assert done
    return bytes(png)


def pixel_sha256(image: Pixels) -> str:
    """Hex SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(
        f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()
    ).hexdigest()


def perceptual_hash(image: Pixels) -> int:
    """64 bits of which near-identical pictures differ in a few: pHash.

    Which of the lowest 8 x 8 terms of the cosine transform are above their median; the picture is
    grey and scaled to 32 x 32. At a distance of 6 or less there was no false pair in BUS-BRA;
    neighbouring frames of a clip are closer.
    """
    small = cv2.resize(as_grey(image), (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8]
    return _bits(low > np.median(low))


def difference_hash(image: Pixels) -> int:
    """64 bits: where an image, grey and scaled to 8 x 9, grows brighter to the right (dHash)."""
    small = cv2.resize(as_grey(image), (9, 8), interpolation=cv2.INTER_AREA)
    return _bits(small[:, 1:] > small[:, :-1])


def detail_hash(image: Pixels) -> bytes:
    """1,024 bits: the signs of the high-pass filtered image, 32 x 32.

    pHash and dHash describe the coarse shape, which many scans of one organ share. The signs
    describe speckle and texture, which only copies and neighbouring frames share.
    """
    small = cv2.resize(as_grey(image), (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    detail = small - cv2.GaussianBlur(small, (0, 0), 3)
    signs = cv2.resize(detail, (32, 32), interpolation=cv2.INTER_AREA) > 0
    return np.packbits(signs).tobytes()


def _bits(flags: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(flags).tobytes())


class PixelColumns(TypedDict):
    """The columns of the manifest that describe stored pixels; see `manifest.SCHEMA`."""

    height: int
    width: int
    original_height: int
    original_width: int
    mean: float
    std: float
    pixel_sha256: str
    perceptual_hash: int
    difference_hash: int
    detail_hash: bytes


@dataclass(frozen=True)
class Stored:
    """An image as it will lie in a shard, with what the manifest says of its pixels."""

    # See `pack`.
    image: bytes
    # a byte a pixel, 0 or 1.
    mask: bytes | None
    columns: PixelColumns


def store(image: Pixels, mask: Mask | None, store_size: int) -> Stored:
    """Scale down (long side to `store_size`, never up), drop equal channels, measure and encode.

    Raises:
        ValueError: pixels or mask of another type or shape.
    """
    _check_pixels(image, mask)
    stored: Pixels = _shrink(_drop_equal_channels(image), store_size, cv2.INTER_AREA)
    grey = as_grey(stored)
    columns: PixelColumns = {
        "height": stored.shape[0],
        "width": stored.shape[1],
        "original_height": image.shape[0],
        "original_width": image.shape[1],
        "mean": float(grey.mean()),
        "std": float(grey.std()),
        "pixel_sha256": pixel_sha256(stored),
        "perceptual_hash": perceptual_hash(grey),
        "difference_hash": difference_hash(grey),
        "detail_hash": detail_hash(grey),
    }
    if mask is None:
        return Stored(pack(stored), None, columns)
    # Averaging would need a threshold; the nearest pixel keeps the mask binary.
    small = _shrink(mask.astype(np.uint8), store_size, cv2.INTER_NEAREST)
    return Stored(pack(stored), small.tobytes(), columns)


def _check_pixels(image: Pixels, mask: Mask | None) -> None:
    shape = image.shape
    if (
        image.dtype != np.uint8
        or not (image.ndim == 2 or (image.ndim == 3 and shape[2] == 3))
        or 0 in shape
    ):
        raise ValueError(f"image: expected uint8 (H, W) or (H, W, 3), got {image.dtype} {shape}")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape[:2]):
        raise ValueError(f"mask: expected bool {shape[:2]}, got {mask.dtype} {mask.shape}")


def letterbox(image: Pixels, size: int, *, nearest: bool = False) -> tuple[Pixels, tuple[int, int]]:
    """Canvas uint8 (size, size) with the image in the top-left corner, and the image's extent.

    The long side of the image is scaled to `size`.
    """
    height, width = fit(image.shape[0], image.shape[1], size)
    canvas = np.zeros((size, size), np.uint8)
    canvas[:height, :width] = _resized(image, height, width, nearest)
    return canvas, (height, width)


def stretch(image: Pixels, size: int, *, nearest: bool = False) -> tuple[Pixels, tuple[int, int]]:
    """Canvas uint8 (size, size) that the image fills, and its extent, the whole canvas."""
    return _resized(image, size, size, nearest), (size, size)


def _resized(image: Pixels, height: int, width: int, nearest: bool) -> Pixels:
    mild = max(image.shape[0] / height, image.shape[1] / width) <= _MILD
    smooth = cv2.INTER_LINEAR if mild else cv2.INTER_AREA
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST if nearest else smooth)
    )

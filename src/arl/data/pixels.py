"""Pixels on their way into and out of the corpus: grey, scaled, encoded, measured, letterboxed."""

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from arl.data.record import Mask, Pixels


def as_grey(image: Pixels) -> Pixels:
    """(H, W, 3) to (H, W) by luma; a grey image as it is."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


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


def _encode(image: npt.NDArray[Any], flags: list[int]) -> bytes:
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, png = cv2.imencode(".png", ordered, flags)
    assert done
    return bytes(png)


def encode_image(image: Pixels) -> bytes:
    """Lossless PNG of a grey (H, W) or RGB (H, W, 3) image."""
    # OpenCV's own default (run lengths, filter "sub") is both smaller and 5x faster on speckle than zlib's levels
    return _encode(image, [])


def encode_mask(mask: Mask) -> bytes:
    """1-bit PNG of a mask (H, W)."""
    return _encode(mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])


def decode_image(png: bytes, channels: int = 1) -> Pixels:
    """uint8 (H, W) for one channel, (H, W, 3) RGB for three.

    Raises:
        ValueError: the bytes are not an image.
    """
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("stored bytes are not a readable PNG")
    if channels == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image, np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB), np.uint8)


def pixel_sha256(image: Pixels) -> str:
    """Hex SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def perceptual_hash(image: Pixels) -> int:
    """64 bits that near-identical pictures share but for a few: which low frequencies lie above their median (pHash).

    The lowest 8 x 8 terms of the cosine transform of the picture, grey and scaled to 32 x 32.
    """
    small = cv2.resize(as_grey(image), (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = _COSINES @ small @ _COSINES.T
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


# rows: the lowest 8 of the cosine transform of 32 samples (type II)
_COSINES = np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5))


@dataclass(frozen=True)
class Stored:
    """An image as it will lie in a shard, with what the manifest says of its pixels."""

    image: bytes
    mask: bytes | None
    columns: dict[str, Any]


def store(image: Pixels, mask: Mask | None, store_size: int) -> Stored:
    """Scale down (long side to `store_size`, never up), drop equal channels, measure and encode.

    Raises:
        ValueError: pixels or mask of another type or shape.
    """
    _check_pixels(image, mask)
    stored: Pixels = _shrink(_drop_equal_channels(image), store_size, cv2.INTER_AREA)
    grey = as_grey(stored)
    columns = {
        "height": stored.shape[0],
        "width": stored.shape[1],
        "original_height": image.shape[0],
        "original_width": image.shape[1],
        "mean": float(grey.mean()),
        "std": float(grey.std()),
        "pixel_sha256": pixel_sha256(stored),
    }
    return Stored(encode_image(stored), None if mask is None else _store_mask(mask, store_size), columns)


def _store_mask(mask: Mask, store_size: int) -> bytes:
    shrunk = _shrink(mask.astype(np.uint8), store_size, cv2.INTER_NEAREST)
    return encode_mask(shrunk.astype(np.bool_))


def _check_pixels(image: Pixels, mask: Mask | None) -> None:
    shape = image.shape
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and shape[2] == 3)) or 0 in shape:
        raise ValueError(f"image: expected uint8 (H, W) or (H, W, 3), got {image.dtype} {shape}")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape[:2]):
        raise ValueError(f"mask: expected bool {shape[:2]}, got {mask.dtype} {mask.shape}")


def letterbox(image: Pixels, size: int, *, nearest: bool = False) -> tuple[Pixels, tuple[int, int]]:
    """Canvas uint8 (size, size) with the image, its long side scaled to `size`, in the top-left corner; its extent."""
    height, width = fit(image.shape[0], image.shape[1], size)
    smooth = cv2.INTER_AREA if max(image.shape[:2]) > size else cv2.INTER_LINEAR
    canvas = np.zeros((size, size), np.uint8)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST if nearest else smooth)
    return canvas, (height, width)

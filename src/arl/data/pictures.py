"""Pictures of public datasets (PNG, JPEG, TIFF, BMP), read strictly: a torn file is refused, never half decoded."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from arl.data.record import Mask, Pixels, Refused

# what Pillow raises on damaged files, depending on where the damage is
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_picture(file: Path) -> Pixels:
    """uint8 (H, W), or RGB (H, W, 3) where the file holds colours or a palette.

    Raises:
        Refused: the file is missing, damaged, or not of 8 bits a channel.
    """
    if not file.is_file():
        raise Refused(f"{file.name} is missing")
    try:
        with Image.open(file) as picture:
            mode = picture.mode
            pixels = np.asarray(picture.convert("L" if mode in _GREY else "RGB"), np.uint8)
    except _DAMAGE as error:
        raise Refused(f"{file.name} is not a readable picture ({type(error).__name__})") from error
    if mode not in _GREY + _COLOUR:
        raise Refused(f"{file.name} holds {mode} pixels, not 8 bits a channel")
    return pixels


def read_mask(file: Path, image: Pixels, threshold: int) -> Mask:
    """Mask bool (H, W) of an image: the grey levels >= `threshold`.

    Raises:
        Refused: the file cannot be read, has another size than the image, or shows nothing.
    """
    mask = read_picture(file)
    grey = mask if mask.ndim == 2 else mask.max(axis=2)
    if grey.shape != image.shape[:2]:
        raise Refused(f"{file.name} is {grey.shape[1]}x{grey.shape[0]}, its image {image.shape[1]}x{image.shape[0]}")
    binary = grey >= threshold
    if not binary.any():
        raise Refused(f"{file.name} is empty")
    return binary

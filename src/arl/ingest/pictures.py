"""Pictures (PNG, JPEG, TIFF, BMP), read strictly: a truncated file is refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from arl.corpus.record import Mask, Pixels, Refused
from arl.ingest.transient import is_transient

# errors of Pillow on damaged files
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# a damaged or hostile header asks for more than memory holds.
MAX_PIXELS = 1 << 25
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
            if picture.width * picture.height > MAX_PIXELS:
                raise Refused(f"{file.name} has more than {MAX_PIXELS} pixels")
            mode = picture.mode
            # Pillow warns of palettes with transparency unless they are converted to RGBA first
            opaque = picture.convert("RGBA") if "transparency" in picture.info else picture
            pixels = np.asarray(opaque.convert("L" if mode in _GREY else "RGB"), np.uint8)
    except DAMAGE as error:
        if is_transient(error):
            raise
        raise Refused(f"{file.name} is not a readable picture ({type(error).__name__})") from error
    if mode not in _GREY + _COLOUR:
        raise Refused(f"{file.name} holds {mode} pixels, not 8 bits a channel")
    return pixels


def read_mask(file: Path, image: Pixels, threshold: int) -> Mask:
    """Mask bool (H, W) of an image; see `read_binary`.

    Raises:
        Refused: the file cannot be read, has another size than the image, or shows nothing.
    """
    mask = read_binary(file, image, threshold)
    if not mask.any():
        raise Refused(f"{file.name} is empty")
    return mask


def read_binary(file: Path, image: Pixels, threshold: int) -> Mask:
    """Mask bool (H, W) of an image, possibly empty; see `binary` for the threshold.

    Raises:
        Refused: the file cannot be read, or has another size than the image.
    """
    pixels = same_size(file, read_picture(file), image)
    return binary(pixels if pixels.ndim == 2 else pixels.max(axis=2), threshold)


def binary(levels: Pixels, threshold: int) -> Mask:
    """Pixels at or above `threshold`; pixels of 1 in a picture of zeros and ones."""
    return levels >= (1 if levels.max(initial=0) == 1 else threshold)


def same_size(file: Path, pixels: Pixels, image: Pixels) -> Pixels:
    """Check that `pixels` of a file have the size of the image, and return them.

    Raises:
        Refused: they have another size than the image.
    """
    height, width = pixels.shape[:2]
    if (height, width) != image.shape[:2]:
        raise Refused(
            f"{file.name} is {width}x{height}, its image {image.shape[1]}x{image.shape[0]}"
        )
    return pixels

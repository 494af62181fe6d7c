"""Limits of stored images: ingest refuses or drops what `arl validate` would call critical."""

from arl.corpus.pixels import Stored

# Side of a stored image, pixels.
SMALLEST, LARGEST = 32, 4096
# Mean grey level of an image that shows anything.
DARKEST, BRIGHTEST = 1.0, 250.0
# Standard deviation of its grey levels.
FLATTEST = 2.0


def is_blank(mean: float, std: float) -> bool:
    """Whether grey levels of this mean and standard deviation show nothing."""
    return not (DARKEST <= mean <= BRIGHTEST and std >= FLATTEST)


def is_blank_image(stored: Stored) -> bool:
    """Whether an image shows nothing, as stored."""
    return is_blank(stored.columns["mean"], stored.columns["std"])


def size_problem(stored: Stored) -> str | None:
    """The reason why the size of an image cannot be stored; None if it can."""
    height, width = stored.columns["height"], stored.columns["width"]
    if min(height, width) < SMALLEST:
        return f"its image is stored as {height} x {width} pixels, a side has at least {SMALLEST}"
    if max(height, width) > LARGEST:
        return f"its image is stored as {height} x {width} pixels, a side has at most {LARGEST}"
    return None

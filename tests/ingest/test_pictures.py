"""8-bit pictures come out as levels or colours; masks by threshold or as zeros and ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arl.corpus.record import Refused
from arl.ingest.pictures import read_binary, read_mask, read_picture

LEVELS = np.random.default_rng(0).integers(0, 256, (11, 17), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (11, 17, 3), dtype=np.uint8)


def save(file: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(file, **options)
    return file


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_modes_with_and_without_alpha(tmp_path: Path, mode: str) -> None:
    source = LEVELS if mode.startswith("L") else COLOURS
    file = save(tmp_path / "p.png", Image.fromarray(source).convert(mode))
    assert np.array_equal(read_picture(file), source)


def test_palettes_with_transparency(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0])
    file = save(tmp_path / "p.png", picture, transparency=b"\x00\xff")
    assert read_picture(file)[0].tolist() == [[255, 0, 0], [0, 255, 0]]


def test_masks_of_two_levels_whatever_these_are(tmp_path: Path) -> None:
    shape = LEVELS > 99
    for top in (1, 255):
        file = save(tmp_path / "m.png", Image.fromarray(shape.astype(np.uint8) * np.uint8(top)))
        assert np.array_equal(read_mask(file, LEVELS, 128), shape)
    file = save(tmp_path / "m.png", Image.fromarray(shape.astype(np.uint8) * np.uint8(127)))
    assert not read_binary(file, LEVELS, 128).any()
    with pytest.raises(Refused, match=r"m.png is empty"):
        read_mask(file, LEVELS, 128)
    with pytest.raises(Refused, match=r"m.png is 17x11, its image 11x17"):
        read_binary(file, LEVELS.T, 128)

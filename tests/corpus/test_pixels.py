"""Packing without loss, and hashes that near-identical pictures share."""

import cv2
import numpy as np
import pytest

from arl.corpus.pixels import (
    detail_hash,
    difference_hash,
    in_channels,
    letterbox,
    pack,
    perceptual_hash,
    unpack,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def speckle(seed: int, height: int = 231, width: int = 187) -> np.ndarray:
    """Smooth noise over a smooth background, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.uniform(20, 200, (5, 4)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    fine = cv2.GaussianBlur(rng.normal(0, 60, (height, width)), (0, 0), 2)
    return (coarse + fine).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (23, 37), (23, 37, 3), (1, 1, 3)])
def test_packing_loses_nothing(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    assert np.array_equal(unpack(pack(image), *shape[:2]), image)


@pytest.mark.parametrize("level", [0, 255])
def test_packing_holds_where_sums_outgrow_their_integers(level: int) -> None:
    """The sum over 4096 x 4096 differences may pass 2^31; only its low byte counts."""
    image = np.full((4096, 4096), level, np.uint8)
    image[1::2] ^= 255
    assert np.array_equal(unpack(pack(image), 4096, 4096), image)


@pytest.mark.parametrize(("size", "height"), [(24, 5), (40, 5), (20, 3)])
def test_bytes_that_do_not_fill_the_image_are_refused(size: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"{size} stored bytes are not {height} x 4"):
        unpack(bytes(size), height, 4)


def test_channels() -> None:
    grey, colour = noise(5, 7), noise(5, 7, 3)
    assert np.array_equal(in_channels(grey, 3)[..., 2], grey)
    assert np.array_equal(in_channels(colour, 1), cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))
    assert in_channels(grey, 1) is grey
    assert in_channels(colour, 3) is colour


def test_fine_lines_are_averaged_where_an_image_is_scaled_down_by_more_than_a_half() -> None:
    lines = np.zeros((1, 309), np.uint8)
    lines[:, ::2] = 210
    image = np.repeat(lines, 31, axis=0)
    small, (height, width) = letterbox(image, 103)
    assert set(np.unique(small[:height, :width])) == {70, 140}
    mild, (height, width) = letterbox(image, 211)
    assert np.array_equal(
        mild[:height, :width], cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    )


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@pytest.mark.parametrize("hashed", [perceptual_hash, difference_hash])
def test_near_identical_pictures_share_their_hash_and_others_do_not(hashed) -> None:
    image = speckle(0)
    darker = (image * 0.8).astype(np.uint8)
    smaller = cv2.resize(image, (120, 150), interpolation=cv2.INTER_AREA)
    compressed = cv2.imdecode(
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_GRAYSCALE
    )
    assert (
        max(distance(hashed(image), hashed(other)) for other in (darker, smaller, compressed)) <= 6
    )
    assert min(distance(hashed(image), hashed(speckle(seed))) for seed in range(1, 30)) > 6
    assert 0 <= hashed(image) < 1 << 64


def test_the_perceptual_hash_is_the_sign_of_the_lowest_frequencies() -> None:
    """Against the definition of the cosine transform of type II."""
    image = speckle(3, 32, 32)
    k, n = np.arange(8)[:, None], np.arange(32)[None]
    basis = np.cos(np.pi * k * (2 * n + 1) / 64) * np.where(
        k == 0, np.sqrt(1 / 32), np.sqrt(2 / 32)
    )
    low = basis @ image.astype(float) @ basis.T
    bits = "".join("01"[value] for value in (low > np.median(low)).ravel().astype(int))
    assert perceptual_hash(image) == int(bits, 2)


def test_the_difference_hash_by_hand() -> None:
    image = np.tile(np.arange(0, 90, 10, dtype=np.uint8), (8, 1))
    image[1] = image[1][::-1]
    assert difference_hash(image) == int("ff00" + "ff" * 6, 16)


def test_the_detail_hash_of_copies_is_near_and_of_other_speckle_far() -> None:
    rng = np.random.default_rng(0)
    shape = cv2.GaussianBlur(rng.uniform(0, 1, (120, 160)).astype(np.float32), (0, 0), 25)
    shape = (shape - shape.min()) / (shape.max() - shape.min())

    def scan() -> np.ndarray:
        """The same coarse shape under its own speckle."""
        speckle = cv2.GaussianBlur(rng.standard_normal((120, 160)).astype(np.float32), (0, 0), 2)
        return np.clip(120 * shape + 60 + 120 * speckle, 0, 255).astype(np.uint8)

    first, second = scan(), scan()
    bits = [
        np.unpackbits(np.frombuffer(detail_hash(image), np.uint8))
        for image in (
            first,
            second,
            cv2.convertScaleAbs(first, alpha=0.8, beta=20),
            first[:, ::-1].copy()[:, ::-1],
        )
    ]
    assert len(bits[0]) == 1024
    assert (bits[0] != bits[3]).sum() == 0
    assert (bits[0] != bits[2]).sum() < 60
    assert (bits[0] != bits[1]).sum() > 350

"""Outlines of scans on screens without region tags; a picture without a clear one is refused."""

import cv2
import numpy as np
import pytest

from arl.corpus.record import Mask, Pixels
from arl.ingest.dicom.fan import MIN_CONFIDENCE, fan_region, find_outline

HEIGHT, WIDTH = 480, 640


def outline(kind: str) -> Mask:
    y, x = np.indices((HEIGHT, WIDTH))
    if kind == "linear":
        return (y > 60) & (y < 400) & (x > 150) & (x < 470)
    apex, inner, outer, angle = (40, 6, 370, 38) if kind == "sector" else (-120, 175, 500, 28)
    down, aside = y - apex, x - WIDTH / 2
    radius = np.hypot(down, aside)
    return (
        (radius >= inner)
        & (radius <= outer)
        & (np.abs(np.degrees(np.arctan2(aside, np.maximum(down, 1e-6)))) <= angle)
    )


def screen(inside: Mask) -> Pixels:
    """Speckle inside an outline, and text, a ruler and a grey bar beside it."""
    rng = np.random.default_rng(0)
    speckle = cv2.GaussianBlur(rng.exponential(110, inside.shape).astype(np.float32), (0, 0), 1.2)
    picture = np.where(inside, speckle.clip(12, 255), 0).astype(np.uint8)
    cv2.putText(picture, "OKAFOR NGOZI", (6, 20), 0, 0.5, 220, 1, cv2.LINE_AA)
    cv2.putText(picture, "12.3 cm", (8, HEIGHT - 10), 0, 0.5, 220, 1, cv2.LINE_AA)
    picture[60:260, WIDTH - 24 : WIDTH - 12] = np.linspace(255, 0, 200)[:, None]
    return picture


def page() -> Pixels:
    """A report: lines of text on white."""
    picture = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for line in range(12):
        place = (30, 40 + 36 * line)
        cv2.putText(picture, "Findings of patient Okafor", place, 0, 0.8, 0, 1, cv2.LINE_AA)
    return picture


@pytest.mark.parametrize("kind", ["linear", "sector", "convex"])
def test_the_outline_is_the_scan_and_nothing_beside_it(kind: str) -> None:
    inside = outline(kind)
    picture = screen(inside)
    found, confidence = find_outline(picture)
    assert found is not None
    assert confidence >= MIN_CONFIDENCE
    assert (found & inside).sum() / (found | inside).sum() >= 0.95
    assert (found & ~inside).sum() <= 0.002 * inside.sum()
    region = fan_region([picture])
    assert region is not None
    assert region.rule == "fan"
    cut = region.cut(picture)
    whole = np.zeros_like(inside)
    whole[region.box[0] : region.box[2], region.box[1] : region.box[3]] = cut > 0
    assert (whole & ~inside).sum() <= 0.002 * inside.sum()


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.full((HEIGHT, WIDTH), 90, np.uint8),
        page(),
    ],
    ids=["black", "flat", "page"],
)
def test_a_picture_without_speckle_has_no_outline(picture: Pixels) -> None:
    assert fan_region([picture]) is None

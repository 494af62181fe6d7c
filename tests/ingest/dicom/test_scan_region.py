"""Scan regions by tags and content, colour and probe outline, on drawn screens."""

import cv2
import numpy as np
import pytest

from arl.ingest.dicom.scan_region import (
    Tag,
    coloured_fraction,
    content_region,
    probe_by_outline,
    tagged_regions,
)

HEIGHT, WIDTH = 360, 480


def tag(
    *corners: int, spatial_format: int = 1, data_type: int = 1, delta: float = 0.02, units: int = 3
) -> Tag:
    return Tag(
        spatial_format, data_type, (corners[0], corners[1], corners[2], corners[3]), units, delta
    )


def test_a_tag_gives_its_box_spacing_and_depth() -> None:
    (region,) = tagged_regions([tag(20, 30, 219, 179)], HEIGHT, WIDTH)
    assert region.box == (30, 20, 180, 220)  # corners are inclusive
    assert region.pixel_spacing_mm == pytest.approx(0.2)
    assert region.depth_cm == pytest.approx(0.02 * 150)
    assert region.rule == "tag"


@pytest.mark.parametrize("units_and_delta", [(0, 0.02), (4, 0.02), (3, 0.0), (3, float("nan"))])
def test_a_scale_that_is_not_in_centimetres_is_no_scale(units_and_delta: tuple[int, float]) -> None:
    units, delta = units_and_delta
    (region,) = tagged_regions([tag(20, 30, 219, 179, units=units, delta=delta)], HEIGHT, WIDTH)
    assert region.pixel_spacing_mm is None
    assert region.depth_cm is None


@pytest.mark.parametrize(
    "other",
    [
        tag(0, 0, 300, 20, spatial_format=3, data_type=3),  # pulsed-wave spectrum
        tag(0, 0, 300, 100, spatial_format=2),  # M-mode
        tag(0, 300, 9000, 400, spatial_format=4, data_type=10),  # ECG, wherever it says it is
        tag(0, 0, 31, 100, spatial_format=0, data_type=13),  # grey bar
    ],
)
def test_only_two_dimensional_scans_count(other: Tag) -> None:
    assert [
        region.box for region in tagged_regions([other, tag(20, 30, 219, 179)], HEIGHT, WIDTH)
    ] == [(30, 20, 180, 220)]


def test_a_colour_box_is_part_of_its_image() -> None:
    """Left panel with a colour box inside, right panel without."""
    tags = [tag(60, 60, 150, 150, data_type=2), tag(240, 0, 479, 359), tag(0, 0, 239, 359)]
    left, right = tagged_regions(tags, HEIGHT, WIDTH)
    assert (left.box, left.colour_flow) == ((0, 0, 360, 240), True)
    assert (right.box, right.colour_flow) == ((0, 240, 360, 480), False)


def test_one_stale_tag_discredits_all() -> None:
    assert tagged_regions([tag(0, 0, 239, 359), tag(240, 0, 600, 359)], HEIGHT, WIDTH) == []
    assert tagged_regions([], HEIGHT, WIDTH) == []


def fan(inner: float, outer: float = 300.0, half_angle: float = 40.0, seed: int = 0) -> np.ndarray:
    """A screen (H, W) with a speckled fan; its probe face has radius `inner` at row 20."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    x, z = columns - WIDTH / 2, rows - 20 + inner * np.cos(np.radians(half_angle))
    radius, angle = np.hypot(x, z), np.degrees(np.arctan2(np.abs(x), z))
    inside = (
        (radius >= inner) & (radius <= outer + inner / 2) & (angle <= half_angle) & (rows >= 20)
    )
    return np.where(inside, speckle(seed), 0).astype(np.uint8)


def speckle(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).rayleigh(60, (HEIGHT, WIDTH)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 1.5).clip(0, 255)


def box_of(screen: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(screen.any(axis=1)), np.flatnonzero(screen.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def dressed(screen: np.ndarray) -> np.ndarray:
    """The screen with a banner, a line of text away from the scan, and a depth scale."""
    dressed = screen.copy()
    dressed[:12] = 90
    cv2.putText(dressed, "NIGHTINGALE F", (4, 9), cv2.FONT_HERSHEY_SIMPLEX, 0.3, 255)
    cv2.putText(dressed, "MI 1.1", (4, 340), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
    dressed[20:340:20, -4:] = 255
    return dressed


@pytest.mark.parametrize(
    "screen", [fan(4), fan(90), np.pad(speckle()[:250, :300], ((40, 70), (90, 90)))]
)
def test_a_still_is_cut_to_its_speckle(screen: np.ndarray) -> None:
    screen = screen.astype(np.uint8)
    region = content_region([dressed(screen)])
    assert region is not None
    assert region.rule == "content"
    assert region.box == pytest.approx(box_of(screen), abs=16)
    assert region.box[0] >= 12  # the banner with the name is out


def test_a_clip_is_cut_to_what_moves() -> None:
    """Too dark for its texture to be seen in any frame, but it changes."""
    dim = [
        fan(4, seed=seed) // 14 + (fan(4, seed=seed) > 0) * np.uint8(seed % 2 * 4)
        for seed in range(6)
    ]
    assert content_region([dim[0]]) is None
    region = content_region([dressed(frame) for frame in dim])
    assert region is not None
    assert region.rule == "variance"
    assert region.box == pytest.approx(box_of(fan(4)), abs=16)


@pytest.mark.parametrize(
    "screen", [np.zeros((HEIGHT, WIDTH), np.uint8), np.full((HEIGHT, WIDTH), 130, np.uint8)]
)
def test_no_speckle_is_no_scan(screen: np.ndarray) -> None:
    assert content_region([screen]) is None


def test_coloured_fraction() -> None:
    picture = np.full((10, 10, 3), 80, np.uint8)
    assert coloured_fraction(picture) == 0
    picture[:3, :, 0] = 80 + 25
    picture[5, :, 2] = 80 - 24  # noise
    assert coloured_fraction(picture) == pytest.approx(0.3)
    assert coloured_fraction(picture[..., 0]) == 0


@pytest.mark.parametrize(
    ("screen", "probe"),
    [
        (fan(4), "sector"),
        (fan(200, half_angle=30), "convex"),
        (speckle().astype(np.uint8), "linear"),
        (np.zeros((HEIGHT, WIDTH), np.uint8), "unknown"),
    ],
)
def test_probe_by_outline(screen: np.ndarray, probe: str) -> None:
    assert probe_by_outline(screen) == probe

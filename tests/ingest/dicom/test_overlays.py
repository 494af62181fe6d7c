"""Overlays of any script are found without reading; callipers and speckle are none."""

import cv2
import numpy as np
import pytest
import zxingcpp

from arl.corpus.record import Pixels
from arl.ingest.dicom.burnt_in_text import TextSearch, codes
from arl.ingest.dicom.overlays import find_overlays, find_thin_overlays
from arl.ingest.phi_audit.burnt_in import NAMES, draw_ink, name_inks, text_ink
from arl.phantoms.examination import examine
from arl.phantoms.scanner import ALPHA


@pytest.fixture(scope="module")
def scan() -> Pixels:
    """Grey (400, W): a thyroid phantom without any overlay."""
    (phantom,) = examine("thyroid", ALPHA, [3], [None], 400)
    return phantom.image


def moving(scan: Pixels, count: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    padded = np.pad(scan, ((0, 2), (0, 0)), mode="edge").astype(np.float32)
    return [
        (padded[k % 3 : k % 3 + len(scan)] + rng.normal(0, 3, scan.shape))
        .clip(0, 255)
        .astype(np.uint8)
        for k in range(count)
    ]


def search(frames: list[Pixels]) -> TextSearch:
    text = TextSearch()
    for frame in frames:
        text.add(frame)
    return text


@pytest.mark.parametrize("script", list(name_inks()))
def test_a_name_of_each_script_is_an_overlay(scan: Pixels, script: str) -> None:
    named = scan.copy()
    draw_ink(named, name_inks()[script], 40, 180)
    assert any(overlay.sure for overlay in find_overlays(named))
    assert search([named]).result().boxes


def test_thin_letters_are_found_in_the_enlarged_picture() -> None:
    """Arabic letters of 12 pixels, of which the picture as it is does not show all."""
    (phantom,) = examine("breast", ALPHA, [3], [None], 400)
    plain, enlarged = 0, 0
    for k in range(12):
        named = phantom.image.copy()
        ink = text_ink(NAMES["Arabic"], size=12)
        draw_ink(named, ink, 30 + 20 * k, 60 + 22 * k, contrast=60)
        plain += any(overlay.sure for overlay in find_overlays(named))
        enlarged += bool(find_thin_overlays(named))
    assert plain < enlarged == 12
    assert find_thin_overlays(phantom.image) == []


def test_tissue_and_callipers_are_no_text(scan: Pixels) -> None:
    marked = scan.copy()
    for x, y in ((80, 120), (200, 240)):
        cv2.drawMarker(marked, (x, y), 255, cv2.MARKER_CROSS, 12, 1)
    cv2.line(marked, (80, 120), (200, 240), 160, 1, cv2.LINE_AA)
    for picture in (scan, marked):
        assert not any(overlay.sure for overlay in find_overlays(picture))
        assert not search([picture]).result()
    assert not search(moving(scan, 12)).result()


def test_coloured_text_is_as_bright_as_white(scan: Pixels) -> None:
    named = np.repeat(scan[..., None], 3, axis=2)
    layer = np.zeros_like(scan)
    draw_ink(layer, text_ink("OKAFOR NGOZI"), 40, 180, solid=True)
    named[layer > 100] = (255, 0, 0)
    assert any(overlay.sure for overlay in find_overlays(named))


@pytest.mark.parametrize("position", [0, 5, 11])
def test_a_name_in_one_frame_is_found_wherever_it_stands(scan: Pixels, position: int) -> None:
    frames = moving(scan, 12)
    draw_ink(frames[position], text_ink("SILVA JOAO"), 60, 150)
    result = search(frames).result()
    assert result
    assert all(number in range(position - 1, position + 2) for number in result.cards)


def test_a_card_is_dropped_with_its_neighbours(scan: Pixels) -> None:
    frames = moving(scan, 12)
    frames[0] = np.zeros_like(scan)
    for line in range(6):
        ink = text_ink(f"LINE {line} OKAFOR")
        draw_ink(frames[0], ink, 10, 10 + 60 * line, solid=True)
    result = search(frames).result()
    assert {0, 1} <= result.cards
    assert not result.boxes


def test_a_code_is_found_by_its_shape_and_decoded(scan: Pixels) -> None:
    code = zxingcpp.create_barcode("MRN 4711", zxingcpp.BarcodeFormat.QRCode)
    picture, modules = scan.copy(), np.asarray(code.to_image(scale=3))
    picture[100 : 100 + len(modules), 60 : 60 + len(modules)] = modules
    assert codes(picture)
    assert any(overlay.sure for overlay in find_overlays(picture))

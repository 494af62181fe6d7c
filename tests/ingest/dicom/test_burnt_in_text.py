"""Text over real ultrasound is found and masked; ticks, measurements and tissue are let pass."""

import os
import socket
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import iter_pixels

from arl.corpus.record import Pixels
from arl.ingest.dicom import burnt_in_text as burnt_in
from arl.ingest.dicom.boxes import Box
from arl.ingest.dicom.burnt_in_text import TextSearch, words


@pytest.fixture(scope="module")
def cine() -> np.ndarray:
    """Grey (17, 211, 331): the middle of a cardiac clip, tissue alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = get_testdata_file("color3d_jpeg_baseline.dcm", download=False)
        frames = [frame[100:311, 180:511, 0] for frame in iter_pixels(file, indices=range(17))]
    return np.stack(frames)


def write(picture: Pixels, text: str, level: int = 230) -> None:
    cv2.putText(picture, text, (61, 103), cv2.FONT_HERSHEY_SIMPLEX, 0.5, level, 1, cv2.LINE_AA)


def find(*frames: Pixels) -> list[Box]:
    text = TextSearch()
    for frame in frames:
        text.add(frame)
    return list(text.result().boxes)


def test_a_name_on_a_still_is_found_and_masked_whole(cine: np.ndarray) -> None:
    named = cine[0].copy()
    write(named, "NIGHTINGALE")
    (box,) = find(named)
    masked = burnt_in.mask(named, [box])
    rows, columns = np.nonzero(named != cine[0])
    assert (masked[rows, columns] == 0).all()
    assert masked.size - np.count_nonzero(masked != named) > 0.9 * masked.size
    assert find(cine[0]) == find(masked) == []


def test_text_in_seven_frames_of_a_clip_is_found_wherever_it_begins(cine: np.ndarray) -> None:
    for start in (1, 4):
        named = cine.copy()
        for frame in named[start : start + 7]:
            write(frame, "NIGHTINGALE")
        assert len(find(*named)) == 1
    assert find(*cine) == []


def test_composites_are_searched_while_a_long_clip_passes(
    cine: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans of eight frames instead of 128: the name is in the first one only, in colour."""
    monkeypatch.setattr(burnt_in, "_SPAN", 8)
    named = np.repeat(cine[..., None], 3, axis=-1)
    for frame in named[:8]:
        cv2.putText(
            frame,
            "NIGHTINGALE",
            (61, 103),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.5,
            (0, 230, 230),
            1,
            cv2.LINE_AA,
        )
    assert len(find(*named)) == 1


@pytest.mark.parametrize(
    ("text", "score", "named"),
    [
        ("NIGHTINGALE F", 0.99, True),
        ("Ng", 0.9, True),
        ("李伟", 0.9, True),
        ("NIGHTINGALE", 0.2, True),
        ("12.05.1960", 0.99, True),
        ("12/5/60", 0.99, True),
        ("4711208", 0.7, True),
        ("4711", 0.95, True),
        ("66 ANOS", 0.9, True),
        ("MAMA DIR", 0.9, True),
        ("+ 13.4mm", 0.9, False),
        ("D1 2.15 cm", 0.9, False),
        ("-1.20 m/s", 0.9, False),
        ("x 9.9MM", 0.9, False),
        ("15", 0.99, False),
        ("772", 0.8, False),
        ("7276", 0.64, False),  # a ruler's ticks
        ("V", 0.9, False),
        ("十", 0.9, False),  # a caliper
        ("0P", 0.2, False),
        ("", 0.0, False),
    ],
)
def test_what_may_name_somebody(text: str, score: float, named: bool) -> None:
    assert burnt_in.Text((0, 0, 1, 1), score, text).may_name is named


def test_nothing_is_asked_of_the_network_or_told(
    cine: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    burnt_in._reader.cache_clear()
    named = cine[0].copy()
    write(named, "NIGHTINGALE")
    assert "NIGHTINGALE" in words(named)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""
    assert "NIGHTINGALE" not in repr(burnt_in.read_texts(named))


@pytest.mark.skipif("ARL_REAL_DATA" not in os.environ, reason="BUS-BRA is not here")
@pytest.mark.parametrize("name", ["bus_0571-l", "bus_0912-l", "bus_0955-l"])
def test_the_side_is_read_on_breast_scans(name: str) -> None:
    picture = cv2.imread(
        f"{os.environ['ARL_REAL_DATA']}/BUSBRA/Images/{name}.png", cv2.IMREAD_GRAYSCALE
    )
    assert any("MAMA DIR" in text for text in words(picture))
    assert find(picture)


def test_the_models_are_in_the_package() -> None:
    import rapidocr

    folder = Path(rapidocr.__file__).parent / "models"
    assert {"PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"} <= {
        file.name for file in folder.iterdir()
    }

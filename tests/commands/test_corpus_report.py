"""The page shows what the corpus holds, refuses and repeats, and a browser opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from arl.commands.corpus_report import corpus_report
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_writer import BatchWriter
from arl.params import Params
from arl.reports.corpus import histogram
from arl.stages.validate import validate


def speckle(seed: int) -> np.ndarray:
    """Coarse noise, different for each seed."""
    coarse = np.random.default_rng(seed).uniform(20, 200, (7, 9))
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC).clip(0, 240).astype(np.uint8)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two sources, an image that is in both of them on two sides and with two labels, refused
    inputs.
    """
    root = tmp_path / "corpus"
    with BatchWriter(
        root, "clinic", "0000", 64, origin=BatchOrigin(licence="CC0 <b>", citation="Nobody & al.")
    ) as batch:
        for number in range(7):
            named = {
                "patient": f"p{number}",
                "depth_cm": 5.0 + number,
                "pixel_spacing_mm": 0.1,
                "device": "ACME <Ray>",
            }
            splits = {"default": "test" if number == 0 else "train"}
            label = "benign" if number < 5 else None
            batch.accept(
                speckle(number),
                key=f"k{number}",
                anatomy="breast",
                label=label,
                splits=splits,
                **named,
            )
        for number in range(3):
            batch.refuse(f"broken{number}.dcm", "not a DICOM <file>")
    with BatchWriter(
        root, "phantom-x", "0000", 64, origin=BatchOrigin(licence="none", citation="none")
    ) as batch:
        twin = speckle(0) + np.uint8(3)
        batch.accept(
            twin,
            key="twin",
            anatomy="lung",
            label="malignant",
            synthetic=True,
            splits={"default": "train"},
        )
    return root


@pytest.fixture
def page(corpus: Path, tiny_params: Params, tmp_path: Path) -> Path:
    validate(tiny_params, corpus=corpus, validation=tmp_path / "validation")
    corpus_report(
        corpus=corpus, validation=tmp_path / "validation", page=tmp_path / "out" / "corpus.html"
    )
    return tmp_path / "out" / "corpus.html"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_browser_opens_it(
    page: Path, open_page: Callable[..., Any], width: int, dark: bool
) -> None:
    opened = open_page(page, width, dark)
    assert (opened.errors, opened.requests, opened.overflow) == ([], [], 0)
    for text in (
        "8 images of 2 sources, 12 % of them synthetic.",
        "not a DICOM <file>",
        "ACME <Ray>",
        "CC0 <b>",
        "2 images of two labels across splits",
        "train, left out, malignant",
        "near-identical images have one label",
    ):
        assert text in opened.text


def test_every_image_of_a_small_corpus_is_shown(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png") == 7 + 1 + 2
    assert html.count("Synthetic image: lung") == 2


def test_the_same_corpus_gives_the_same_page(page: Path, corpus: Path, tmp_path: Path) -> None:
    corpus_report(corpus=corpus, validation=tmp_path / "validation", page=tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_the_validation_of_another_version_is_refused(
    corpus: Path, tmp_path: Path, tiny_params: Params
) -> None:
    validate(tiny_params, corpus=corpus, validation=tmp_path / "validation")
    with BatchWriter(
        corpus, "clinic", "0001", 64, origin=BatchOrigin(licence="CC0", citation="")
    ) as batch:
        batch.accept(
            speckle(99), key="new", anatomy="breast", patient="p99", splits={"default": "train"}
        )
    with pytest.raises(
        ValueError, match=r"result\.json is of another corpus or version than .*: run `arl validate"
    ):
        corpus_report(
            corpus=corpus, validation=tmp_path / "validation", page=tmp_path / "page.html"
        )


def test_a_corpus_that_was_not_validated_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `arl validate"):
        corpus_report(corpus=corpus, validation=tmp_path / "nowhere", page=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_histograms_count_every_value() -> None:
    found = histogram(pd.Series([1, 2, 2.5, 7, 300.0]), (0, 2, 4, 6, 8, 100))
    assert found == {
        "0–2": [2],
        "2–4": [1],
        "4–6": [0],
        "6–8": [1],
        "8–100": [0],
        "over 100": [1],
    }

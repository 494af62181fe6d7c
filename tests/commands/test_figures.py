from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arl.commands.baseline import baseline
from arl.commands.figures import figures
from arl.params import Params


def test_the_pictures_are_on_one_page(
    released: Any,
    tiny_params: Params,
    tiny_corpus: Path,
    tmp_path: Path,
    open_page: Callable[..., Any],
) -> None:
    baseline(replace(tiny_params, seed=5), "import", "supervised", [], out=tmp_path / "other")
    where = {"corpus": tiny_corpus, "checkpoint": released.checkpoint, "out": tmp_path / "out"}
    figures(tiny_params, against=tmp_path / "other", **where)
    page = open_page(tmp_path / "out" / "index.html")
    assert page.errors == page.requests == []
    assert page.overflow == 0
    for words in (
        "Corpus by anatomy",
        "Principal components",
        "Images on a plane",
        "Where ACDT samples",
    ):
        assert words in page.text
    text = (tmp_path / "out" / "index.html").read_text()
    # two anatomies: image and components of two encoders, image and offsets for three labels
    assert text.count("<img") == 2 * 3 + 2 * 4
    assert text.count('role="img"') == 2 * 3, "a t-SNE of each encoder with three labels"
    assert "wrong anatomy: silhouette" in text


def test_encoders_of_other_sizes_are_refused(
    released: Any, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    tiny_params.data.size = 48
    baseline(tiny_params, "import", "supervised", [], out=tmp_path / "other")
    with pytest.raises(ValueError, match=r"read images of \[32, 48\] pixels"):
        figures(
            tiny_params,
            corpus=tiny_corpus,
            checkpoint=released.checkpoint,
            against=tmp_path / "other",
        )

"""Documents are read back as they were written, and anything else is refused with its place."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from arl.documents import EXACT, Document, DocumentError


@dataclass(frozen=True)
class Part:
    name: str
    value: float | None = None


@dataclass(frozen=True)
class Whole(Document):
    FORMAT: ClassVar[str] = "arl.whole"
    VERSION: ClassVar[int] = 3

    verdict: Literal["yes", "no"]
    count: int
    rounded: float
    exact: float = field(metadata=EXACT)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    flag: bool = False


WHOLE = Whole("yes", 2, 0.25, 1 / 3, {"a": [Part("x", 1.0), Part("y")]}, True)


def changed(**changes: Any) -> dict[str, Any]:
    return {**WHOLE.to_json(), **changes}


def test_a_document_is_read_back_as_written(tmp_path: Path) -> None:
    WHOLE.write(tmp_path / "whole.json")
    assert Whole.read(tmp_path / "whole.json") == WHOLE
    assert (tmp_path / "whole.json").read_text() == WHOLE.to_text()
    assert json.loads(WHOLE.to_text())["format"] == "arl.whole/3"


def test_numbers_are_rounded_unless_exact() -> None:
    written = Whole("no", 1, np.float64(1) / 3, 1 / 3).to_json()
    assert (written["rounded"], written["exact"]) == (0.333333, 1 / 3)
    assert str(Whole("no", 1, -1e-9, 0.0).to_json()["rounded"]) == "0.0"
    with pytest.raises(ValueError, match="not a finite number"):
        Whole("no", 1, float("nan"), 0.0).to_json()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not a JSON object"),
        (changed(format="arl.whole/2"), "format 'arl.whole/2', expected 'arl.whole/3'"),
        ({"verdict": "yes"}, "format None"),
        (changed(verdict="perhaps"), "verdict is 'perhaps', expected one of"),
        (changed(count=True), "count is not of type int"),
        (changed(count=1.5), "count is not of type int"),
        (changed(rounded="0.5"), "rounded is not of type float"),
        (changed(rounded=float("nan")), "rounded is not a finite number"),
        (changed(flag=1), "flag is not of type bool"),
        (changed(more=1), r"unknown fields \['more'\]"),
        (changed(parts={"a": [{"value": 1}]}), r"parts: a: 0 lacks \['name'\]"),
        (changed(parts={"a": {}}), "parts: a is not a list"),
        (changed(parts=[]), "parts is not a JSON object"),
    ],
)
def test_anything_else_is_refused(content: Any, words: str) -> None:
    with pytest.raises(DocumentError, match=words) as error:
        Whole.from_json(content, "whole.json")
    assert str(error.value).startswith("whole.json")


@pytest.mark.parametrize("text", ["", "{", '{"format": "arl.whole/3"', "\udcff"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "whole.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DocumentError):
        Whole.read(file)


def test_a_whole_number_is_a_float() -> None:
    read = Whole.from_json(changed(rounded=1), "whole.json")
    assert isinstance(read.rounded, float)

"""The reference equals what the code gives."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = runpy.run_path(str(ROOT / "scripts" / "make_reference.py"))["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_what_the_code_gives(name: str) -> None:
    text = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert text == PAGES[name], "run python scripts/make_reference.py"

"""Pages are escaped, complete in themselves and readable by machines too."""

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from arl.reports import html

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert('x')</script>&\""


class Balanced(HTMLParser):
    """Fails on a closing tag that does not fit the open ones."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def everything(text: str) -> str:
    body = (
        html.verdict("promote", text)
        + html.note(text, "warn")
        + html.facts({text: text})
        + html.contents([text])
        + html.section(text, html.paragraph(text) + html.bullets([text]) + html.code(text))
        + html.table([text], [[text], [html.badge(text)]], caption=text)
        + html.gallery([html.figure(PNG, text, text, width=7)])
        + html.sheet([html.figure(PNG, text, text)])
        + html.link(text, text)
    )
    return html.page(text, body, subtitle=text)


def test_every_value_is_escaped() -> None:
    html = everything(HOSTILE)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 17


def test_a_plain_string_as_body_is_text() -> None:
    assert "&lt;b&gt;" in html.page("t", "<b>")


def test_the_page_is_well_formed() -> None:
    parser = Balanced()
    parser.feed(everything("plain"))
    assert parser.open == []
    assert {"main", "h1", "h2", "th", "figcaption"} <= set(parser.seen)


def test_a_page_names_no_address_of_a_network() -> None:
    html = everything("plain")
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src" in html


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,345"),
        (0.12345, "0.123"),
        (0.0, "0.000"),
        (12.3456, "12.35"),
        (-123.456, "-123.5"),
        (0.000123, "1.23e-04"),
        (1234.5, "1,234"),
        (float("nan"), "n/a"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert html.number(value) == text


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        ([1, 2.5, None], True),
        (["0.91 (0.88–0.94)", "<0.001"], True),
        (["0000", "0001"], False),
        ([True, False], False),
        ([1, "many"], False),
        ([Markup("0.5")], False),
    ],
)
def test_only_columns_of_numbers_are_flush_right(cells: list[object], right: bool) -> None:
    assert ('class="number"' in html.table(["c"], [[cell] for cell in cells])) is right


def test_missing_and_boolean_cells() -> None:
    text = html.table(["a", "b"], [[None, True]])
    assert "<td" in text
    assert ">–<" in text
    assert ">yes<" in text


@pytest.mark.parametrize(
    ("word", "kind"),
    [("promote", "good"), ("drift", "bad"), ("inconclusive", "warn"), ("other", "info")],
)
def test_badges_are_coloured_by_meaning(word: str, kind: str) -> None:
    assert f'class="badge {kind}"' in html.badge(word)


def test_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells, but there are 2 columns"):
        html.table(["a", "b"], [[1]])


def test_bars_are_as_long_as_their_counts() -> None:
    text = html.bars({"a": (3, 1), "<b>": (2, 0)}, ("real", "synthetic"))
    assert re.findall(r'series-(.)" style="width:([0-9.]+)%', text) == [
        ("0", "75.00"),
        ("1", "25.00"),
        ("0", "50.00"),
        ("1", "0.00"),
    ]
    assert "&lt;b&gt;" in text
    assert re.findall(r'count">(\d+)<', text) == ["4", "2"]
    assert "bars" in html.bars({})
    with pytest.raises(ValueError, match="bars of a, b have different numbers"):
        html.bars({"a": (1,), "b": (1, 2)})


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'loud' is not one of"):
        html.note("text", "loud")


def test_a_figure_that_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        html.figure(b"GIF89a", "caption", "alt")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_browser_opens_it_without_error_or_request(
    tmp_path: Path, open_page: Callable[..., Any], width: int, dark: bool
) -> None:
    file = tmp_path / "page.html"
    file.write_text(everything(HOSTILE), encoding="utf-8")
    opened = open_page(file, width, dark, tmp_path / "page.png")
    assert opened.errors == []
    assert opened.requests == []
    assert opened.overflow == 0
    assert HOSTILE in opened.text
    assert (tmp_path / "page.png").stat().st_size > 0


def test_a_browser_would_tell_of_a_request_and_an_error(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        "<img src='https://example.org/x.png'><script>missing()</script>", encoding="utf-8"
    )
    opened = open_page(file)
    assert opened.requests == ["https://example.org/x.png"]
    assert any("missing is not defined" in error for error in opened.errors)

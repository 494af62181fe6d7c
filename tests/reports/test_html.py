"""Pages are escaped, complete in themselves, and readable by people and by machines."""

import base64
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arl.evaluation.results import Interval
from arl.reports import charts, html
from arl.reports.elements import (
    Badge,
    Bars,
    Code,
    Codes,
    IntervalCell,
    Link,
    Picture,
    Table,
    Thumbnail,
    kind_of,
)
from arl.reports.glossary import TERMS
from arl.reports.stamp import RunStamp

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert('x')</script>&\""
STAMP = RunStamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 65.0, "arl gate", "abc", "d" * 64)


class Balanced(HTMLParser):
    """Fails on a closing tag that does not fit the open ones."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def everything(text: str) -> str:
    """A page with each element, of which every text is `text`."""
    interval = Interval(0.5, 0.25, 0.75)
    cells = [Badge(text), Link(f"#{text}", text), Code(text), Codes([text]), text, None, True, 7]
    cells += [IntervalCell(interval, remarks=[text]), Picture(PNG, text, 16)]
    chart = charts.forest([charts.Bar(text, interval, -0.1)], title=text, x_label=text)
    dots = charts.scatter(np.eye(2), [text, text], title=text, caption=text)
    return html.render(
        "everything.html.j2",
        html.Head(text, text, replace(STAMP, command=text), [Link(text, text), Link("", text)]),
        text=text,
        table=Table([text] * len(cells), [cells] * 9, text),
        facts={text: text, "AUROC": 0.5},
        bars=Bars({text: [1, 2]}, [text, text]),
        sheet=[Thumbnail(Picture(PNG, text), [text, text], True, text)],
        pictures=[[(Picture(PNG, text), text)]],
        charts=[chart, dots],
        confusion=charts.Confusion(text, [text, text], [[1, 2], [3, 4]], text),
    )


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that uses every macro, beside those of the package."""
    from jinja2 import ChoiceLoader, DictLoader

    source = """{% extends "base.html.j2" %}{% block main %}
    {{ ui.verdict(text, text, text) }}{{ ui.note(text, "warn") }}{{ ui.contents([text]) }}
    {{ ui.bullets([text]) }}{{ ui.facts(facts) }}{{ ui.table(table) }}{{ ui.bars(bars) }}
    {{ ui.sheet(sheet) }}{{ ui.picture_grid(pictures, text) }}{{ ui.charts(charts) }}
    {{ ui.confusion(confusion) }}{{ ui.term("Dice") }}{% endblock %}"""
    environment = html._environment()
    loaders = [environment.loader, DictLoader({"everything.html.j2": source})]
    monkeypatch.setattr(environment, "loader", ChoiceLoader([one for one in loaders if one]))


def parse(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    return parser


def test_every_value_is_escaped() -> None:
    page = everything(HOSTILE)
    assert page.count("<script") == 1, "the page's own"
    assert page.count("&lt;script&gt;") >= 40


def test_the_page_is_well_formed() -> None:
    parser = parse(everything("plain"))
    assert parser.open == []
    tags = {tag for tag, _ in parser.seen}
    assert {"main", "header", "footer", "nav", "h1", "h2", "th", "figcaption", "svg"} <= tags


def test_every_header_of_a_table_has_a_scope_and_every_picture_a_text() -> None:
    for tag, attributes in parse(everything("plain")).seen:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row", "colgroup")
        if tag == "img":
            assert attributes.get("alt")
        if tag == "svg":
            assert "aria-label" in attributes or attributes.get("aria-hidden") == "true"


def test_a_page_names_no_address_of_a_network() -> None:
    page = everything("plain")
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src &#39;none&#39;" in page
    assert "unsafe" not in page
    assert "style=" not in page, "the policy allows one style sheet by its hash and no attributes"


def test_terms_are_explained_where_they_stand_and_listed() -> None:
    page = everything("plain")
    assert f'title="{TERMS["dice"].replace(":", ":")}"' in page
    assert page.count('id="term-') == 2, "AUROC and Dice"


def test_links_of_all_glossary_terms_have_different_addresses() -> None:
    assert len({html.anchor(name) for name in TERMS}) == len(TERMS)


def test_the_stamp_says_where_a_page_comes_from() -> None:
    assert STAMP.facts() == {
        "written": "2026-01-02 03:04:05 UTC",
        "duration": "1 min 5 s",
        "command": "arl gate",
        "commit": "abc",
        "data version": "d" * 12,
    }


def test_pages_are_linked_after_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(everything("plain"), encoding="utf-8")
    for count in (1, 2):
        html.link_pages(file, [Link(f"{i}.html", "other") for i in range(count)])
        text = file.read_text(encoding="utf-8")
        assert re.findall(r'href="(\d)\.html"', text) == [str(i) for i in range(count)]
    other = tmp_path / "other.html"
    other.write_text("no page of ours", encoding="utf-8")
    html.link_pages(other, [])
    assert other.read_text(encoding="utf-8") == "no page of ours"


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        ([1, 2.5, None], True),
        (["0.91 (0.88–0.94)", "<0.001"], True),
        (["0000", "0001"], False),
        ([True, False], False),
        ([1, "many"], False),
        ([IntervalCell(None)], True),
    ],
)
def test_only_columns_of_numbers_are_flush_right(cells: list[object], right: bool) -> None:
    assert Table(["c"], [[cell] for cell in cells]).numeric == [right]


@pytest.mark.parametrize(
    ("word", "kind"),
    [("promote", "good"), ("drift", "bad"), ("inconclusive", "warn"), ("other", "info")],
)
def test_badges_are_coloured_by_meaning(word: str, kind: str) -> None:
    assert kind_of(word) == kind


def test_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells, but there are 2 columns"):
        Table(["a", "b"], [[1]])


def test_bars_are_as_long_as_their_counts() -> None:
    bars = Bars({"a": [3, 1], "b": [2, 0]}, ["real", "synthetic"])
    assert [part[:2] for part in bars.segments("a")] == [(0.0, 75.0), (75.0, 25.0)]
    assert [part[:2] for part in bars.segments("b")] == [(0.0, 50.0), (50.0, 0.0)]
    assert bars.segments("a")[1][2] == "a, synthetic: 1"
    with pytest.raises(ValueError, match="bars a, b have different numbers"):
        Bars({"a": [1], "b": [1, 2]})


def test_a_picture_that_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="not PNG"):
        Picture(b"GIF89a", "alt")


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1000, True), (400, True)])
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
    assert "Filter rows" in opened.text, "the script runs"


def test_the_script_sorts_and_filters(tmp_path: Path, chromium: Any) -> None:
    rows = [[f"row {value}", IntervalCell(Interval(value, 0, 1))] for value in (3, 11, 2, 1)] * 3
    file = tmp_path / "page.html"
    text = everything("plain")
    table = (
        html._environment()
        .get_template("macros.html.j2")
        .make_module({"glossary": html.Glossary()})
    )
    start = text.index('<main id="main">') + len('<main id="main">')
    file.write_text(
        text[:start] + str(table.table(Table(["name", "value"], rows))) + text[start:],
        encoding="utf-8",
    )
    page = chromium.new_page()
    page.goto(file.as_uri())
    first = page.locator("table.data").first

    def column() -> list[str]:
        return [str(name) for name in first.locator("tbody tr:visible th").all_inner_texts()]

    first.get_by_role("button", name="Sort by value").click()
    assert column()[0] == "row 1"
    assert column()[-1] == "row 11", "by number, not by text"
    first.get_by_role("button", name="Sort by value").click()
    assert column()[0] == "row 11"
    page.get_by_label("Filter rows").first.fill("ROW 11")
    assert column() == ["row 11"] * 3
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").first.click()
    csv = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert csv == ['"name","value"', *['"row 11","11"'] * 3], "the visible rows, in their order"
    page.close()


def test_the_page_is_complete_in_a_frame_without_scripts(tmp_path: Path, chromium: Any) -> None:
    inner, outer = tmp_path / "page.html", tmp_path / "frame.html"
    inner.write_text(everything("plain"), encoding="utf-8")
    outer.write_text('<iframe sandbox src="page.html" width=900 height=900></iframe>')
    page = chromium.new_page()
    page.goto(outer.as_uri())
    frame = page.frames[1]
    assert frame.locator("table.data tbody tr").count() == 9
    assert frame.locator("svg[role=img]").count() == 2
    assert "Filter rows" not in frame.locator("body").inner_text()
    page.close()


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


def test_the_wheel_has_every_file_that_a_page_needs() -> None:
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["arl"]
    packaged = {file for pattern in patterns for file in (root / "src/arl").glob(pattern)}
    files = (root / "src/arl/reports").rglob("*.*")
    assert {file for file in files if file.suffix in (".j2", ".css", ".js")} <= packaged


def test_a_page_of_another_library_gets_a_way_back(tmp_path: Path) -> None:
    file = tmp_path / "evidently.html"
    file.write_text('<html><body class="a"><div>chart</div></body></html>')
    html.link_back(file, "index.html", "Back to <drift>")
    text = file.read_text()
    assert re.search(r'<body class="a"><p [^>]*><a href="index.html">.*Back to &lt;drift&gt;', text)
    assert text.endswith("<div>chart</div></body></html>")


def test_a_page_without_a_body_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "odd.html"
    file.write_text("no markup")
    html.link_back(file, "index.html", "Back")
    assert file.read_text() == "no markup"

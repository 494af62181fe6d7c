"""HTML pages that open anywhere: one file each, complete without scripts, no network.

A page is a template of `templates/`, which extends `base.html.j2`; every value is escaped. The
content security policy of a page forbids every load, every style but `style.css` and every script
but `page.js`, which only sorts and filters tables.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from arl.files import atomic_file
from arl.reports import elements, formatting
from arl.reports.glossary import Glossary
from arl.reports.stamp import RunStamp

_HERE = Path(__file__).parent
# The report of a run copies the pages of its stages and puts links to the others between these.
_NAVIGATION_START, _NAVIGATION_END = "<!-- pages of this run -->", "<!-- end of pages -->"


@dataclass(frozen=True)
class Head:
    """What stands at the top and the foot of a page."""

    title: str
    subtitle: str = ""
    stamp: RunStamp | None = None
    pages: Sequence[elements.Link] = ()  # the other pages of the run; "" as href: this page


def render(template: str, head: Head, **values: Any) -> str:
    """The text of a page."""
    return (
        _environment()
        .get_template(template)
        .render(
            head=head,
            glossary=Glossary(),
            style=_style(),
            script=_script(),
            policy=_policy(),
            **values,
        )
    )


def write(file: Path, template: str, head: Head, **values: Any) -> None:
    """Write a page, atomically."""
    # Rendered before the file is opened: a failing template leaves the old page.
    text = render(template, head, **values)
    with atomic_file(file) as partial:
        partial.write_text(text, encoding="utf-8")


def link_pages(file: Path, pages: Sequence[elements.Link]) -> None:
    """Replace the links of a written page to the other pages of its run."""
    text = file.read_text(encoding="utf-8")
    start, end = text.find(_NAVIGATION_START), text.find(_NAVIGATION_END)
    if start < 0 or end < start:
        return  # of another version of ARL: complete without the links
    module: Any = _environment().get_template("macros.html.j2").module
    links = f"{_NAVIGATION_START}{module.page_links(pages)}"
    with atomic_file(file) as partial:
        partial.write_text(text[:start] + links + text[end:], encoding="utf-8")


def link_back(file: Path, href: str, text: str) -> None:
    """Put a link on top of a page that another library wrote, which has no navigation of ours."""
    content = file.read_text(encoding="utf-8")
    # Libraries write <body> with or without attributes.
    opened = re.search(r"<body[^>]*>", content)
    if opened is None:
        return
    module: Any = _environment().get_template("macros.html.j2").module
    # Markup + str would escape the page.
    link = str(module.way_back(elements.Link(href, text)))
    with atomic_file(file) as partial:
        partial.write_text(content[: opened.end()] + link + content[opened.end() :], "utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        # StrictUndefined makes a misspelt name in a template an error, not an empty cell.
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "anchor": anchor,
        "base64": lambda content: base64.b64encode(content).decode("ascii"),
        "cell_text": _cell_text,
        "element_name": lambda value: getattr(value, "element", ""),
        "duration": formatting.duration,
        "interval": formatting.interval,
        "kind": elements.kind_of,
        "number": formatting.number,
        "percent": formatting.percent,
        "plural": formatting.plural,
        "sort_key": elements.sort_key,
    }
    return environment


def anchor(title: str) -> str:
    """The id of a section: the title in lower case, words joined by dashes."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _cell_text(value: object) -> str:
    if value is None:
        return formatting.DASH
    # Before the numbers: bool is a subclass of int.
    if isinstance(value, bool):
        return "yes" if value else "no"
    return formatting.number(value) if isinstance(value, int | float) else str(value)


@cache
def _style() -> str:
    return (_HERE / "style.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    return (_HERE / "page.js").read_text(encoding="utf-8")


@cache
def _policy() -> str:
    # The browser runs only what has these hashes, so text of a page can never be code.
    style, script = (_hash_source(text) for text in (_style(), _script()))
    return (
        f"default-src 'none'; img-src data:; style-src {style}; script-src {script};"
        " base-uri 'none'; form-action 'none'"
    )


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

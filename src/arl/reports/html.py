"""HTML pages that open anywhere: one file each, no script, no network, every value escaped.

Fragments are `Markup` and are joined with `+`; a plain string handed in as content is text and is
escaped. A page forbids itself any load by its content security policy.
"""

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

_KIND_OF_VERDICT = {
    "good": {"promote", "promoted", "pass", "passed", "no-drift", "released", "yes", "ok"},
    "bad": {"reject", "rejected", "fail", "failed", "drift", "critical", "refused"},
    "warn": {"inconclusive", "too-few", "warning", "synthetic", "not released"},
}
_KINDS = ("info", "good", "warn", "bad")
_FORMATTED_NUMBER = re.compile(
    r"[-−+<]?\s?\d[\d,]*(\.\d+|%).*"
)  # "0.913 (0.871–0.948)", "<0.001", "12%"; not "0001"

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --panel: #f5f7f9; --ink: #17222d; --soft: #52606d; --line: #d8dee5;
  --accent: #0b5c8a; --good: #17693a; --good-ground: #e6f4ec; --bad: #a61b29; --bad-ground: #fcebec;
  --shade: #c3ccd6; --warn: #7d5100; --warn-ground: #fdf3dc; --info: #2f4a63; --info-ground: #eaf0f6; }
@media (prefers-color-scheme: dark) { :root { --ground: #11171d; --panel: #192129; --ink: #e4e9ee; --soft: #a3afba;
  --line: #313c47; --accent: #7cc1ec; --good: #84d7a5; --good-ground: #14301f; --bad: #ff9ea4; --bad-ground: #3c191d;
  --shade: #3a4754; --warn: #f0c674; --warn-ground: #372a0f; --info: #b6c9db; --info-ground: #1d2934; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.25rem; }
header .mark { margin: 0; color: var(--soft); font-size: .8rem; font-weight: 600; letter-spacing: .09em;
  text-transform: uppercase; }
h1 { margin: .15rem 0 0; font-size: 1.8rem; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; }
.subtitle { margin: .35rem 0 0; color: var(--soft); }
main { padding-bottom: 2rem; }
section { margin-top: 2.5rem; }
section section { margin-top: 1.5rem; }
h2 { margin: 0 0 .85rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line); font-size: 1.2rem;
  font-weight: 650; }
h3 { margin: 0 0 .5rem; font-size: 1rem; font-weight: 650; }
p { margin: .6rem 0; max-width: 46rem; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
nav { margin-top: 1.5rem; display: flex; flex-wrap: wrap; gap: .3rem 1.25rem; font-size: .92rem; }
/* a shade at the side where a table goes on */
.scroll { overflow-x: auto; margin: .9rem 0; background-repeat: no-repeat;
  background-image: linear-gradient(to right, var(--ground) 30%, transparent),
    linear-gradient(to left, var(--ground) 30%, transparent),
    linear-gradient(to right, var(--shade), transparent), linear-gradient(to left, var(--shade), transparent);
  background-position: left, right, left, right; background-size: 3rem 100%, 3rem 100%, 1rem 100%, 1rem 100%;
  background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums lining-nums; }
.caption { margin: 1.1rem 0 -.4rem; color: var(--soft); font-size: .9rem; }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-bottom: 1px solid var(--soft); color: var(--soft); font-weight: 600; font-size: .82rem;
  vertical-align: bottom; }
td:first-child { min-width: 6rem; }
th.number, td.number { padding-left: .9rem; padding-right: .25rem; text-align: right; white-space: nowrap; }
th.number + th:not(.number), td.number + td:not(.number) { padding-left: 1.5rem; }
code { font: .88em/1.4 ui-monospace, "SFMono-Regular", "Liberation Mono", monospace; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: .05rem .55rem; border: 1px solid currentColor; border-radius: 99px;
  font-size: .8rem; font-weight: 650; white-space: nowrap; }
.note, .verdict { margin: 1.25rem 0; padding: .7rem 1rem; border-left: 4px solid currentColor; border-radius: 3px; }
.note > *, .verdict > * { color: var(--ink); }
.note p { margin: .15rem 0; }
.verdict { padding: 1rem 1.25rem; }
.verdict .word { margin: 0; color: inherit; font-size: 1.35rem; font-weight: 700; line-height: 1.3; }
.verdict .word::first-letter { text-transform: uppercase; }
.verdict .summary { margin: .25rem 0 0; }
.good { color: var(--good); background: var(--good-ground); }
.bad { color: var(--bad); background: var(--bad-ground); }
.warn { color: var(--warn); background: var(--warn-ground); }
.info { color: var(--info); background: var(--info-ground); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1px; margin: 1rem 0;
  border: 1px solid var(--line); border-radius: 4px; overflow: hidden; }
.facts div { padding: .65rem .9rem; box-shadow: 0 0 0 1px var(--line); }
.facts dt { color: var(--soft); font-size: .82rem; }
.facts dd { margin: .1rem 0 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums lining-nums;
  overflow-wrap: anywhere; }
.facts small { display: block; color: var(--soft); font-size: .82rem; font-weight: 400; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 4px; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .87rem; max-width: 46rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 0 1.5rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .9rem .75rem; }
.sheet figure { margin: 0; }
.sheet img { width: 100%; background: #000; }
.sheet figcaption { font-size: .78rem; line-height: 1.35; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: .3rem 1rem; margin: .9rem 0;
  font-size: .9rem; }
.bars dt { max-width: 18rem; overflow-wrap: anywhere; }
.bars dd { margin: 0; display: grid; grid-template-columns: 1fr 5.5rem; gap: .75rem; align-items: center; }
.bar { display: flex; height: .8rem; background: var(--panel); border-radius: 2px; overflow: hidden; }
.bar i { display: block; }
.series-0 { background: var(--accent); }
.series-1 { background: var(--shade); }
.count { text-align: right; font-variant-numeric: tabular-nums lining-nums; }
.legend { margin: .6rem 0; color: var(--soft); font-size: .87rem; }
.key { margin-right: 1.25rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; vertical-align: -.08rem; }
ul { margin: .6rem 0; padding-left: 1.2rem; max-width: 46rem; }
footer { padding-top: 1rem; padding-bottom: 2.5rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { header { padding-top: 1.4rem; } h1 { font-size: 1.45rem; } section { margin-top: 2rem; }
  .facts { grid-template-columns: repeat(2, 1fr); } .sheet { grid-template-columns: repeat(2, 1fr); } }
@media print { section { break-inside: avoid-page; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, body: str, subtitle: str = "") -> str:
    """A whole HTML page; `body` is joined fragments (a plain string is escaped)."""
    head = Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n<title>{title}</title>\n'
    ).format(policy=_POLICY, title=title)
    below = Markup('<p class="subtitle">{}</p>\n').format(subtitle) if subtitle else Markup("")
    return str(
        head
        + Markup(f"<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n")
        + Markup('<p class="mark">ARL · medical ultrasound</p>\n<h1>{}</h1>\n').format(title)
        + below
        + Markup("</header>\n<main>\n{}</main>\n<footer>This file is complete in itself").format(
            body
        )
        + Markup(" and loads nothing from a network.</footer>\n</body>\n</html>\n")
    )


def section(title: str, body: str, level: int = 2) -> Markup:
    """A titled part of a page; its anchor is made of the title."""
    return Markup('<section id="{0}">\n<h{1}>{2}</h{1}>\n{3}</section>\n').format(
        _anchor(title), level, title, body
    )


def contents(titles: Iterable[str]) -> Markup:
    """Links to the sections of these titles."""
    links = (link(f"#{_anchor(title)}", title) for title in titles)
    return Markup('<nav aria-label="Contents">{}</nav>\n').format(Markup("\n").join(links))


def paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>\n").format(text)


def bullets(items: Iterable[str]) -> Markup:
    return Markup("<ul>\n{}</ul>\n").format(
        Markup("").join(Markup("<li>{}</li>\n").format(item) for item in items)
    )


def link(target: str, text: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(target, text)


def code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def badge(verdict: str) -> Markup:
    """A verdict as a small label, coloured by what it means; unknown words are neutral."""
    return Markup('<span class="badge {}">{}</span>').format(_kind(verdict), verdict)


def verdict(word: str, summary: str, kind: str | None = None) -> Markup:
    """The answer of the page, for its top: one word, dashes shown as spaces, and one sentence.

    Raises:
        ValueError: `kind` is not one of info, good, warn, bad.
    """
    return Markup(
        '<div class="verdict {}"><p class="word">{}</p><p class="summary">{}</p></div>\n'
    ).format(_checked(kind or _kind(word)), word.replace("-", " "), summary)


def note(text: str, kind: str = "info") -> Markup:
    """A remark set apart from the text.

    Raises:
        ValueError: `kind` is not one of info, good, warn, bad.
    """
    return Markup('<div class="note {}" role="note"><p>{}</p></div>\n').format(_checked(kind), text)


def facts(values: Mapping[str, object]) -> Markup:
    """Named single values, as a row of cells."""
    cells = (
        Markup("<div><dt>{}</dt><dd>{}</dd></div>\n").format(k, _text(v)) for k, v in values.items()
    )
    return Markup('<dl class="facts">\n{}</dl>\n').format(Markup("").join(cells))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Markup:
    """A table; columns of numbers are set flush right.

    Numbers are written with a sensible precision, None as a dash, `Markup` cells as they are.

    Raises:
        ValueError: a row has another number of cells than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"table row {list(row)!r} has {len(row)} cells, but there are {len(columns)} columns"
            )
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    head = Markup("").join(
        _cell("th", name, number) for name, number in zip(columns, numeric, strict=True)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>\n").format(Markup("").join(map(_cell, ["td"] * len(row), row, numeric)))
        for row in rows
    )
    # outside of the part that scrolls sideways on a phone
    title = Markup('<p class="caption">{}</p>\n').format(caption) if caption else Markup("")
    label = caption or ", ".join(columns)
    return title + Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{}"><table>\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n"
    ).format(label, head, body)


def figure(png_bytes: bytes, caption: str, alt: str, width: int | None = None) -> Markup:
    """A PNG image inside the page; `width` in CSS pixels, else its own.

    Raises:
        ValueError: the bytes are not a PNG image.
    """
    if not png_bytes.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"figure {caption!r}: the {len(png_bytes)} bytes are not a PNG image")
    size = Markup(' width="{}"').format(width) if width else Markup("")
    data = base64.b64encode(png_bytes).decode("ascii")
    return Markup(
        '<figure><img src="data:image/png;base64,{}" alt="{}"{}><figcaption>{}</figcaption></figure>\n'
    ).format(data, alt, size, caption)


def png(drawing: Any, dots_per_inch: int = 144) -> bytes:
    """A matplotlib figure as PNG bytes that do not tell when they were made, or with which release."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def bars(values: Mapping[str, Sequence[int]], series: Sequence[str] = ()) -> Markup:
    """Counts as horizontal bars, one a name; several counts of a name stand one behind the other.

    `series` names the counts for a legend, where there are several.

    Raises:
        ValueError: a name has another number of counts than another.
    """
    if len({len(counts) for counts in values.values()}) > 1:
        raise ValueError(f"bars of {', '.join(values)} have different numbers of counts")
    longest = max((sum(counts) for counts in values.values()), default=0) or 1
    lines = Markup("").join(_bar(name, counts, longest) for name, counts in values.items())
    keys = Markup(" ").join(
        Markup('<span class="key"><i class="series-{}"></i> {}</span>').format(place, name)
        for place, name in enumerate(series)
    )
    legend = Markup('<p class="legend">{}</p>\n').format(keys) if series else Markup("")
    return legend + Markup('<dl class="bars">\n{}</dl>\n').format(lines)


def _bar(name: str, counts: Sequence[int], longest: int) -> Markup:
    parts = Markup("").join(
        Markup('<i class="series-{}" style="width:{:.2f}%"></i>').format(
            place, 100 * count / longest
        )
        for place, count in enumerate(counts)
    )
    return Markup(
        '<dt>{}</dt><dd><span class="bar">{}</span><span class="count">{}</span></dd>\n'
    ).format(name, parts, number(sum(counts)))


def gallery(figures: Iterable[Markup]) -> Markup:
    """Figures side by side where the window is wide enough."""
    return Markup('<div class="gallery">\n{}</div>\n').format(Markup("").join(figures))


def sheet(figures: Iterable[Markup]) -> Markup:
    """Many small figures, as a contact sheet."""
    return Markup('<div class="sheet">\n{}</div>\n').format(Markup("").join(figures))


def number(value: float) -> str:
    """A number for reading: thousands grouped, at most three decimals, or three digits where that says nothing."""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.{3 - (abs(value) >= 10) - (abs(value) >= 100)}f}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.2e}"


def _kind(word: str) -> str:
    return next((kind for kind, words in _KIND_OF_VERDICT.items() if word.lower() in words), "info")


def _checked(kind: str) -> str:
    if kind not in _KINDS:
        raise ValueError(f"page element kind {kind!r} is not one of {', '.join(_KINDS)}")
    return kind


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _is_number(value: object) -> bool:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return True
    return (
        isinstance(value, str)
        and not isinstance(value, Markup)
        and bool(_FORMATTED_NUMBER.fullmatch(value))
    )


def _text(value: object) -> Markup:
    if value is None:
        return Markup("–")
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    return escape(number(value) if isinstance(value, int | float) else value)


def _cell(tag: str, value: object, is_number: bool) -> Markup:
    scope = Markup(' scope="col"') if tag == "th" else Markup("")
    style = Markup(' class="number"') if is_number else Markup("")
    return Markup("<{0}{1}{2}>{3}</{0}>").format(Markup(tag), scope, style, _text(value))

"""What pages are made of: tables and their cells, facts, pictures. `macros.html.j2` draws them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from arl.evaluation.results import Estimate, Interval
from arl.reports import formatting

KINDS = ("info", "good", "warn", "bad")
_WORDS_OF_KIND = {
    "good": {
        "promote",
        "approved",
        "promoted",
        "pass",
        "passed",
        "no-drift",
        "released",
        "yes",
        "ok",
    },
    "bad": {
        "worse",
        "reject",
        "rejected",
        "fail",
        "failed",
        "drift",
        "critical",
        "refused",
        "given-up",
    },
    "warn": {
        "already-running",
        "cooling-down",
        "held",
        "inconclusive",
        "not promoted",
        "not released",
        "outage",
        "synthetic",
        "too-few",
        "warning",
    },
}
# "0.913 (0.871 to 0.948)", "<0.001", "12 %"; "0001" is a name
_FORMATTED_NUMBER = re.compile(r"[-−+<]?\s?\d[\d,]*(\.\d+|\s?%).*")
MIN_ROWS_TO_FILTER = 8


def kind_of(word: str) -> str:
    """The colour of a verdict: good, warn or bad; other words are info."""
    kinds = (kind for kind, words in _WORDS_OF_KIND.items() if word.lower() in words)
    return next(kinds, "info")


@dataclass(frozen=True)
class Badge:
    """A verdict as a small label, coloured by its meaning."""

    element: ClassVar[str] = "badge"
    word: str

    @property
    def kind(self) -> str:
        return kind_of(self.word)


@dataclass(frozen=True)
class Link:
    """A link to another page, or to a place of this one."""

    element: ClassVar[str] = "link"
    href: str
    text: str


@dataclass(frozen=True)
class Code:
    """An identifier, a command or a path."""

    element: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Codes:
    """Several identifiers."""

    element: ClassVar[str] = "codes"
    texts: Sequence[str]


@dataclass(frozen=True)
class IntervalCell:
    """A value and, below it, its interval and remarks."""

    element: ClassVar[str] = "interval"
    interval: Interval | Estimate | None
    signed: bool = False
    remarks: Sequence[str] = ()

    @property
    def value(self) -> str:
        value = None if self.interval is None else self.interval.value
        return formatting.fixed(value, signed=self.signed)

    @property
    def limits(self) -> str:
        if self.interval is None or self.interval.low is None:
            return ""
        return formatting.limits(self.interval, signed=self.signed)


@dataclass(frozen=True)
class Picture:
    """A PNG image inside of the page."""

    element: ClassVar[str] = "picture"
    png: bytes
    alt: str
    height: int | None = None  # CSS pixels; None: the picture's own

    def __post_init__(self) -> None:
        # An empty or cut file would be a broken picture that nobody notices.
        if not self.png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"picture {self.alt!r}: {len(self.png)} bytes that are not PNG")


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a contact sheet with its caption."""

    picture: Picture
    lines: Sequence[str]
    synthetic: bool
    name: str = ""


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort and, if it is long, filter.

    Cells are numbers, texts, None (a dash), booleans or elements.

    Raises:
        ValueError: a row has another number of cells than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    name: str = ""  # for screen readers, where there is no caption

    def __post_init__(self) -> None:
        for row in self.rows:
            # A browser shifts the cells of a short row silently.
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table row {list(row)!r} has {len(row)} cells,"
                    f" but there are {len(self.columns)} columns"
                )

    @property
    def label(self) -> str:
        return self.name or self.caption or ", ".join(filter(None, self.columns))

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers and are set flush right."""
        return [
            bool(self.rows) and all(_is_number(row[i]) for row in self.rows)
            for i in range(len(self.columns))
        ]

    @property
    def filterable(self) -> bool:
        return len(self.rows) >= MIN_ROWS_TO_FILTER


@dataclass(frozen=True)
class Bars:
    """Counts as horizontal bars, one per name, in one or several series.

    Raises:
        ValueError: the names have different numbers of counts.
    """

    counts: Mapping[str, Sequence[int]]
    series: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Series of other lengths would be drawn under wrong names.
        if len({len(values) for values in self.counts.values()}) > 1:
            raise ValueError(f"bars {', '.join(self.counts)} have different numbers of counts")

    @property
    def longest(self) -> int:
        return max((sum(values) for values in self.counts.values()), default=0) or 1

    def segments(self, name: str) -> list[tuple[float, float, str]]:
        """Start and width of each segment in percent of the longest bar, and its text on hover."""
        segments, start = [], 0.0
        for i, count in enumerate(self.counts[name]):
            width = 100 * count / self.longest
            series = f"{self.series[i]}: " if self.series else ""
            segments.append((round(start, 2), round(width, 2), f"{name}, {series}{count:,}"))
            start += width
        return segments


def sort_key(cell: object) -> float | None:
    """The number that a table sorts a cell by; None: by its text."""
    if isinstance(cell, IntervalCell):
        return None if cell.interval is None else cell.interval.value
    # bool is a subclass of int.
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    return float(cell)


def _is_number(cell: object) -> bool:
    if cell is None or isinstance(cell, IntervalCell):
        return True
    if isinstance(cell, int | float):
        return not isinstance(cell, bool)
    return isinstance(cell, str) and (
        cell == formatting.DASH or bool(_FORMATTED_NUMBER.fullmatch(cell))
    )

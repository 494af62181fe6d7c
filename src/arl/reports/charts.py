"""Charts as inline SVG: colours of the page, values on hover, the same bytes for the same data.

A chart is a list of marks in the units of its SVG, which `macros.html.j2` writes out. A mark that
has a value carries it as its title, which browsers show on hover without any script.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from arl.evaluation.metrics import Floats
from arl.evaluation.results import Interval
from arl.reports import formatting
from arl.reports.elements import Table

NUM_COLOURS = 10
_SHAPES = ("circle", "square", "triangle", "diamond")
_MAX_VERTICES = 400  # of a line
_MAX_TITLES = 600  # points of a scatter plot that have their own hover text
_CHARACTER = 6.4  # width of a letter of a label, SVG units


@dataclass(frozen=True)
class Path:
    """A line or an area."""

    d: str
    css: str
    title: str = ""


@dataclass(frozen=True)
class Label:
    """A text; `turned` runs upwards."""

    x: float
    y: float
    text: str
    css: str = ""
    turned: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    text: str
    css: str
    d: str


@dataclass
class Chart:
    """What to draw, in SVG units, and what to say about it."""

    title: str
    width: int
    height: int
    description: str  # for those who do not see the chart
    caption: str = ""
    marks: list[Path | Label] = field(default_factory=list)
    legend: list[Key] = field(default_factory=list)
    table: Table | None = None


@dataclass(frozen=True)
class Axes:
    """The plotting area of a chart and its scales."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 50
    right: float = 14
    top: float = 10
    bottom: float = 42
    log_x: bool = False

    def px(self, value: float) -> float:
        low, high = self.x
        if self.log_x:
            value, low, high = math.log(value), math.log(low), math.log(high)
        # A constant series has no span.
        span = (high - low) or 1.0
        return self.left + (value - low) / span * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        low, high = self.y
        span = (high - low) or 1.0
        return self.height - self.bottom - (value - low) / span * self.inner_height

    @property
    def inner_height(self) -> float:
        return self.height - self.top - self.bottom

    def line(self, points: Iterable[tuple[float, float]], *, close: bool = False) -> str:
        """The path data of a polyline."""
        # A tenth of a unit is below a pixel; more digits would double the size of a page.
        vertices = [f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in points]
        return "M" + "L".join(vertices) + ("Z" if close else "")

    def box(self, x0: float, x1: float, y0: float, y1: float) -> str:
        """The path data of a rectangle."""
        return self.line([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], close=True)

    def dot(self, x: float, y: float, shape: str = "circle", radius: float = 4) -> str:
        return _marker(self.px(x), self.py(y), shape, radius)

    def marks(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> list[Path | Label]:
        """The axes with ticks and labels; ticks are (value, text), by default round numbers."""
        x_ticks = ticks(*self.x) if x_ticks is None else x_ticks
        y_ticks = ticks(*self.y) if y_ticks is None else y_ticks
        bottom, right = self.height - self.bottom, self.width - self.right
        marks: list[Path | Label] = []
        for value, text in y_ticks:
            y = self.py(value)
            marks.append(Path(f"M{self.left} {y:.1f}H{right}", "rule"))
            marks.append(Label(self.left - 6, round(y + 4, 1), text, "tick end"))
        marks.append(Path(f"M{self.left} {bottom}H{right}", "axis"))
        for value, text in x_ticks:
            x = self.px(value)
            marks.append(Path(f"M{x:.1f} {bottom}v4", "axis"))
            marks.append(Label(round(x, 1), bottom + 16, text, "tick middle"))
        middle = (self.left + right) / 2
        if x_label:
            marks.append(Label(middle, self.height - 6, x_label, "name middle"))
        if y_label:
            y = self.top + self.inner_height / 2
            marks.append(Label(14, round(y, 1), y_label, "name middle", turned=True))
        return marks


def _marker(x: float, y: float, shape: str, r: float) -> str:
    if shape == "square":
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}Z"
    if shape == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.1f} {2.1 * r:.1f}h{-2.4 * r:.1f}Z"
    if shape == "diamond":
        s = f"{1.4 * r:.1f}"
        return f"M{x:.1f} {y - 1.4 * r:.1f}l{s} {s}l-{s} {s}l-{s} -{s}Z"
    return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"


def ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """About `count` round numbers from low to high, with their texts."""
    if not high > low:
        return [(low, f"{low:g}")]
    # Steps of 1, 2, 2.5 or 5 are what people read off an axis.
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = min(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    # The tolerance keeps a tick that rounding has moved past the end.
    first = math.ceil(low / step - 1e-9)
    values = [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
    # A true minus sign; + 0.0 turns -0.0 into 0.
    return [(value, f"{value + 0.0:.6g}".replace("-", "−")) for value in values]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    values = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    return [(value, f"{value:g}") for value in values if low * 0.999 <= value <= high * 1.001]


def _padded(values: Iterable[float], fraction: float = 0.05) -> tuple[float, float]:
    """The range of the finite values, a little wider."""
    # A diverged training has NaN in its history, and still needs a chart.
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    pad = fraction * (high - low) or 0.5 * abs(high) or 0.5
    return low - pad, high + pad


def _thinned(points: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """At most `limit` of the points, evenly, with the first and the last."""
    if len(points) <= limit:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, limit).round().astype(int)]


# --- results of a task -----------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One ROC curve."""

    name: str
    false_positive: Floats  # (n,)
    true_positive: Floats  # (n,)
    auroc: float


def roc(
    curves: Sequence[Curve],
    *,
    title: str,
    band: tuple[Floats, Floats, Floats] | None = None,
    operating_point: tuple[float, float, float] | None = None,
    caption: str = "",
) -> Chart:
    """ROC curves.

    Args:
        band: false positive rates and the limits of the first curve's true positive rate.
        operating_point: 1 - specificity, sensitivity and the threshold.
    """
    axes = Axes(400, 380, (0, 1), (0, 1))
    names = ", ".join(f"{curve.name} AUROC {curve.auroc:.3f}" for curve in curves)
    chart = Chart(title, 400, 380, f"ROC curve: {names}", caption)
    chart.marks = axes.marks("1 − specificity", "sensitivity")
    if band is not None:
        x, low, high = (values.tolist() for values in band)
        outline = [*zip(x, high, strict=True), *reversed(list(zip(x, low, strict=True)))]
        finite = [point for point in outline if math.isfinite(point[1])]
        if finite:
            chart.marks.append(Path(axes.line(finite, close=True), "c0 band"))
            chart.legend.append(Key("95 % band over patients", "c0 band", "M0 1h18v10h-18Z"))
    chart.marks.append(Path(axes.line([(0, 0), (1, 1)]), "guide"))
    for i, curve in enumerate(curves):
        points = list(zip(curve.false_positive.tolist(), curve.true_positive.tolist(), strict=True))
        colour = f"c{i % NUM_COLOURS}"
        chart.marks.append(Path(axes.line(_thinned(points, _MAX_VERTICES)), f"{colour} line"))
        chart.legend.append(Key(f"{curve.name}: {curve.auroc:.3f}", f"{colour} line", "M0 6h18"))
        for x, y in _thinned(points, 40) if i == 0 else []:
            text = f"sensitivity {y:.3f}, specificity {1 - x:.3f}"
            chart.marks.append(Path(axes.dot(x, y, radius=5), "hit", text))
    if operating_point is not None:
        x, y, threshold = operating_point
        text = f"threshold {threshold:.3f}: sensitivity {y:.3f}, specificity {1 - x:.3f}"
        chart.marks.append(Path(axes.dot(x, y, "diamond", 5), "c1 dot", text))
        chart.legend.append(Key("threshold from validation", "c1 dot", _marker(9, 6, "diamond", 4)))
    return chart


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix, drawn as a table."""

    title: str
    classes: Sequence[str]
    matrix: Sequence[Sequence[int]]  # truth in rows
    caption: str = ""

    def fraction(self, row: int, column: int) -> float:
        """Of the images of a true class."""
        return self.matrix[row][column] / max(1, sum(self.matrix[row]))

    def shade(self, row: int, column: int) -> int:
        return round(4 * self.fraction(row, column))

    def describe(self, row: int, column: int) -> str:
        return (
            f"{self.matrix[row][column]:,} images of {self.classes[row]},"
            f" called {self.classes[column]}"
        )


@dataclass(frozen=True)
class CalibrationBin:
    """Images of similar predicted probability."""

    probability: float  # mean
    observed: Interval  # frequency of positives
    images: int


def calibration(bins: Sequence[CalibrationBin], *, title: str) -> Chart:
    """Observed frequency with its interval against predicted probability."""
    axes = Axes(400, 380, (0, 1), (0, 1))
    chart = Chart(
        title,
        400,
        380,
        "Observed frequency against predicted probability; the values are in the table",
        f"{formatting.plural(len(bins), 'bin')} of about {bins[0].images if bins else 0} images,"
        " with 95 % intervals. On the dashed line probabilities are frequencies.",
        axes.marks("predicted probability", "observed frequency"),
    )
    chart.marks.append(Path(axes.line([(0, 0), (1, 1)]), "guide"))
    points = [(one.probability, one.observed.value) for one in bins]
    for one in bins:
        limits = [(one.probability, one.observed.low), (one.probability, one.observed.high)]
        chart.marks.append(Path(axes.line(limits), "reference thick"))
    for one, (x, y) in zip(bins, points, strict=True):
        text = (
            f"predicted {x:.3f}, observed {formatting.interval(one.observed)}, {one.images} images"
        )
        chart.marks.append(Path(axes.dot(x, y), "c0 dot", text))
    rows = [
        [formatting.fixed(one.probability), formatting.interval(one.observed), one.images]
        for one in bins
    ]
    chart.table = Table(["predicted", "observed", "images"], rows, name=f"Values of {title}")
    return chart


# --- comparisons -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot."""

    name: str
    interval: Interval
    limit: float | None = None  # a mark that the interval is compared with
    emphasis: bool = True


def forest(
    rows: Sequence[Bar], *, title: str, x_label: str, caption: str = "", limit_name: str = ""
) -> Chart:
    """Values with their intervals, one below the other, and the limits they are compared with."""
    left = 24 + _CHARACTER * max(len(row.name) for row in rows)
    values = [v for row in rows for v in (row.interval.low, row.interval.high, 0.0)]
    values += [row.limit for row in rows if row.limit is not None]
    height = 54 + 30 * len(rows)
    width = round(min(900, max(640, left + 440)))
    axes = Axes(width, height, _padded(values), (len(rows) - 0.5, -0.5), left=left, bottom=44)
    chart = Chart(title, width, height, f"{title}; the values are in the table", caption)
    chart.marks = axes.marks(x_label, "", y_ticks=[])
    chart.marks.append(Path(axes.line([(0, len(rows) - 0.5), (0, -0.5)]), "guide"))
    for y, row in enumerate(rows):
        css = "c0" if row.emphasis else "reference"
        text = f"{row.name}: {formatting.interval(row.interval, signed=True)}"
        ends = [(row.interval.low, y), (row.interval.high, y)]
        chart.marks += [
            Label(round(left - 10, 1), round(axes.py(y) + 4, 1), row.name, "name end"),
            Path(axes.line(ends), f"{css} thick", text),
            Path(axes.dot(row.interval.value, y), f"{css} dot", text),
        ]
        if row.limit is not None:
            mark = [(row.limit, y - 0.35), (row.limit, y + 0.35)]
            limit = formatting.fixed(row.limit, signed=True)
            chart.marks.append(Path(axes.line(mark), "limit", f"{limit_name}: {limit}"))
    if limit_name and any(row.limit is not None for row in rows):
        chart.legend.append(Key(limit_name, "limit", "M9 0v12"))
    return chart


@dataclass(frozen=True)
class Point:
    """One row of a dot plot."""

    name: str
    value: float
    limit: float | None
    emphasis: bool


def dots(
    rows: Sequence[Point], *, title: str, x_label: str, caption: str = "", limit_name: str = ""
) -> Chart:
    """Values from zero, one below the other, each with the limit that it must not exceed."""
    left = 24 + _CHARACTER * max(len(row.name) for row in rows)
    values = [v for row in rows for v in (row.value, row.limit, 0.0) if v is not None]
    height = 54 + 26 * len(rows)
    width = round(min(900, max(640, left + 440)))
    axes = Axes(width, height, _padded(values), (len(rows) - 0.5, -0.5), left=left, bottom=44)
    chart = Chart(title, width, height, f"{title}; the values are on hover", caption)
    chart.marks = axes.marks(x_label, "", y_ticks=[])
    chart.marks.append(Path(axes.line([(0, len(rows) - 0.5), (0, -0.5)]), "guide"))
    for y, row in enumerate(rows):
        css = "c0" if row.emphasis else "reference"
        text = f"{row.name}: {formatting.fixed(row.value, 4)}"
        chart.marks += [
            Label(round(left - 10, 1), round(axes.py(y) + 4, 1), row.name, "name end"),
            Path(axes.line([(0, y), (row.value, y)]), f"{css} line", text),
            Path(axes.dot(row.value, y), f"{css} dot", text),
        ]
        if row.limit is not None:
            mark = [(row.limit, y - 0.35), (row.limit, y + 0.35)]
            limit = formatting.fixed(row.limit, 4)
            chart.marks.append(Path(axes.line(mark), "limit", f"{limit_name}: {limit}"))
    if limit_name and any(row.limit is not None for row in rows):
        chart.legend.append(Key(limit_name, "limit", "M9 0v12"))
    return chart


# --- distributions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Distribution:
    """Counts of one quantity in bins, of reference and new patients."""

    name: str
    edges: Sequence[float]  # (bins + 1,)
    reference: Sequence[int]  # (bins,)
    current: Sequence[int]  # (bins,)


def distribution(name: str, reference: Floats, current: Floats, bins: int = 20) -> Distribution:
    """Counts of finite values in bins that both sides share."""
    sides = [values[np.isfinite(values)] for values in (reference, current)]
    both = np.concatenate(sides)
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = [np.histogram(values, edges)[0].tolist() for values in sides]
    return Distribution(name, edges.round(6).tolist(), *counts)


def histogram(one: Distribution) -> Chart:
    """The reference as bars, the new patients as a line, both as fractions of their side."""
    fractions = [
        [count / max(1, sum(counts)) for count in counts] for counts in (one.reference, one.current)
    ]
    top = max([*fractions[0], *fractions[1], 0.01])
    axes = Axes(330, 200, (one.edges[0], one.edges[-1]), (0, 1.05 * top), left=44)
    counts = f"{sum(one.reference)} reference and {sum(one.current)} new patients"
    chart = Chart(one.name, 330, 200, f"Histogram of {one.name} of {counts}")
    chart.marks = axes.marks("", "", x_ticks=ticks(*axes.x, 4), y_ticks=_percent_ticks(top))
    steps: list[tuple[float, float]] = []
    for i, (low, high) in enumerate(pairwise(one.edges)):
        text = (
            f"{formatting.number(low)} to {formatting.number(high)}:"
            f" reference {formatting.percent(fractions[0][i], 1)},"
            f" new {formatting.percent(fractions[1][i], 1)}"
        )
        chart.marks.append(Path(axes.box(low, high, 0, fractions[0][i]), "reference fill", text))
        steps += [(low, fractions[1][i]), (high, fractions[1][i])]
    chart.marks.append(Path(axes.line(steps), "c0 line"))
    chart.legend = [
        Key("reference", "reference fill", "M0 1h18v10h-18Z"),
        Key("new", "c0 line", "M0 6h18"),
    ]
    return chart


def _percent_ticks(top: float) -> list[tuple[float, str]]:
    return [(value, formatting.percent(value)) for value, _ in ticks(0, top, 3)]


def fractions_histogram(values: Floats, *, title: str, x_label: str) -> Chart:
    """Counts of fractions between 0 and 1 in 20 bins."""
    counts, edges = np.histogram(values[np.isfinite(values)], np.linspace(0, 1, 21))
    axes = Axes(400, 320, (0, 1), (0, 1.05 * max(1, int(counts.max()))))
    chart = Chart(title, 400, 320, f"Histogram of {x_label} of {len(values)} images")
    chart.marks = axes.marks(x_label, "images")
    for count, low, high in zip(
        counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
    ):
        text = f"{low:.2f} to {high:.2f}: {formatting.plural(count, 'image')}"
        chart.marks.append(Path(axes.box(low, high, 0, count), "c0 fill", text))
    return chart


# --- points and curves -----------------------------------------------------------------------


def scatter(
    points: npt.NDArray[np.floating],
    groups: Sequence[str],
    *,
    title: str,
    caption: str = "",
    names: Sequence[str] | None = None,
    reference: str | None = None,
) -> Chart:
    """Points (n, 2) without axes, each group in its colour and shape.

    Args:
        names: the groups in the order of the legend; by default sorted.
        reference: the group that is drawn grey and first.
    """
    names = sorted(set(groups)) if names is None else names
    width, height = 440, 360
    if len(points):
        ranges = [_padded(points[:, i].tolist()) for i in (0, 1)]
    else:
        ranges = [(0.0, 1.0), (0.0, 1.0)]
    axes = Axes(width, height, ranges[0], ranges[1], left=8, right=8, top=8, bottom=8)
    chart = Chart(title, width, height, f"{title}: {len(points)} points", caption)
    frame = f"M8 8H{width - 8}V{height - 8}H8Z"
    chart.marks.append(Path(frame, "rule"))
    chosen = np.asarray(groups)
    many = len(points) > _MAX_TITLES
    for i, name in enumerate(names):
        of_group = points[chosen == name]
        colour = i - (reference is not None)  # the reference comes first and has none
        css = "reference" if name == reference else f"c{colour % NUM_COLOURS}"
        shape = _SHAPES[i // NUM_COLOURS % len(_SHAPES)]
        text = f"{name}: {formatting.plural(len(of_group), 'point')}"
        if many:
            d = "".join(f"M{axes.px(x):.1f} {axes.py(y):.1f}h0" for x, y in of_group.tolist())
            if d:
                chart.marks.append(Path(d, f"{css} points", text))
        else:
            chart.marks += [
                Path(axes.dot(x, y, shape, 3.5), f"{css} dot", name) for x, y in of_group.tolist()
            ]
        chart.legend.append(
            Key(f"{name} ({len(of_group):,})", f"{css} dot", _marker(9, 6, shape, 4))
        )
    return chart


def curve(points: Sequence[tuple[float, float]], *, title: str, x_label: str = "step") -> Chart:
    """One quantity by step."""
    drawn = _thinned([(x, y) for x, y in points if math.isfinite(y)], _MAX_VERTICES)
    xs = [x for x, _ in points] or [0.0, 1.0]
    axes = Axes(330, 190, (min(xs), max(xs)), _padded(y for _, y in drawn), left=56, bottom=38)
    last = formatting.number(drawn[-1][1]) if drawn else "no value"
    chart = Chart(title, 330, 190, f"{title} by {x_label}; the last value is {last}")
    whole = [(value, text) for value, text in ticks(*axes.x, 4) if value == int(value)]
    chart.marks = axes.marks(x_label, "", x_ticks=whole, y_ticks=ticks(*axes.y, 4))
    if drawn:
        chart.marks.append(Path(axes.line(drawn), "c0 line"))
    for x, y in _thinned(drawn, 40):
        text = f"{x_label} {x:g}: {formatting.number(y)}"
        chart.marks.append(Path(axes.dot(x, y, radius=5), "hit", text))
    return chart


def efficiency(
    series: Mapping[str, Sequence[tuple[float, Interval]]], *, title: str, metric: str
) -> Chart:
    """A metric with its interval against the fraction of the data, one line per method."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, one in points for y in (one.low, one.high)]
    axes = Axes(560, 380, (min(xs) / 1.1, max(xs) * 1.1), _padded(ys), log_x=True)
    chart = Chart(title, 560, 380, f"{metric} against the fraction of the data")
    chart.marks = axes.marks(
        "fraction of the training patients, logarithmic", metric, x_ticks=_log_ticks(*axes.x)
    )
    for i, (name, points) in enumerate(series.items()):
        colour = f"c{i % NUM_COLOURS}"
        limits = [(x, one.high) for x, one in points]
        limits += [(x, one.low) for x, one in reversed(points)]
        chart.marks.append(Path(axes.line(limits, close=True), f"{colour} band"))
        middle = [(x, one.value) for x, one in points]
        chart.marks.append(Path(axes.line(middle), f"{colour} line"))
        shape = _SHAPES[i % len(_SHAPES)]
        for x, one in points:
            text = f"{name}, {formatting.percent(x, 1)} of the patients: {formatting.interval(one)}"
            chart.marks.append(Path(axes.dot(x, one.value, shape), f"{colour} dot", text))
        chart.legend.append(Key(name, f"{colour} dot", _marker(9, 6, shape, 4)))
    return chart

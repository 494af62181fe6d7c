"""Numbers as a reader sees them: one way to write an interval, a p value, a duration."""

import math

from arl.evaluation.results import Estimate, Interval

DASH = "–"


def number(value: float) -> str:
    """A number with thousands grouped and three digits, or as many decimals as say something."""
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        text = f"{value:.{3 - (abs(value) >= 10) - (abs(value) >= 100)}f}"
    else:
        text = f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.2e}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def fixed(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with a fixed number of decimals; a dash for None."""
    if value is None:
        return DASH
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def limits(estimate: Interval | Estimate, digits: int = 3, *, signed: bool = False) -> str:
    """The limits of an interval, e.g. "0.871 to 0.948"."""
    low, high = (fixed(limit, digits, signed=signed) for limit in (estimate.low, estimate.high))
    return f"{low} to {high}"


def interval(estimate: Interval | Estimate | None, digits: int = 3, *, signed: bool = False) -> str:
    """A value with its interval, e.g. "0.913 (0.871 to 0.948)"; a dash for None."""
    if estimate is None:
        return DASH
    value = fixed(estimate.value, digits, signed=signed)
    return value if estimate.low is None else f"{value} ({limits(estimate, digits, signed=signed)})"


def p_value(value: float | None) -> str:
    """A p value with three decimals, and never as zero."""
    if value is None:
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def percent(fraction: float, digits: int = 0) -> str:
    return f"{fraction:.{digits}%}".replace("%", " %")


def duration(seconds: float) -> str:
    """A duration in the two largest units, e.g. "2 min 5 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """A count with its noun, e.g. "1 image", "2,000 images"."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"

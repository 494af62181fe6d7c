"""Progress with an estimate of what is left, on stderr."""

import sys
from typing import Any

from tqdm import tqdm

from arl import console

_LOG_SECONDS = 15.0  # between lines where stderr is a log and no terminal


def progress(
    total: int, title: str, unit: str, *, initial: int = 0, visible: bool = True
) -> "tqdm[Any]":
    """A progress bar; a line every few seconds where nobody watches."""
    # In the log of a pod a bar of carriage returns is one unreadable line.
    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=title,
        unit=unit,
        disable=not visible or console.is_quiet(),
        file=sys.stderr,
        mininterval=0.2 if watched else _LOG_SECONDS,
        dynamic_ncols=watched,
    )

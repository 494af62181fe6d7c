"""Readers of datasets: one file for each source, which defines a `SOURCE` under its own name."""

import importlib
import pkgutil

from arl.ingest.source import Source


def names() -> list[str]:
    """The sources that have a reader, as typed on the command line: bus-bra."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find_source(name: str) -> Source:
    """The source of a name. Only its reader is imported.

    Raises:
        ValueError: There is no such source.
    """
    if name not in names():
        raise ValueError(f"source {name!r} has no reader; choose one of: {', '.join(names())}")
    source = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").SOURCE
    assert isinstance(source, Source)
    return source

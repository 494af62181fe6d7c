"""What a command prints for people, on standard output, and how much of it.

A command whose product is text (`arl models`) uses `print`. What accompanies a product that lies
in files goes through `info`, which `--quiet` silences.
"""

import sys

_quiet = False
_verbose = False


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Choose what this process prints, before a command starts."""
    global _quiet, _verbose
    _quiet, _verbose = quiet, verbose


def is_quiet() -> bool:
    """Whether the user wants errors and warnings only."""
    return _quiet


def is_verbose() -> bool:
    """Whether the user wants details, such as the traceback of an error."""
    return _verbose


def info(text: str) -> None:
    """Print one line, unless the user wants errors and warnings only."""
    if not _quiet:
        # Flushed, since a log collector shows nothing of a killed process otherwise.
        print(text, flush=True)


def warn(text: str) -> None:
    """Print one line on standard error, whatever the user wants."""
    print(text, file=sys.stderr, flush=True)

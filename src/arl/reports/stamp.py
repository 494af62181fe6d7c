"""Where a page comes from: date, duration, command, commit and version of the data."""

import os
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from arl.corpus.manifest import corpus_version
from arl.git import head_commit
from arl.reports.formatting import duration

_SHORT = 12  # characters of a hash on a page


@dataclass(frozen=True)
class RunStamp:
    """Date, duration, command, commit and data version of the run that wrote a page."""

    at: datetime
    seconds: float | None
    command: str
    commit: str | None
    data: str | None

    def facts(self) -> dict[str, str]:
        """The stamp as names and values, for the foot of a page."""
        values = {
            "written": f"{self.at:%Y-%m-%d %H:%M:%S} UTC",
            "duration": None if self.seconds is None else duration(self.seconds),
            "command": self.command,
            "commit": self.commit,
            "data version": None if self.data is None else self.data[:_SHORT],
        }
        return {name: value for name, value in values.items() if value}


class Stopwatch:
    """Started where a command begins, stopped where it writes its page."""

    def __init__(self, command: str, *, show_arguments: bool = True) -> None:
        """`show_arguments` is False where arguments can name a hospital's files."""
        self._started = time.monotonic()
        self._command = _command_line(command) if show_arguments else command

    def stamp(self, corpus: Path | None = None) -> RunStamp:
        """The stamp of a page that is written now.

        With the environment variable SOURCE_DATE_EPOCH (seconds since 1970) the date is that one
        and the duration is left out, so that the same data give the same bytes.
        """
        # The convention of reproducible-builds.org.
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        data = corpus_version(corpus) if corpus is not None and corpus.is_dir() else None
        if epoch is not None:
            at, seconds = datetime.fromtimestamp(int(epoch), UTC), None
        else:
            at, seconds = datetime.now(UTC), time.monotonic() - self._started
        return RunStamp(at, seconds, self._command, head_commit(), data)


def _command_line(command: str) -> str:
    """The words that the user typed, if this process is the command line."""
    # In a test or a notebook, argv is that of another program.
    if Path(sys.argv[0]).stem in ("arl", "__main__"):
        return shlex.join(["arl", *sys.argv[1:]])
    return command

"""What a rule of a corpus found, without the libraries that check it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """What one rule found."""

    rule: str
    severity: Severity
    description: str
    # Rows, patients, clips, batches.
    checked: int
    failed: int
    # The first offenders, at most MAX_EXAMPLES.
    examples: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.failed == 0

    def plus(self, checked: int, failed: int, names: Iterable[str]) -> "Finding":
        """The finding on more rows."""
        offenders = examples([*self.examples, *names])
        return replace(
            self, checked=self.checked + checked, failed=self.failed + failed, examples=offenders
        )


def examples(values: Iterable[object]) -> tuple[str, ...]:
    """The first few different names among `values`."""
    names = (str(value) if isinstance(value, str | int) else "(no id)" for value in values)
    return tuple(dict.fromkeys(names))[:MAX_EXAMPLES]

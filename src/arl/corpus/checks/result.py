"""The result of a validation, result.json."""

from dataclasses import dataclass
from typing import ClassVar

from arl.corpus.checks.findings import Finding
from arl.documents import Document


@dataclass(frozen=True)
class ValidationResult(Document):
    """The rules of a corpus, the most severe first, and the version they were checked on."""

    FORMAT: ClassVar[str] = "arl.validation"
    VERSION: ClassVar[int] = 1
    FILE: ClassVar[str] = "result.json"

    corpus_version: str
    rules: list[Finding]

    @property
    def passed(self) -> bool:
        """Whether no critical rule is broken."""
        return not self.failed("critical")

    def failed(self, severity: str) -> list[Finding]:
        """The broken rules of one severity."""
        return [rule for rule in self.rules if rule.severity == severity and not rule.passed]

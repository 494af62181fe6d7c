"""The count of gate decisions on each series of test sets, beside the registry's versions.

    <registry>/trials/<task>/<series>/000001.json, ...    written once

A try is a model against a champion. The same pair again is the same try, so that a repeated gate
gives the same decision.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from arl.documents import Document
from arl.storage.s3 import Store, is_address

_FOLDER = "trials"
_DIGITS = 6


@dataclass(frozen=True)
class Trial(Document):
    """One decision on a series of test sets."""

    FORMAT: ClassVar[str] = "arl.trial"
    VERSION: ClassVar[int] = 1

    number: int  # from 1
    model_hash: str
    champion: str | None
    created: str  # UTC, ISO 8601


class TrialLog:
    """The tries of one series, in a folder or at s3://bucket/prefix."""

    def __init__(self, registry: str, task: str, series: str) -> None:
        self._prefix = f"{_FOLDER}/{task}/{series}/"
        self._registry = registry
        self._store = Store(registry) if is_address(registry) else None

    def count(self, model_hash: str, champion: str | None) -> int:
        """The number of this try, which is recorded if it is new.

        Two processes never get the same number.

        Raises:
            DocumentError: a record is damaged.
            OSError: the store fails.
        """
        while True:
            trials = self.read()
            for trial in trials:
                # A gate that was repeated after an outage asks the same question, and spends
                # nothing more.
                if (trial.model_hash, trial.champion) == (model_hash, champion):
                    return trial.number
            number = max((trial.number for trial in trials), default=0) + 1
            created = datetime.now(UTC).isoformat(timespec="seconds")
            try:
                self._create(Trial(number, model_hash, champion, created))
            except FileExistsError:
                continue  # another process took this number
            return number

    def read(self) -> list[Trial]:
        """All tries, oldest first.

        Raises:
            DocumentError: a record is damaged.
        """
        if self._store is not None:
            keys = sorted(item.key for item in self._store.objects(self._prefix))
            return [self._parse(self._store.get(key), key) for key in keys]
        # Names that begin with a dot belong to writers that have not finished.
        files = sorted(Path(self._registry, self._prefix).glob("[0-9]*.json"))
        return [self._parse(file.read_bytes(), str(file)) for file in files]

    def _parse(self, content: bytes, origin: str) -> Trial:
        try:
            return Trial.from_json(json.loads(content), origin)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{origin} is not valid JSON: {error}") from error

    def _create(self, trial: Trial) -> None:
        name = f"{self._prefix}{trial.number:0{_DIGITS}}.json"
        content = trial.to_text().encode()
        if self._store is not None:
            self._store.put_if_absent(name, content)
            return
        file = Path(self._registry, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{uuid4().hex}")
        partial.write_bytes(content)
        try:
            # A link appears whole or not at all, and fails if the name is taken.
            os.link(partial, file)
        finally:
            partial.unlink()

"""Instances of a study on their way into an inbox.

    <inbox>/<site>/.receiving/<study>/<instance>.dcm    while instances still come
    <inbox>/<site>/<study>-<number>/<instance>.dcm      a batch, with its marker

Folders and files are named by keyed hashes and are readable by their owner only. Instances that
come after their study has become a batch form the next batch of the study.
"""

import os
import time
from pathlib import Path

from arl.files import atomic_file
from arl.ingest.dicom.deidentify import keyed_hash
from arl.ingest.inbox import MARKER

_RECEIVING = ".receiving"


class StudyFolders:
    """The folders of one site's studies in an inbox."""

    def __init__(self, inbox: Path, site: str, key: bytes) -> None:
        """`key`: secret key of the hashes that name folders and files."""
        self._site, self._key = inbox / site, key
        self._receiving = self._site / _RECEIVING
        self._receiving.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, study_uid: str, instance_uid: str) -> Path:
        """The file of an instance of a study that is being received."""
        instance = keyed_hash(self._key, "received-instance", instance_uid)
        return self._receiving / self.alias(study_uid) / f"{instance}.dcm"

    def alias(self, study_uid: str) -> str:
        """The name that stands for a study."""
        return keyed_hash(self._key, "received-study", study_uid)[:16]

    def store(self, study_uid: str, instance_uid: str, content: bytes) -> None:
        """Write one instance; a second copy replaces the first.

        Raises:
            OSError: The disk is full or not writable.
        """
        file = self.path(study_uid, instance_uid)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with atomic_file(file) as partial:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)

    def release_settled(self, settle_seconds: float, now: float | None = None) -> list[Path]:
        """Turn the studies without a new instance for `settle_seconds` into batches."""
        now = time.time() if now is None else now
        studies = sorted(path for path in self._receiving.iterdir() if path.is_dir())
        return [
            self.release(study.name)
            for study in studies
            if now - study.stat().st_mtime >= settle_seconds and any(study.glob("[!.]*.dcm"))
        ]

    def release(self, alias: str) -> Path:
        """Turn one study into a batch, and write its marker last."""
        study = self._receiving / alias
        for partial in study.glob(".*"):
            # A killed process left it.
            partial.unlink()
        number = 1
        while (batch := self._site / f"{alias}-{number}").exists():
            number += 1
        study.rename(batch)
        count = sum(1 for _ in batch.iterdir())
        with atomic_file(batch.with_name(batch.name + MARKER)) as partial:
            partial.write_text(f"{count}\n", encoding="ascii")
        return batch

    def repair(self) -> None:
        """Write the marker of a batch that a killed process released without one."""
        for batch in self._site.glob("[!.]*"):
            marker = batch.with_name(batch.name + MARKER)
            if batch.is_dir() and not marker.exists():
                count = sum(1 for _ in batch.iterdir())
                with atomic_file(marker) as partial:
                    partial.write_text(f"{count}\n", encoding="ascii")

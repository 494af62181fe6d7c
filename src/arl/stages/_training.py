"""What the stages that train share: the folder of a run, and what makes two runs the same."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from arl.files import read_json, write_json
from arl.training import distributed

# They change when a state is written or what is measured beside, not what is trained.
_BESIDE = ("checkpoint_every", "eval_every", "eval_images")


def runs() -> Path:
    """Return the folder of training states and logs."""
    return Path(os.environ.get("ARL_RUNS", "runs"))


def rows_digest(rows: pd.DataFrame, *columns: str) -> str:
    """Hash the pixels, the anatomies and further columns of training rows, in their order."""
    names = ["pixel_sha256", "anatomy", *columns]
    return hashlib.sha256(rows[names].to_csv(index=False).encode()).hexdigest()


@dataclass(frozen=True)
class RunKey:
    """What decides whether a training may resume from the states of an earlier one."""

    stage: str
    settings: Mapping[str, object]  # dotted name -> value of everything that the result depends on

    @classmethod
    def make(cls, stage: str, **sections: object) -> "RunKey":
        """Flatten sections of settings; the version of the code is added."""
        # Through JSON, so that a tuple here and the list in a file do not differ.
        flat = _flatten(json.loads(json.dumps(sections)))
        beside = {name for name in flat if name.split(".")[-1] in _BESIDE}
        kept = {name: value for name, value in flat.items() if name not in beside}
        return cls(stage, {**kept, "code": distributed.code_version()})

    @property
    def folder(self) -> Path:
        """Where a run with this key keeps its states."""
        text = json.dumps([self.stage, dict(self.settings)], sort_keys=True)
        return runs() / f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def open(self) -> Path:
        """Return the run's folder with the key in it.

        Where the run starts from nothing although states of another key exist, stderr says what
        differs from the newest of them, and that they are kept.
        """
        folder = self.folder
        if distributed.rank() == 0 and not (folder / "run.json").is_file():
            # A surprise here is expensive: hours of an earlier run would not be used.
            for line in self._differences():
                print(line, file=sys.stderr)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "run.json", {"stage": self.stage, "settings": dict(self.settings)})
        return folder

    def _differences(self) -> list[str]:
        files = [f for f in runs().glob(f"{self.stage}-*/run.json") if any(f.parent.glob("step-*"))]
        if not files:
            return []
        newest = max(files, key=lambda file: file.stat().st_mtime)
        before = read_json(newest)["settings"]
        names = sorted(before.keys() | self.settings.keys())
        changed = [
            f"{name} was {_short(before.get(name))} and is {_short(self.settings.get(name))}"
            for name in names
            if before.get(name) != self.settings.get(name)
        ]
        return [
            f"{self.stage} starts from step 0: {'; '.join(changed)}. "
            f"The states of the earlier run stay in {newest.parent}; with its settings it resumes."
        ]


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 24 else text


def _flatten(tree: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _flatten(branch, f"{prefix}.{key}" if prefix else key).items()
    }

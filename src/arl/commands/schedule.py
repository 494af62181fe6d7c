"""Keep the recurring runs of a Kubeflow Pipelines server as pipelines/schedules.yaml says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from arl.commands import run as running

_KEYS = {"pipeline", "cron", "enabled", "overrides"}
_NAMES = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
# field -> its range; Kubeflow's server takes no 7 for Sunday
_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


def schedule(*, schedules: Path = Path("pipelines/schedules.yaml")) -> None:
    """Make the recurring runs of the Kubeflow server equal to a file.

    A run that differs is replaced, a run that the file no longer names is removed, other runs stay.
    The server is KFP_ENDPOINT.

    Args:
        schedules: The file of recurring runs.

    Raises:
        FileNotFoundError: there is no such file, or no such pipeline.
        ValueError: the file has an unknown key, or a cron expression that is none.
        SystemExit: the server refused or did not answer; it has been said why.

    Examples:
        arl schedule
    """
    items = [_item(schedules, name, entry) for name, entry in _read(schedules).items()]
    command = [sys.executable, "-m", "pipelines.runner", "schedule"]
    environment = running.environment(schedules, "kfp")
    code = subprocess.run(
        command, input=json.dumps(items), text=True, env=environment, check=False
    ).returncode
    if code:
        raise SystemExit(code)


def six_fields(cron: str) -> str:
    """Kubeflow's cron expression, seconds first, of the usual one; six fields given to Kubeflow as five run hourly.

    Raises:
        ValueError: not five fields, or a field out of its range.
    """
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"cron {cron!r} has {len(fields)} fields; it needs five: {' '.join(_FIELDS)}"
        )
    for field, (name, limits) in zip(fields, _FIELDS.items(), strict=True):
        for part in field.lower().split(","):
            _check(cron, name, part, limits)
    return " ".join(["0", *fields])


def _check(cron: str, name: str, part: str, limits: tuple[int, int]) -> None:
    word = r"\d+|[a-z]{3}"
    match = re.fullmatch(rf"(?:\*|({word})(?:-({word}))?)(?:/([1-9]\d*))?", part)
    numbers = [_number(name, text) for text in match.groups()[:2] if text] if match else [-1]
    if not all(limits[0] <= number <= limits[1] for number in numbers) or numbers != sorted(
        numbers
    ):
        raise ValueError(
            f"cron {cron!r}: {part!r} is no {name}, which is from {limits[0]} to {limits[1]}, a-b, * or */n"
        )


def _number(name: str, text: str) -> int:
    if text.isdigit():
        return int(text)
    names = _NAMES.get(name, [])
    return names.index(text) + _FIELDS[name][0] if text in names else -1


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: run inside the project")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not all(
        isinstance(entry, dict) for entry in values.values()
    ):
        raise ValueError(
            f"{file} must hold a name with {', '.join(sorted(_KEYS))} for each recurring run"
        )
    return values


def _item(file: Path, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    if entry.keys() != _KEYS:
        raise ValueError(f"{file}: {name} has the keys {sorted(entry)}, expected {sorted(_KEYS)}")
    pipeline = Path(entry["pipeline"])
    if not pipeline.is_file():
        raise FileNotFoundError(f"{file}: pipeline {pipeline} of {name} does not exist")
    tasks, overrides = running.parameters(entry["overrides"], "", in_image=True)
    return {
        "name": f"arl-{name}",
        "pipeline": str(pipeline),
        "cron": six_fields(str(entry["cron"])),
        "enabled": bool(entry["enabled"]),
        # the steps read the version of the corpus themselves
        "arguments": {"data_hash": "", "tasks": tasks, "overrides": overrides},
    }

"""Keep the recurring runs of a Kubeflow Pipelines server as pipelines/schedules.yaml says."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from arl.commands.run import environment, start
from arl.launch.request import RecurringRun, Request

_KEYS = {"pipeline", "cron", "enabled", "overrides"}
# Kubeflow parses with robfig/cron, which knows no 7 for Sunday, L, W or #; the names are English
_VALUE = r"(\*|(\d+|[a-z]{3})(-(\d+|[a-z]{3}))?)(/[1-9]\d*)?"
_FIELD = re.compile(rf"{_VALUE}(,{_VALUE})*", re.IGNORECASE)
_NUM_FIELDS = 5


def schedule(*, schedules: Path = Path("pipelines/schedules.yaml")) -> None:
    """Make the recurring runs of the Kubeflow server equal to a file.

    A run that differs is replaced, a run that the file no longer names is removed, other runs stay.
    Runs in progress continue. The server is KFP_ENDPOINT. Prints when each run fires next.

    Args:
        schedules: The file of recurring runs.

    Raises:
        FileNotFoundError: there is no such file, or no such pipeline.
        ValueError: the file has an unknown key, or a wrong cron expression.
        SystemExit: the server refused or did not answer; its message is on stderr.

    Examples:
        arl schedule
    """
    entries = _read(schedules)
    runs = tuple(_recurring_run(schedules, name, entry) for name, entry in entries.items())
    start("schedule", Request(schedules=runs), environment(schedules, "kfp"))
    for name, entry in entries.items():
        if entry["enabled"]:
            print(f"arl-{name}: next {', '.join(next_firings(str(entry['cron'])))} UTC")


def six_fields(cron: str) -> str:
    """The cron expression with seconds first, as Kubeflow takes it.

    Kubeflow reads six fields that are given as five as one of another meaning.

    Raises:
        ValueError: not five fields, a field out of its range, or both a day and a weekday.
    """
    # importing it takes time that no help needs
    from croniter import CroniterError, croniter

    fields = cron.split()
    if len(fields) != _NUM_FIELDS:
        raise ValueError(
            f"cron {cron!r} has {len(fields)} fields; it needs five: minute hour day month weekday"
        )
    if "*" not in (fields[2][:1], fields[4][:1]):
        raise ValueError(
            f"cron {cron!r} names a day of the month and a weekday: Kubeflow starts a run when "
            "either of them fits, so use one of them"
        )
    wrong = [field for field in fields if not _FIELD.fullmatch(field)]
    try:
        croniter.expand(cron, strict=True)
    except CroniterError as error:
        raise ValueError(f"cron {cron!r}: {error}") from error
    if wrong or "7" in re.split(r"[,/-]", fields[4]):
        raise ValueError(f"cron {cron!r}: {(wrong or fields[4:])[0]!r} is unknown to Kubeflow")
    return " ".join(["0", *fields])


def next_firings(cron: str, count: int = 3) -> list[str]:
    """The next times of a cron expression of five fields, in UTC."""
    from datetime import UTC, datetime

    from croniter import croniter

    times = croniter(cron, datetime.now(UTC))
    return [times.get_next(datetime).strftime("%Y-%m-%d %H:%M") for _ in range(count)]


def _read(file: Path) -> dict[str, dict[str, object]]:
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


def _recurring_run(file: Path, name: str, entry: Mapping[str, object]) -> RecurringRun:
    if entry.keys() != _KEYS:
        raise ValueError(f"{file}: {name} has the keys {sorted(entry)}, expected {sorted(_KEYS)}")
    pipeline, overrides = Path(str(entry["pipeline"])), entry["overrides"]
    if not pipeline.is_file():
        raise FileNotFoundError(f"{file}: pipeline {pipeline} of {name} does not exist")
    if not isinstance(overrides, list):
        raise ValueError(f"{file}: overrides of {name} must be a list of words key=value")
    # importing it takes 0.1 s, which no help needs
    from arl.composition import changed_parameters

    tasks, changes = changed_parameters(overrides, "", in_image=True)
    return RecurringRun(
        name=f"arl-{name}",
        pipeline=str(pipeline),
        cron=six_fields(str(entry["cron"])),
        enabled=bool(entry["enabled"]),
        # the steps read the version of the corpus themselves
        arguments={"data_hash": "", "tasks": tasks, "overrides": changes},
    )

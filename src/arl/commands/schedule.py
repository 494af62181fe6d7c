"""Keep the recurring runs of a Kubeflow Pipelines server as pipelines/schedules.yaml says."""

import re
from pathlib import Path

import yaml

from arl.commands.run import Request, Schedule, environment, parameters, start

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
    if not schedules.is_file():
        raise FileNotFoundError(f"{schedules} does not exist: run inside the project")
    entries = yaml.safe_load(schedules.read_text(encoding="utf-8"))
    if not isinstance(entries, dict):
        raise ValueError(
            f"{schedules} must hold a name with {', '.join(sorted(_KEYS))} for each recurring run"
        )
    items = [_schedule(schedules, name, entry) for name, entry in entries.items()]
    start("schedule", Request(schedules=items), environment(schedules, "kfp"))
    for item in items:
        if item.enabled:
            # Kubeflow's expression begins with seconds, croniter's does not.
            times = next_firings(item.cron.partition(" ")[2])
            print(f"{item.name}: next {', '.join(times)} UTC")


def six_fields(cron: str) -> str:
    """The cron expression with seconds first, as Kubeflow takes it.

    Kubeflow reads six fields that are given as five as one of another meaning.

    Raises:
        ValueError: not five fields, a field out of its range, or both a day and a weekday.
    """
    # importing it takes time that no help needs
    from croniter import CroniterError, croniter

    # Five fields are what people know from crontab.
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
    # croniter knows extensions such as L and #, which Kubeflow refuses when the run is due.
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


def _schedule(file: Path, name: str, entry: object) -> Schedule:
    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        keys = sorted(entry) if isinstance(entry, dict) else entry
        raise ValueError(f"{file}: {name} has the keys {keys}, expected {sorted(_KEYS)}")
    pipeline = Path(entry["pipeline"])
    if not pipeline.is_file():
        raise FileNotFoundError(f"{file}: pipeline {pipeline} of {name} does not exist")
    tasks, overrides = parameters(entry["overrides"], "", in_image=True)
    # The steps read the version of the corpus themselves: it changes between two firings.
    arguments: dict[str, object] = {"data_hash": "", "tasks": tasks, "overrides": overrides}
    cron = six_fields(str(entry["cron"]))
    return Schedule(f"arl-{name}", str(pipeline), cron, bool(entry["enabled"]), arguments)

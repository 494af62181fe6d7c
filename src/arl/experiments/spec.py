"""An experiment file of conf/paper/: which rows differ in what, and what the paper says of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SCALES_FILE = "_scales.yaml"
PROTOCOLS = ("probe", "finetune")
ILLUSTRATIONS = ("corpus", "components", "planes", "offsets", "reconstructions", "cost")
_ENCODERS = ("components", "planes", "offsets", "reconstructions")  # what is shown of each row

Claims = dict[str, dict[str, dict[str, float]]]  # protocol -> task -> metric -> value


@dataclass(frozen=True)
class Row:
    """One method: what it is pretrained with, or whose weights it starts from."""

    name: str
    label: str
    choices: list[str] = field(default_factory=list)  # of `arl configure`, for this row
    baseline: str | None = None  # a published encoder, or "supervised"; None: pretrained here
    # The row is measured by these; none: by all of the experiment.
    protocols: list[str] = field(default_factory=list)
    claimed: Claims = field(default_factory=dict)
    series: str = ""  # of a curve: the method
    # Of labels or of the corpus, in a curve; None: there is no curve.
    fraction: float | None = None


@dataclass(frozen=True)
class Scale:
    """How large: what every row is configured with, and the replicates."""

    choices: list[str]
    replicates: list[list[str]]


@dataclass(frozen=True)
class Experiment:
    """A table of the paper, or one of ours in its manner."""

    name: str
    title: str
    note: str
    protocols: list[str]
    metrics: dict[
        str, list[str]
    ]  # task -> metrics; the first is the one that differences are tested by
    rows: list[Row]
    reference: str  # the row that others are compared with; empty: no task is measured
    audit: list[str]  # rows measured with no anatomy and with a wrong one, too
    illustrations: list[str]  # pictures and tables beside those of tasks, of the first replicate
    scales: dict[str, Scale]


def experiment_names(folder: Path) -> list[str]:
    """The experiments there are."""
    return sorted(file.stem for file in folder.glob("[!_]*.yaml"))


def read_experiment(folder: Path, name: str) -> Experiment:
    """The experiment of a file, checked.

    Raises:
        ValueError: no such experiment, or a key that is missing, unknown or does not fit.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(
            f"unknown experiment {name!r}: {folder} has {', '.join(experiment_names(folder))}"
        )
    # Scales that all experiments share stand in one file; an experiment may add its own.
    content = _read(file)
    scales = _read(folder / SCALES_FILE) | content.pop("scales", {})
    try:
        experiment = Experiment(
            name=name,
            scales={size: Scale(**what) for size, what in scales.items()},
            rows=[Row(**row) for row in content.pop("rows", [])],
            note=content.pop("note", ""),
            protocols=content.pop("protocols", []),
            metrics=content.pop("metrics", {}),
            reference=content.pop("reference", ""),
            audit=content.pop("audit", []),
            illustrations=content.pop("illustrations", []),
            **content,
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file}: {error}") from error
    _check(experiment, file)
    return experiment


def _read(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not keys with values")
    return content


def _check(experiment: Experiment, file: Path) -> None:
    names = [row.name for row in experiment.rows]
    # Results are stored by the names of rows.
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: a row's name is there twice: {names}")
    for name in [*([experiment.reference] if experiment.metrics else []), *experiment.audit]:
        if name not in names:
            raise ValueError(f"{file}: {name!r} is none of the rows {', '.join(names)}")
    for row in experiment.rows:
        if not set(row.protocols) <= set(experiment.protocols):
            raise ValueError(
                f"{file}: row {row.name!r} has protocols {row.protocols} beyond"
                f" {experiment.protocols}"
            )
    strange = sorted(set(experiment.protocols) - set(PROTOCOLS))
    if strange or bool(experiment.protocols) != bool(experiment.metrics):
        raise ValueError(
            f"{file}: protocols {experiment.protocols} are not among {', '.join(PROTOCOLS)},"
            " or have no metrics"
        )
    strange = sorted(set(experiment.illustrations) - set(ILLUSTRATIONS))
    if strange or not (experiment.metrics or experiment.illustrations):
        raise ValueError(
            f"{file}: illustrations {experiment.illustrations}: expected some of"
            f" {', '.join(ILLUSTRATIONS)}, or metrics of tasks"
        )
    if set(experiment.illustrations) & set(_ENCODERS) and not names:
        raise ValueError(f"{file}: there are no rows whose encoders could be shown")

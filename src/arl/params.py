"""params.yaml: all sections of the settings, how they are read, and how they are checked.

The layers below the stages take single sections (`arl.settings`) or plain arguments.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from arl.corpus.anatomy import ANATOMIES, OTHER
from arl.settings import (
    Data,
    Dicom,
    Drift,
    Evaluate,
    Finetune,
    Gate,
    Model,
    NonNegativeInt,
    Objective,
    Pretrain,
    Probe,
    Release,
    Sample,
    Section,
    Task,
    Watch,
)

PARAMS_FILE = Path("params.yaml")


@dataclass
class Params(Section):
    """All settings of a run: the content of params.yaml."""

    seed: Annotated[NonNegativeInt, "Seed of every random decision."]
    experiment: Annotated[str, "Name of the experiment of conf/experiment."]
    data: Data
    dicom: Dicom
    sample: Sample
    model: Model
    objective: Objective
    pretrain: Pretrain
    finetune: Finetune
    tasks: Annotated[list[str], "Tasks that run."]
    task: Annotated[dict[str, Task], "Definitions of tasks, by name."]
    probe: Probe
    evaluate: Evaluate
    gate: Gate
    release: Release
    drift: Drift
    watch: Watch

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in self.task:
                raise ValueError(
                    f"tasks names {name!r}, which `task` does not define"
                    f"{did_you_mean(name, self.task)}; it defines {', '.join(sorted(self.task))}"
                )
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks names a task twice: {', '.join(self.tasks)}")
        self._check_anatomies()
        patch = self.model.patch_size
        # A side that the patches do not fill would lose its border in the convolution.
        sides = {"data.size": self.data.size}
        if self.objective.self_distillation and self.objective.local_crops_number:
            sides["objective.local_crops_size"] = self.objective.local_crops_size
        for key, side in sides.items():
            if side % patch:
                raise ValueError(
                    f"{key} is {side}, which is not a multiple of model.patch_size {patch}"
                )
        # The last check reads the tasks, which the first one has verified.
        self._check_leakage()

    def _check_anatomies(self) -> None:
        # A misspelt anatomy would be embedded as "other" and condition nothing.
        used = {f"task.{name}.anatomy": task.anatomy for name, task in self.task.items()}
        used |= {f"dicom.image_types.{key}": name for key, name in self.dicom.image_types.items()}
        used |= {
            f"dicom.anatomy_words[{i}].anatomy": rule.anatomy
            for i, rule in enumerate(self.dicom.anatomy_words)
        }
        vocabulary = (*ANATOMIES, OTHER)
        for key, anatomy in used.items():
            if anatomy not in vocabulary:
                raise ValueError(
                    f"{key} is {anatomy!r}, which is no "
                    f"anatomy{did_you_mean(anatomy, vocabulary)}; "
                    f"the vocabulary is {', '.join(vocabulary)}"
                )

    def _check_leakage(self) -> None:
        """A source that evaluates a task stays out of pretraining, unless the user allows it."""
        data = self.data
        if data.pretrain_on_tasks:
            return
        for task in self.tasks:
            for source in self.task[task].sources:
                if (not data.sources or source in data.sources) and source not in data.held_out:
                    raise ValueError(
                        f"pretraining would read {source}, which evaluates task {task}: put it "
                        "into data.held_out, or set data.pretrain_on_tasks=true"
                    )


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """'; did you mean X?' for the closest of `names`, or nothing."""
    close = get_close_matches(word, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def from_config(config: DictConfig, origin: str) -> Params:
    """Check a composed configuration.

    Raises:
        ValueError: the first parameter that is unknown, missing or wrong, and what is valid.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{origin}: {_one_line(error)}") from error
    try:
        # Only JSON lets pydantic be strict about types and accept mappings for classes.
        return _schema().validate_json(json.dumps(values))
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling comes first.
        details = sorted(error.errors(), key=lambda detail: detail["type"] == "missing")
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        where = f"{origin}: " if origin else ""
        raise ValueError(f"{where}{_explain(details[0])}{more}") from error


@cache
def _schema() -> TypeAdapter[Params]:
    return TypeAdapter(Params)


def load(overrides: list[str], path: Path = PARAMS_FILE) -> Params:
    """Read params.yaml and apply `key=value` overrides.

    Raises:
        ValueError: the file or an override breaks the schema.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: run inside the project, or `arl configure` to write it"
        )
    try:
        # OmegaConf, because overrides address nested keys by dots.
        config = OmegaConf.load(path)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path} is a list, not keys with values: `arl configure` writes it")
    loaded = from_config(config, str(path))
    if not overrides:
        return loaded
    # The file is checked alone first, so that its error does not look like one of an override.
    for override in overrides:
        _apply(config, override)
    return from_config(config, "")


def _apply(config: DictConfig, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ValueError(f"override {override!r} is not key=value")
    try:
        # `v: text` gives the override the type that YAML gives it in the file.
        OmegaConf.update(config, key, OmegaConf.create(f"v: {text}").v, merge=False)
    except (OmegaConfBaseException, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"override {override!r}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def to_literals(params: Params) -> dict[str, object]:
    """Plain dictionaries and lists, for params.yaml: DVC does not see through interpolations."""
    return asdict(params)


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text; put quotes around no, yes, on, off and numbers",
    "list": "a list such as [a, b]",
    "dict": "keys with values",
    "dataclass": "keys with values",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def _explain(detail: ErrorDetails) -> str:
    """One sentence about the first wrong parameter: its key, its value and what is valid."""
    *section, name = detail["loc"] or ("",)
    # ("task", "lv", "classes", 0) -> task.lv.classes[0].
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    key = "".join(parts).removeprefix(".")
    # pydantic names rules by types such as "greater_than_equal"; users read words.
    value, rule, context = detail["input"], detail["type"], detail.get("ctx", {})
    if rule == "unexpected_keyword_argument":
        return f"{key} is not a parameter{did_you_mean(str(name), _fields(section))}"
    if rule == "missing":
        return f"{key} is missing: `arl configure` writes what conf/ has"
    if rule == "value_error":
        return f"{key}: {context['error']}" if key else str(context["error"])
    if rule == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return (
            f"{key} is {_written(value)}{did_you_mean(str(value), options)}: choose one of "
            f"{', '.join(options)}"
        )
    if rule in _BOUNDS:
        bound, words = _BOUNDS[rule]
        return f"{key} is {_written(value)}: it must be {words} {context[bound]}"
    kind = _KINDS.get(rule.split("_")[0])
    return f"{key} is {_written(value)}: " + (f"it must be {kind}" if kind else detail["msg"])


def _written(value: object) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(section: list[int | str]) -> list[str]:
    """The names of the parameters of a section, e.g. of ("task", "lv")."""
    hints: Any = Params
    for name in section:
        if is_dataclass(hints):
            hints = get_type_hints(hints).get(str(name))
        else:
            hints = get_args(hints)[-1]
    return [field.name for field in fields(hints)] if is_dataclass(hints) else []

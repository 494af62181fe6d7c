"""Compose the files of conf/ with Hydra into checked parameters."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from arl import params

CONF = Path("conf")


def compose(choices: list[str], conf: Path = CONF) -> params.Params:
    """The parameters of conf/config.yaml with choices, e.g. "experiment=busbra" or "seed=1".

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a choice does not exist, or the result breaks the schema of params.yaml.
    """
    if not (conf / "config.yaml").is_file():
        raise FileNotFoundError(f"{conf / 'config.yaml'} does not exist: run inside the project")
    # Hydra takes 0.15 s to import, which `arl --help` must not wait for.
    import hydra
    from hydra.errors import HydraException

    try:
        with hydra.initialize_config_dir(os.path.abspath(conf), version_base="1.3"):
            config = hydra.compose("config", overrides=choices)
    # Hydra raises many subclasses for one cause: a choice that does not exist.
    except HydraException as error:
        rule = "a choice is group=file of conf/, or key=value of params.yaml"
        raise ValueError(f"{conf}: {_first_sentence(error)}; {rule}") from error
    return params.from_config(config, str(conf))


def changed_parameters(
    words: list[str], experiment: str, *, in_image: bool
) -> tuple[list[str], list[str]]:
    """The tasks of a run, and the words key=value that turn the defaults of its steps into it.

    Args:
        words: Words key=value of the user.
        experiment: A file of conf/experiment. Empty: params.yaml.
        in_image: Whether the steps run elsewhere, on the defaults of conf/. Steps in this folder
            read its params.yaml.

    Raises:
        ValueError: the result breaks the schema of params.yaml, or has no task.
    """
    wanted = compose([f"experiment={experiment}", *words]) if experiment else params.load(words)
    if not wanted.tasks:
        raise ValueError(
            "tasks is empty: a pipeline needs at least one task to fine-tune, e.g. tasks=[breast]"
        )
    present = compose([]) if in_image else params.load([])
    return wanted.tasks, _changes(params.to_literals(present), params.to_literals(wanted))


def _changes(
    present: Mapping[str, object], wanted: Mapping[str, object], prefix: str = ""
) -> list[str]:
    changes = []
    for key, value in wanted.items():
        before = present[key]
        # Groups with other keys, as another task's, are replaced whole: OmegaConf would otherwise
        # keep the keys of the old one.
        if isinstance(value, dict) and isinstance(before, dict) and value.keys() == before.keys():
            changes += _changes(before, value, f"{prefix}{key}.")
        elif value != before:
            # JSON is YAML
            changes.append(f"{prefix}{key}={json.dumps(value)}")
    return changes


def _first_sentence(error: Exception) -> str:
    # Hydra goes on with its search path, or suggests "+key", which the schema refuses.
    sentences = re.split(
        r"\.? (?:To append|Config search path|See http)", " ".join(str(error).split())
    )
    return sentences[0]

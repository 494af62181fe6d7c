"""Compose conf/ with Hydra and write the literal params.yaml."""

import os
import re
import shlex
from pathlib import Path

import yaml

from arl import params
from arl.files import atomic_file

CONF = Path("conf")


def configure(choices: list[str]) -> None:
    """Compose conf/ and write params.yaml, e.g. `arl configure experiment=busbra model=avit_small`.

    A choice names a file of a group (experiment=busbra) or sets a value (pretrain.epochs=5); none
    gives the default.

    Raises:
        ValueError: a choice does not exist, or the result breaks the schema of params.yaml.
        FileNotFoundError: there is no conf/ here.
    """
    text = render(compose(choices), choices)
    with atomic_file(params.PARAMS_FILE) as partial:
        partial.write_text(text, encoding="utf-8")


def compose(choices: list[str], conf: Path = CONF) -> params.Params:
    """The checked parameters that conf/config.yaml gives with `choices`."""
    if not (conf / "config.yaml").is_file():
        raise FileNotFoundError(f"{conf / 'config.yaml'} does not exist: run inside the project")
    import hydra  # 0.15 s, which no help needs
    from hydra.errors import HydraException

    try:
        with hydra.initialize_config_dir(os.path.abspath(conf), version_base="1.3"):
            config = hydra.compose("config", overrides=choices)
    except HydraException as error:
        rule = "a choice is group=file of conf/, or key=value of params.yaml"
        raise ValueError(f"{conf}: {_first_sentence(error)}; {rule}") from error
    return params.from_config(config, str(conf))


def _first_sentence(error: Exception) -> str:
    # Hydra goes on with a search path, or with "+key", which the schema refuses
    return re.split(r"\.? (?:To append|Config search path|See http)", " ".join(str(error).split()))[
        0
    ]


def render(values: params.Params, choices: list[str]) -> str:
    """The text of params.yaml: literals only, since DVC sees no change behind an interpolation."""
    command = shlex.join(["arl", "configure", *choices])
    header = f"# Written by `{command}` from conf/: change conf/ and run it again.\n"
    return header + yaml.safe_dump(params.to_literals(values), sort_keys=False)

"""Compose the files of conf/ with Hydra into checked parameters."""

import os
import re
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


def _first_sentence(error: Exception) -> str:
    # Hydra goes on with its search path, or suggests "+key", which the schema refuses.
    sentences = re.split(
        r"\.? (?:To append|Config search path|See http)", " ".join(str(error).split())
    )
    return sentences[0]

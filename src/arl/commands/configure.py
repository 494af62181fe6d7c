"""Compose conf/ and write the literal params.yaml."""

import shlex

import yaml

from arl import params
from arl.composition import compose
from arl.files import atomic_file


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


def render(values: params.Params, choices: list[str]) -> str:
    """The text of params.yaml: literals only, since DVC sees no change behind an interpolation."""
    command = shlex.join(["arl", "configure", *choices])
    header = f"# Written by `{command}` from conf/: change conf/ and run it again.\n"
    return header + yaml.safe_dump(params.to_literals(values), sort_keys=False)

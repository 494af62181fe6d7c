"""Compose conf/ and write the literal params.yaml."""

import shlex

import yaml

from arl import params
from arl.composition import compose
from arl.files import atomic_file


def configure(choices: list[str]) -> None:
    """Compose the files of conf/ and write params.yaml.

    A choice names a file of a group of conf/ (experiment=busbra) or sets a value
    (pretrain.epochs=5). Without a choice the default experiment, laptop, is written.

    Args:
        choices: Words of the form group=file or key=value.

    Raises:
        ValueError: a choice does not exist, or the result breaks the schema of params.yaml.
        FileNotFoundError: there is no conf/ here.

    Writes:
        params.yaml

    Next:
        arl sample --corpus data
        arl datasets

    Examples:
        arl configure experiment=busbra model=avit_small
        arl configure task.breast.margin=0.02 pretrain.epochs=5
    """
    text = render(compose(choices), choices)
    # DVC reads params.yaml at any time, so it is never half written.
    with atomic_file(params.PARAMS_FILE) as partial:
        partial.write_text(text, encoding="utf-8")


def render(values: params.Params, choices: list[str]) -> str:
    """The text of params.yaml: literals only, since DVC sees no change behind an interpolation."""
    command = shlex.join(["arl", "configure", *choices])
    header = f"# Written by `{command}` from conf/: change conf/ and run it again.\n"
    return header + yaml.safe_dump(params.to_literals(values), sort_keys=False)

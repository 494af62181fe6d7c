"""The `arl` command line, derived from the signatures of the stages and commands.

A function in `arl/stages/<name>.py` or `arl/commands/<name>.py` named like its file is a command:
its positional parameters are positional arguments (a list takes zero or more words), its
keyword-only parameters are options, and words of the form key=value override params.yaml, or go
into the list of a command that takes no params. Signatures are read from the source text, so that
no help imports torch.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arl.corpus.location import MODES, Mode
from arl.outages import OUTAGE_EXIT, is_outage

_HERE = Path(__file__).parent
_TYPES = {"Path": Path, "str": str, "int": int, "float": float}


@dataclass(frozen=True)
class Argument:
    """One parameter of a command."""

    name: str
    type: type
    many: bool
    positional: bool
    required: bool
    mode: Mode | None = None  # use of the corpus that the argument names


@dataclass(frozen=True)
class Command:
    """What the command line needs to know of a function without importing it."""

    name: str  # as typed: bus-bra style, with dashes
    module: str
    function: str
    doc: str
    arguments: tuple[Argument, ...]
    takes_params: bool


def command_names() -> dict[str, str]:
    """Typed name -> module of every stage and command."""
    return {
        file.stem.replace("_", "-"): f"arl.{folder}.{file.stem}"
        for folder in ("stages", "commands")
        for file in sorted((_HERE / folder).glob("[!_]*.py"))
    }


def read_command(module: str) -> Command:
    """Parse the signature and docstring of a command's function."""
    file = _HERE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    function = file.stem
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    if not nodes:
        raise AssertionError(f"{file} defines no function {function}")
    spec = nodes[0].args
    takes_params = bool(spec.args) and spec.args[0].arg == "params"
    positional = spec.args[1:] if takes_params else spec.args
    arguments = [_argument(arg, positional=True, default=None) for arg in positional]
    arguments += [
        _argument(arg, positional=False, default=default)
        for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    ]
    doc = ast.get_docstring(nodes[0]) or ""
    return Command(
        function.replace("_", "-"), module, function, doc, tuple(arguments), takes_params
    )


def _argument(arg: ast.arg, *, positional: bool, default: ast.expr | None) -> Argument:
    annotation = ast.unparse(arg.annotation) if arg.annotation else "str"
    many = annotation.startswith("list[")
    inner = annotation.removeprefix("list[").removesuffix("]").removesuffix(" | None")
    mode = MODES.get(inner)
    kind = Path if mode else _TYPES[inner]
    return Argument(arg.arg, kind, many, positional, default is None, mode)


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"arl {command.name}",
        description=command.doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for argument in command.arguments:
        nargs = {"nargs": "*" if argument.positional else "+"} if argument.many else {}
        if argument.positional:
            parser.add_argument(argument.name, type=argument.type, **nargs)  # type: ignore[arg-type]
            continue
        flag = "--" + argument.name.replace("_", "-")
        parser.add_argument(
            flag,
            type=argument.type,
            required=argument.required,
            default=argparse.SUPPRESS,
            metavar=argument.type.__name__.upper(),
            **nargs,
        )
    if command.takes_params:
        parser.epilog = "Words of the form key=value override params.yaml, e.g. pretrain.epochs=1."
    return parser


def call(name: str, overrides: Sequence[str] = (), /, **arguments: Any) -> Any:
    """Run a stage or command by name; `overrides` are key=value words on params.yaml, paths may be strings.

    A corpus at s3://bucket/prefix is replaced by a local copy, as far as the annotation of its
    parameter needs; see `arl.corpus.location`.
    """
    command = read_command(command_names()[name.replace("_", "-")])
    for argument in command.arguments:
        if argument.mode and str(arguments.get(argument.name)).startswith("s3://"):
            from arl.corpus.s3_copy import local_copy  # the SDK takes time to import

            with local_copy(arguments[argument.name], argument.mode) as folder:
                return call(name, overrides, **{**arguments, argument.name: folder})
    function = getattr(importlib.import_module(command.module), command.function)
    paths = {a.name for a in command.arguments if a.type is Path} & arguments.keys()
    arguments |= {name: _paths(arguments[name]) for name in paths}
    if not command.takes_params:
        return function(**arguments)
    from arl import params  # omegaconf costs 0.1 s, which no help needs

    return function(params.load(list(overrides)), **arguments)


def _paths(value: Any) -> Any:
    if value is None:
        return None
    return [Path(item) for item in value] if isinstance(value, list) else Path(value)


def _overview(names: dict[str, str]) -> str:
    lines = ["usage: arl COMMAND ... [key=value ...]", "", "commands:"]
    for name, module in names.items():
        summary = read_command(module).doc.split("\n", 1)[0]
        lines.append(f"  {name:14s} {summary}")
    return "\n".join([*lines, "", "`arl COMMAND --help` tells what a command reads and writes."])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `arl`; a user's error is one sentence on stderr and exit code 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    names = command_names()
    if not words or words[0] in ("-h", "--help"):
        print(_overview(names))
        return 0
    if words[0] not in names:
        print(f"arl: unknown command {words[0]!r}; `arl --help` lists them", file=sys.stderr)
        return 2
    command = read_command(names[words[0]])
    parser = _parser(command)
    # key=value words are overrides wherever they stand, so that no option swallows them
    overrides = (
        [w for w in words[1:] if "=" in w and not w.startswith("-")] if command.takes_params else []
    )
    # intermixed: the words of a list may stand on both sides of an option
    arguments = vars(parser.parse_intermixed_args([w for w in words[1:] if w not in overrides]))
    try:
        call(words[0], overrides, **arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"arl {words[0]}: {error}", file=sys.stderr)
        return OUTAGE_EXIT if is_outage(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

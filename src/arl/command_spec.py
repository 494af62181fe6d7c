"""The commands of `arl`, read from the source text of their functions.

A function in `arl/stages/<name>.py` or `arl/commands/<name>.py` that has the name of its file is a
command. Positional parameters are positional arguments (a list takes several words), keyword-only
parameters are options, `Literal[...]` gives the choices, a `bool` is a switch. The docstring gives
the help: its first line, its paragraphs, `Args:`, `Writes:` (the arguments that name outputs, or
paths),
`Next:` (commands to run afterwards, with arguments in braces) and `Examples:`. Help never imports a
command, since most
import PyTorch.
"""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arl.corpus.location import MODES, Mode

HERE = Path(__file__).parent

# The journey of a user. Every command stands in one group or in INTERNAL.
GROUPS: dict[str, tuple[str, ...]] = {
    "Data": (
        "datasets",
        "sample",
        "ingest",
        "split",
        "validate",
        "corpus-report",
        "quarantine",
        "rotate-key",
        "find-patient",
        "phi-audit",
    ),
    "Train": ("configure", "plan", "run", "pretrain", "finetune", "baseline"),
    "Cluster": ("doctor", "compile", "pipeline", "schedule"),
    "Evaluate": ("evaluate", "probe", "figures", "paper", "drift", "report"),
    "Release": ("testset", "gate", "verdict", "release", "models", "verify", "sign", "rollback"),
    "Monitor": (
        "watch",
        "listen",
        "inbox",
        "approve",
        "reject",
        "retry",
        "lineage",
        "demo-retrain",
    ),
    "Use": ("predict", "embed", "export", "completion"),
}
# Steps that only `arl watch` and the pipelines call.
INTERNAL = ("poll-inbox", "take-batch", "compare", "decide", "close-run")

_TYPES = {"Path": Path, "str": str, "int": int, "float": float, "bool": bool}
_SECTION = re.compile(r"^(Args|Raises|Returns|Writes|Next|Examples):$", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


@dataclass(frozen=True)
class Argument:
    """One parameter of a command."""

    name: str
    type: type
    many: bool
    positional: bool
    required: bool
    default: Any = None
    choices: tuple[str, ...] = ()
    help: str = ""
    mode: Mode | None = None  # use of the corpus that the argument names

    @property
    def flag(self) -> str:
        """How the option is typed, e.g. --mask-name."""
        return "--" + self.name.rstrip("_").replace("_", "-")


@dataclass(frozen=True)
class Command:
    """A command line and its help, without importing the function."""

    name: str  # as typed, with dashes
    module: str
    function: str
    summary: str
    description: str
    arguments: tuple[Argument, ...]
    takes_params: bool
    writes: tuple[str, ...] = ()  # arguments, or paths such as params.yaml
    next_steps: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


def command_names() -> dict[str, str]:
    """Typed name -> module of every stage and command."""
    return {
        file.stem.replace("_", "-"): f"arl.{folder}.{file.stem}"
        for folder in ("stages", "commands")
        for file in sorted((HERE / folder).glob("[!_]*.py"))
    }


def read_command(module: str) -> Command:
    """Parse the signature and the docstring of a command's function."""
    file = HERE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    # The source text is parsed, because an import would pull in PyTorch for every help page.
    tree = ast.parse(file.read_text(encoding="utf-8"))
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == file.stem
    )
    # Title -> text of the sections of a docstring; "" is what precedes the first one.
    parts = _SECTION.split(ast.get_docstring(function) or "")
    sections = {"": parts[0].strip()} | dict(zip(parts[1::2], parts[2::2], strict=True))
    summary, _, description = sections[""].partition("\n")
    takes_params, arguments = _arguments(function.args, _entries(sections.get("Args", "")))
    return Command(
        name=file.stem.replace("_", "-"),
        module=module,
        function=file.stem,
        summary=summary,
        description=description.strip(),
        arguments=arguments,
        takes_params=takes_params,
        writes=tuple(re.findall(r"[\w./-]+", sections.get("Writes", ""))),
        next_steps=_commands(sections.get("Next", "")),
        examples=_commands(sections.get("Examples", "")),
    )


def _arguments(spec: ast.arguments, help_of: dict[str, str]) -> tuple[bool, tuple[Argument, ...]]:
    """Whether the first parameter is Params, and the other parameters."""
    takes_params = bool(spec.args) and spec.args[0].arg == "params"
    positional = spec.args[1:] if takes_params else spec.args
    arguments = [_argument(arg, None, help_of, positional=True) for arg in positional]
    arguments += [
        _argument(arg, default, help_of, positional=False)
        for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    ]
    return takes_params, tuple(arguments)


def _argument(
    arg: ast.arg, default: ast.expr | None, help_of: dict[str, str], *, positional: bool
) -> Argument:
    annotation = ast.unparse(arg.annotation) if arg.annotation else "str"
    many = annotation.startswith("list[")
    # An option that may be None is typed like its other type.
    inner = annotation.removeprefix("list[").removesuffix(" | None")
    inner = inner.removesuffix("]") if many else inner
    mode = MODES.get(inner)
    literal = re.fullmatch(r"Literal\[(.*)\]", inner)
    return Argument(
        name=arg.arg,
        type=Path if mode else str if literal else _TYPES[inner],
        many=many,
        positional=positional,
        required=default is None,
        default=_value(default),
        choices=tuple(ast.literal_eval(f"({literal[1]},)")) if literal else (),
        help=help_of.get(arg.arg, ""),
        mode=mode,
    )


def _value(default: ast.expr | None) -> Any:
    """The default as it is typed: 'data' of Path("data"), None of None and of names."""
    if isinstance(default, ast.Call) and default.args:
        default = default.args[0]
    try:
        return ast.literal_eval(default) if default is not None else None
    except ValueError:
        return None


def _entries(text: str) -> dict[str, str]:
    """Name -> help of an `Args:` section. "site, probe: ..." describes two arguments."""
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in tuple(line.strip() for line in text.strip().splitlines() if line.strip()):
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            entries |= dict.fromkeys(names, entry[2][:1].upper() + entry[2][1:])
        else:
            entries |= {name: f"{entries[name]} {line}" for name in names}
    return entries


def _commands(text: str) -> tuple[str, ...]:
    """The command lines of a section; a line that is indented further continues the one before."""
    # Long examples wrap in the docstring; on the terminal they are one line.
    joined = re.sub(r"\n +", " ", textwrap.dedent(text).strip())
    return tuple(joined.splitlines())

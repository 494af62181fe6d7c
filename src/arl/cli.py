"""The `arl` command line: help, checks, the call, and what the user reads afterwards.

`arl.command_spec` derives the commands from the functions. Words of the form key=value override
params.yaml. Parameters, paths and tasks are checked before a command is imported: a wrong word
costs less than a second.
"""

import argparse
import importlib
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from arl import console
from arl.command_spec import GROUPS, INTERNAL, Argument, Command, command_names, read_command
from arl.outages import OUTAGE_EXIT, is_outage

_METAVARS = {Path: "PATH", str: "TEXT", int: "N", float: "X"}
_INTERNAL_ERROR, _INTERRUPTED, _CLOSED_PIPE = 70, 130, 141
EXIT_CODES = {
    0: "success",
    1: "an input, a parameter or a file is wrong, or a step failed",
    2: "the command line is wrong",
    _INTERNAL_ERROR: "a fault of ARL itself; the traceback is for a bug report",
    OUTAGE_EXIT: "an outage of a store, a network or a disk; try again",
    _INTERRUPTED: "interrupted with Ctrl-C",
    _CLOSED_PIPE: "the reader of the output closed the pipe",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. A user's error is one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    # A file name that is not UTF-8 is printed with escapes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        # A closed pipe shows when the buffer is written, at the latest at exit.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except KeyboardInterrupt:
        console.warn("arl: interrupted")
        return _INTERRUPTED


def _run(words: list[str]) -> int:
    # A user may put the switches before or after the name of the command.
    switches = {"-q", "--quiet", "-v", "--verbose"}
    leading = []
    while words and words[0] in switches:
        leading.append(words.pop(0))
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"arl {_version()}")
        return 0
    names = command_names()
    if words[0] not in names:
        # Hidden steps are valid commands too, so every name is a candidate.
        hint = did_you_mean(words[0], names)
        console.warn(f"arl: unknown command {words[0]!r}{hint}; `arl --help` lists the commands")
        return 2
    command = read_command(names[words[0]])
    overrides, rest = split_overrides(command, [*leading, *words[1:]])
    # Intermixed: the words of a list may stand on both sides of an option.
    arguments = vars(build_parser(command).parse_intermixed_args(rest))
    console.set_verbosity(quiet=arguments.pop("quiet"), verbose=arguments.pop("verbose"))
    return _call_for_user(command, overrides, arguments)


def split_overrides(command: Command, words: list[str]) -> tuple[list[str], list[str]]:
    """The key=value words, wherever they stand, and the others. A file may have = in its name."""
    if not command.takes_params:
        return [], words
    is_override = [
        "=" in word and not word.startswith("-") and not os.path.exists(word) for word in words
    ]
    pairs = list(zip(words, is_override, strict=True))
    return [word for word, yes in pairs if yes], [word for word, yes in pairs if not yes]


def _call_for_user(command: Command, overrides: list[str], arguments: Mapping[str, object]) -> int:
    start = time.monotonic()
    try:
        call(command.name, overrides, **arguments)
    except BrokenPipeError:
        raise
    # Input of the user causes these: a diverging training is a FloatingPointError.
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if console.is_verbose():
            traceback.print_exc()
        console.warn(f"arl {command.name}: {_in_words(error)}")
        return OUTAGE_EXIT if is_outage(error) else 1
    except Exception:
        traceback.print_exc()
        console.warn(f"arl {command.name}: this is a fault of ARL; please report the traceback")
        return _INTERNAL_ERROR
    _conclude(command, arguments)
    if console.is_verbose():
        console.warn(f"arl {command.name}: took {time.monotonic() - start:.1f} s")
    return 0


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    return str(error)


def call(name: str, overrides: Sequence[str] = (), /, **arguments: Any) -> Any:
    """Run a stage or command by name and return its result.

    Args:
        name: of the command.
        overrides: key=value words on params.yaml.
        arguments: of the command; paths may be strings. A corpus at s3://bucket/prefix is replaced
            by a local copy, as far as the annotation of its parameter needs; see
            `arl.corpus.location`.

    Raises:
        ValueError: a parameter, the task or a path is wrong; before anything heavy is imported.
        FileNotFoundError: an input does not exist.
    """
    command = read_command(command_names()[name.replace("_", "-")])
    # Parameters come first: an import of PyTorch takes seconds, and a wrong word should not cost
    # them.
    settings = _load_params(overrides) if command.takes_params else None
    if settings is not None and arguments.get("task"):
        _check_task(arguments["task"], settings.task)
    for argument in command.arguments:
        _check_choice(argument, arguments.get(argument.name))
        if argument.type is Path and arguments.get(argument.name) is not None:
            _check_path(
                argument, arguments[argument.name], is_output=argument.name in command.writes
            )
    for argument in command.arguments:
        if argument.mode and str(arguments.get(argument.name)).startswith("s3://"):
            # The SDK takes time to import.
            from arl.corpus.s3_copy import local_copy

            with local_copy(arguments[argument.name], argument.mode) as folder:
                return call(name, overrides, **{**arguments, argument.name: folder})
    function = getattr(importlib.import_module(command.module), command.function)
    paths = {a.name for a in command.arguments if a.type is Path} & arguments.keys()
    arguments |= {name: _as_paths(arguments[name]) for name in paths}
    return function(**arguments) if settings is None else function(settings, **arguments)


def _check_choice(argument: Argument, value: Any) -> None:
    if value is not None and argument.choices and value not in argument.choices:
        raise ValueError(
            f"{argument.flag} is {value!r}{did_you_mean(str(value), argument.choices)}: choose one "
            f"of {', '.join(argument.choices)}"
        )


def _load_params(overrides: Sequence[str]) -> Any:
    # It imports omegaconf and pydantic, which no help needs.
    from arl import params

    return params.load(list(overrides))


def _check_task(task: str, tasks: Iterable[str]) -> None:
    if task not in tasks:
        raise ValueError(
            f"--task {task}: params.yaml defines no such task{did_you_mean(task, tasks)}; it "
            f"defines {', '.join(sorted(tasks))}"
        )


def _check_path(argument: Argument, value: Any, *, is_output: bool) -> None:
    local = [Path(path) for path in _as_list(value) if not str(path).startswith("s3://")]
    name = argument.name if argument.positional else argument.flag
    if is_output:
        for path in local:
            # Missing folders are made later, so the nearest existing one decides.
            parent = next(folder for folder in path.absolute().parents if folder.exists())
            if not parent.is_dir():
                raise ValueError(f"{name} {path}: {parent} is a file, not a folder")
            if not os.access(parent, os.W_OK):
                raise ValueError(f"{name} {path}: {parent} is not writable")
        return
    # One bad file of many is the command's business: it works on the others.
    missing = [path for path in local if not path.exists()]
    if missing and (len(missing) == len(local) or not argument.positional):
        hint = ", the shell found no match" if "*" in missing[0].name else ""
        raise FileNotFoundError(f"{name} {missing[0]} does not exist{hint}")


def _as_paths(value: Any) -> Any:
    if value is None:
        return None
    return [Path(item) for item in value] if isinstance(value, list) else Path(value)


def _conclude(command: Command, arguments: Mapping[str, object]) -> None:
    """Say what the command wrote and which command comes next."""
    # Of the processes of a distributed training the first one reports.
    if os.environ.get("RANK", "0") != "0":
        return
    values = {**{a.name: a.default for a in command.arguments}, **arguments}
    # A command may write a fixed file, such as params.yaml, that is no argument.
    outputs = [path for name in command.writes for path in _as_list(values.get(name, name))]
    written = [str(path) for path in outputs if "://" in str(path) or Path(path).exists()]
    if written:
        console.info(f"Wrote {_listed(written)}.")
    # DVC runs the next stage itself.
    if "DVC_ROOT" in os.environ:
        return
    for line in command.next_steps:
        if all(values.get(name) for name in re.findall(r"{(\w+)}", line)):
            console.info(f"Next: {line.format(**{k: _typed(v) for k, v in values.items()})}")


def _as_list(value: Any) -> list[Any]:
    if value in (None, "", []):
        return []
    return value if isinstance(value, list) else [value]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with a suggestion."""

    def error(self, message: str) -> NoReturn:
        for word in message.rpartition(": ")[2].split():
            flags = [flag for action in self._actions for flag in action.option_strings]
            if message.startswith("unrecognized arguments") and word.startswith("--"):
                message = f"unknown option {word}{did_you_mean(word.split('=')[0], flags)}"
                break
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            # argparse has no hook for a wrong choice, only the text of its message.
            options = re.findall(r"'(.*?)'", choice[2])
            message = message.replace(" (choose", f"{did_you_mean(choice[1], options)} (choose")
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` lists the options\n")


def build_parser(command: Command) -> argparse.ArgumentParser:
    """The parser of one command, with help for every argument."""
    parser = _Parser(
        prog=f"arl {command.name}",
        description="\n\n".join(filter(None, [command.summary, command.description])),
        epilog=_epilog(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviation would break with a new option that begins alike.
        allow_abbrev=False,
    )
    fill_parser(parser, command)
    return parser


def fill_parser(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the arguments of a command to a parser."""
    for argument in command.arguments:
        _add(parser, argument)
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the duration and tracebacks"
    )


def _add(parser: argparse.ArgumentParser, argument: Argument) -> None:
    # argparse formats help texts with %, so a literal % needs a second one.
    text = argument.help.replace("%", "%%")
    if not argument.positional and argument.default not in (None, "", [], False):
        text += f" (default: {argument.default})"
    options: dict[str, Any] = {"help": text}
    if not argument.positional:
        options["dest"] = argument.name
    # SUPPRESS keeps untouched options out of the call: the defaults of the function hold.
    if argument.type is bool:
        parser.add_argument(
            argument.flag, action="store_true", default=argparse.SUPPRESS, **options
        )
        return
    options |= {"type": argument.type, "choices": argument.choices or None}
    if argument.many:
        options["nargs"] = "*" if argument.positional else "+"
    if argument.positional:
        parser.add_argument(argument.name, **options)
        return
    if not argument.choices:
        options["metavar"] = _METAVARS[argument.type]
    parser.add_argument(
        argument.flag, required=argument.required, default=argparse.SUPPRESS, **options
    )


def _epilog(command: Command) -> str:
    parts = []
    if command.writes:
        flags = {a.name: a.name if a.positional else a.flag for a in command.arguments}
        parts.append(f"writes: {', '.join(flags.get(name, name) for name in command.writes)}")
    if command.takes_params:
        parts.append("Words of the form key=value override params.yaml, e.g. pretrain.epochs=1.")
    if command.examples:
        parts.append("\n".join(["examples:", *(f"  {line}" for line in command.examples)]))
    return "\n\n".join(parts)


def overview() -> str:
    """The text of `arl --help`."""
    names = command_names()
    lines = [
        "usage: arl [--version] [--quiet | --verbose] COMMAND ... [key=value ...]",
        "",
        "Anatomy-aware representation learning for medical ultrasound.",
    ]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:14s} {read_command(names[name]).summary}" for name in group]
    return "\n".join(
        [
            *lines,
            "",
            "`arl COMMAND --help` describes a command and its options.",
            "`arl sample --corpus data` is a first step without any data.",
            "",
            "exit codes:",
            *(f"  {code:<4d} {meaning}" for code, meaning in EXIT_CODES.items()),
        ]
    )


def build_full_parser(file_completion: object) -> argparse.ArgumentParser:
    """One parser of all public commands, for shell completion.

    Args:
        file_completion: shtab's mark of an argument that is a path.
    """
    parser = argparse.ArgumentParser(prog="arl", description="ARL", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command")
    for name, module in command_names().items():
        if name not in INTERNAL:
            command = read_command(module)
            fill_parser(commands.add_parser(name, help=command.summary), command)
            for action in commands.choices[name]._actions:
                if action.type is Path:
                    # shtab reads this attribute, which argparse does not know.
                    action.complete = file_completion  # type: ignore[attr-defined]
    return parser


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """ " (did you mean 'X'?)" for the closest of `names`, or nothing."""
    close = get_close_matches(word, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _version() -> str:
    from importlib.metadata import version

    return version("arl")


if __name__ == "__main__":
    sys.exit(main())

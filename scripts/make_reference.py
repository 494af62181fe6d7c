"""Write docs/reference/ from the code: `python scripts/make_reference.py`.

The commands come from signatures and docstrings, the parameters from `arl.settings`, the file
formats from the typed documents and the parquet schemas, the environment variables from
`arl.environment`. `tests/test_docs.py` demands that the committed pages equal the output.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import annotated_types
import yaml

from arl.cli import EXIT_CODES
from arl.command_spec import GROUPS, INTERNAL, Argument, Command, command_names, read_command
from arl.corpus.anatomy import ANATOMIES, OTHER
from arl.environment import VARIABLES
from arl.params import Params

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "arl"
HEADER = "<!-- Written by scripts/make_reference.py. Change the code, then run it again. -->\n"
# Files with their own tables, in the order of a run.
SCHEMAS = {
    "src/arl/corpus/manifest.py": {
        "SCHEMA": ("manifest.parquet", "One row per image of a batch."),
        "QUARANTINE": ("quarantine.parquet", "One row per refused input of a batch."),
    },
    "src/arl/corpus/splits.py": {
        "SPLIT_SCHEMA": ("splits/<protocol>.parquet", "The split of each image of a batch."),
    },
    "src/arl/corpus/shard_reader.py": {
        "SHARD_SCHEMA": ("shard-*.parquet", "The pixels of a batch."),
    },
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def commands_page() -> str:
    """docs/reference/commands.md."""
    names = command_names()
    parts = [
        HEADER,
        "# Commands\n",
        "Options may stand anywhere after the command. Words of the form `key=value` override "
        "[params.yaml](parameters.md) in commands that say so. Each command has `--quiet` and "
        "`--verbose`; `arl --version` prints the version.\n",
        "Shell completion: `arl completion bash`, `zsh` or `fish` prints the script.\n",
    ]
    for title, group in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_command(read_command(names[name])) for name in group]
    parts.append("## Internal steps\n")
    parts.append("`arl watch` and the pipelines call these steps.\n")
    parts += [_command(read_command(names[name])) for name in INTERNAL]
    rows = [[str(code), meaning] for code, meaning in EXIT_CODES.items()]
    parts.append("## Exit codes\n\n" + table(["code", "meaning"], rows))
    return "\n".join(parts)


def _command(command: Command) -> str:
    parts = [f"### arl {command.name}\n", command.summary + "\n"]
    if command.description:
        parts.append(_code(command.description) + "\n")
    rows = [_argument_row(argument) for argument in command.arguments]
    if rows:
        parts.append(table(["argument", "value", "default", "meaning"], rows))
    notes = []
    if command.takes_params:
        notes.append("Takes `key=value` words on params.yaml.")
    if command.writes:
        flags = ", ".join(f"`{_flag(command, name)}`" for name in command.writes)
        notes.append(f"Writes {flags}.")
    if notes:
        parts.append(" ".join(notes) + "\n")
    if command.examples:
        parts.append("\n".join(["```sh", *command.examples, "```"]) + "\n")
    return "\n".join(parts)


def _flag(command: Command, name: str) -> str:
    flags = {a.name: a.name if a.positional else a.flag for a in command.arguments}
    return flags.get(name, name)


def _argument_row(argument: Argument) -> list[str]:
    kind = {Path: "path", str: "text", int: "whole number", float: "number", bool: "switch"}
    value = ", ".join(f"`{c}`" for c in argument.choices) or kind[argument.type]
    value += ", several" if argument.many else ""
    default = "" if argument.default in (None, "", [], False) else f"`{argument.default}`"
    name = argument.name if argument.positional else argument.flag
    required = argument.required and not (argument.positional and argument.many)
    return [f"`{name}`", value, "required" if required else default, _code(argument.help)]


def _code(text: str) -> str:
    """Placeholders such as <corpus> as code: Markdown would read them as HTML."""
    return re.sub(r"(?<![`\w])(\$?[\w./-]*<\w+>[\w<>./-]*)", r"`\1`", text)


def parameters_page() -> str:
    """docs/reference/parameters.md."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    parts = [
        HEADER,
        "# Parameters\n",
        "`arl configure` composes the files of conf/ and writes params.yaml. `key=value` words "
        "override it for one command. The defaults below are those of the experiment `laptop`. "
        "An unknown key, another type or a value outside the range is an error.\n",
    ]
    top = [row for row in _parameter_rows(Params, "", values) if "." not in row[0]]
    parts.append(table(["parameter", "type", "default", "meaning"], top))
    for field in fields(Params):
        section, _ = _unwrap(get_type_hints(Params, include_extras=True)[field.name])
        is_map = get_origin(section) is dict
        section = get_args(section)[-1] if is_map else section
        if not is_dataclass(section):
            continue
        prefix = f"{field.name}.<name>." if is_map else f"{field.name}."
        example = values[field.name]
        example = next(iter(example.values())) if is_map else example
        parts.append(f"## {field.name}\n\n{section.__doc__}\n")
        rows = list(_parameter_rows(section, prefix, example))
        parts.append(table(["parameter", "type", "default", "meaning"], rows))
    parts.append("## Anatomies\n")
    parts.append(", ".join(f"`{name}`" for name in (*ANATOMIES, OTHER)) + ".\n")
    return "\n".join(parts)


def _parameter_rows(cls: type, prefix: str, values: dict[str, Any]) -> Iterator[list[str]]:
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if name.startswith("__"):
            continue
        kind, metadata = _unwrap(hint)
        inner = get_args(kind)[-1] if get_origin(kind) in (dict, list) else kind
        if is_dataclass(kind) or (is_dataclass(inner) and cls is Params):
            continue
        if is_dataclass(inner):
            path = f"{prefix}{name}.<name>." if get_origin(kind) is dict else f"{prefix}{name}[]."
            example = values[name]
            first = next(iter(example.values() if isinstance(example, dict) else example), {})
            yield from _parameter_rows(inner, path, first)
            continue
        default = json.dumps(values.get(name))
        shown = f"`{default}`" if len(default) <= 60 else "see params.yaml"
        yield [f"`{prefix}{name}`", _type(kind, metadata), shown, _meaning(metadata)]


def _unwrap(hint: Any) -> tuple[Any, list[Any]]:
    """The bare type, and the metadata of all layers of Annotated."""
    metadata: list[Any] = []
    while hasattr(hint, "__metadata__"):
        metadata = [*hint.__metadata__, *metadata]
        hint = hint.__origin__
    return hint, metadata


def _meaning(metadata: list[Any]) -> str:
    return next((_code(item) for item in metadata if isinstance(item, str)), "")


def _type(kind: Any, metadata: list[Any]) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is list:
        inner, deeper = _unwrap(get_args(kind)[0])
        return f"list of {_type(inner, deeper)}"
    if get_origin(kind) is dict:
        inner, deeper = _unwrap(get_args(kind)[1])
        return f"map to {_type(inner, deeper)}"
    if type(None) in get_args(kind):
        inner, deeper = _unwrap(next(a for a in get_args(kind) if a is not type(None)))
        return f"{_type(inner, deeper)}, or null"
    return names[kind] + "".join(f", {bound}" for bound in _bounds(metadata))


def _bounds(metadata: list[Any]) -> Iterator[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for item in metadata:
        rules = item if isinstance(item, annotated_types.GroupedMetadata) else [item]
        for rule in rules if not isinstance(item, str) else []:
            for name, sign in signs.items():
                if getattr(rule, name, None) is not None:
                    yield f"{sign} {getattr(rule, name):g}"


def environment_page() -> str:
    """docs/reference/environment.md."""
    parts = [HEADER, "# Environment variables\n"]
    for group in dict.fromkeys(variable.group for variable in VARIABLES):
        rows = [
            [f"`{v.name}`", f"`{v.default}`" if v.default else "", v.meaning]
            for v in VARIABLES
            if v.group == group
        ]
        parts.append(f"## {group}\n\n" + table(["variable", "default", "meaning"], rows))
    return "\n".join(parts)


def files_page() -> str:
    """docs/reference/files.md."""
    parts = [
        HEADER,
        "# File formats\n",
        'JSON documents name their format and its version, e.g. `"format": "arl.metrics/1"`. '
        "A file of another version is an error. Tables are parquet.\n",
        "## Tables\n",
    ]
    for file, schemas in SCHEMAS.items():
        for name, (title, summary) in schemas.items():
            rows = list(_schema_rows(ROOT / file, name))
            parts.append(f"### `{title}`\n\n{summary}\n")
            parts.append(table(["column", "type", "meaning"], rows))
    parts.append("## Documents\n")
    for file in sorted(SRC.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "(Document)" in text:
            parts += _document_sections(text)
    return "\n".join(parts)


def _schema_rows(file: Path, name: str) -> Iterator[list[str]]:
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if not any(isinstance(t, ast.Name) and t.id == name for t in targets):
            continue
        for call in ast.walk(node.value):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pa.field":
                required = any(keyword.arg == "nullable" for keyword in call.keywords)
                kind = ast.unparse(call.args[1]).removeprefix("pa.").removesuffix("()")
                comment = _comment(text, call)
                column = ast.literal_eval(call.args[0])
                yield [f"`{column}`", kind + ("" if required else ", optional"), _code(comment)]


def _comment(text: str, node: ast.expr | ast.stmt) -> str:
    """The comment behind a node, or the full-line comments above it."""
    lines = text.splitlines()
    last = lines[(node.end_lineno or node.lineno) - 1]
    behind = last[node.end_col_offset or 0 :].partition("#")[2].strip()
    if behind:
        return behind
    above = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().lstrip("# "))
    return " ".join(above)


def _document_sections(text: str) -> Iterator[str]:
    """The documents of a module, and the records that they hold."""
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    classes = [node for node in classes if _fields_of(node)]
    classes.sort(key=lambda node: "Document" not in map(ast.unparse, node.bases))
    for node in classes:
        constants = _constants(node)
        doc = ast.get_docstring(node) or ""
        summary, attributes = doc.split("\n\n")[0], _attributes(doc)
        if "FORMAT" in constants:
            title = f"{constants['FORMAT']}/{constants['VERSION']}"
            file = f" (`{constants['FILE']}`)" if "FILE" in constants else ""
            yield f"### {title}{file}\n"
        else:
            yield f"#### {node.name}\n"
        yield _code(summary) + "\n"
        rows = [
            [
                f"`{name}`",
                f"`{ast.unparse(item.annotation)}`",
                _code(_comment(text, item) or attributes.get(name, "")),
            ]
            for name, item in _fields_of(node).items()
        ]
        yield table(["field", "type", "meaning"], rows)


def _fields_of(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    return {
        item.target.id: item
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    }


def _constants(node: ast.ClassDef) -> dict[str, Any]:
    return {
        item.target.id: item.value.value
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and isinstance(item.value, ast.Constant)
    }


def _attributes(doc: str) -> dict[str, str]:
    """Name -> meaning of the `Attributes:` or `Args:` of a docstring."""
    match = re.search(r"^(?:Attributes|Args):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    joined = re.sub(r"\n {5,}", " ", match[1]) if match else ""
    return dict(re.findall(r"^ {4}(\w+): (.*)$", joined, re.MULTILINE))


def pages() -> dict[str, str]:
    """File below docs/reference -> its text."""
    return {
        "commands.md": commands_page(),
        "parameters.md": parameters_page(),
        "environment.md": environment_page(),
        "files.md": files_page(),
    }


def main() -> int:
    folder = ROOT / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

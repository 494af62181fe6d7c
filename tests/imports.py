"""Who imports what, read from the source text; for the tests of layers, wiring and images."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "arl"


def names(file: Path) -> Iterator[str]:
    """Dotted names a file imports, also inside functions; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_files(dotted: str) -> Iterator[Path]:
    """The file of a module of arl, or of what a name is imported from, and the __init__ files that
    run before it.
    """
    parts = dotted.split(".")[1:]
    for depth in range(len(parts) + 1):
        folder = SRC.joinpath(*parts[:depth])
        yield from (
            file for file in (folder / "__init__.py", folder.with_suffix(".py")) if file.is_file()
        )


def closure(file: Path) -> set[Path]:
    """A file of arl and every file of arl that it imports, directly or not."""
    found: set[Path] = set()
    waiting = {file}
    while waiting:
        file = waiting.pop()
        found.add(file)
        arl = (name for name in names(file) if name.split(".")[0] == "arl")
        waiting |= {path for name in arl for path in module_files(name)} - found
    return found

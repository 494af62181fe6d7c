"""Measure how the code and the documentation read: `python scripts/house.py [ROOT]` prints a table.

`tests/test_house.py` holds the project to the limits below. The code is that of `src`, `components`
and `pipelines`, the documentation is README.md and the Markdown files of `docs`.
"""

import ast
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# Words that read like a translation. A noun or a verb of the field says more: `duplicates` instead
# of `found`, `metadata` instead of `about`, `limit` instead of `most`.
NO_IDENTIFIERS = frozenset(
    [
        "about",
        "alike",
        "asked",
        "at_hand",
        "drop",
        "found",
        "given",
        "known",
        "look",
        "most",
        "once",
        "pick",
        "place",
        "places",
        "pull",
        "said",
        "says",
        "share",
        "shown",
        "shows",
        "taught",
        "told",
    ]
)
CODE = ("src", "components", "pipelines")
WIDTH = 100
_PAGE_CODE = re.compile(r"""Markup\(|<(?:div|table|td|th|tr|p|ul|li|h[1-6]|span|img|svg)[ >]""")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_NO_PROSE = ("|", "#", "    ", "<", "![", "- ", "* ", "::", "!!!", ":--")


@dataclass(frozen=True)
class House:
    """Counts and shares of one checkout."""

    words_that_are_no_identifiers: int
    private_functions_per_1000_lines: float
    comment_lines_percent_of_code: float
    lines_over_100_columns: int
    dict_str_any_in_src: int
    page_code_lines_outside_reports: int
    dvc_yaml_lines: int
    readme_lines: int
    readme_median_words_a_sentence: float
    docs_median_words_a_sentence: float
    function_lines_median: int
    function_lines_p90: int
    function_lines_max: int


def python_files(root: Path, *folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (root / folder).rglob("*.py"))


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a file defines, with their lines: arguments, variables, attributes, functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def banned_identifiers(root: Path) -> list[str]:
    """`file:line name` of every identifier that is one of `NO_IDENTIFIERS`."""
    return [
        f"{file.relative_to(root)}:{line} {name}"
        for file in python_files(root, *CODE)
        for name, line in identifiers(ast.parse(file.read_text(encoding="utf-8")))
        if name.strip("_").lower() in NO_IDENTIFIERS
    ]


def functions(root: Path) -> list[tuple[int, str]]:
    """Length in lines and name of every function, docstring included."""
    return [
        (node.end_lineno - node.lineno + 1, node.name)
        for file in python_files(root, *CODE)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]


def page_code(root: Path) -> list[str]:
    """Lines of src outside of `reports` that hold HTML or call the module that writes it."""
    return [
        f"{file.relative_to(root)}:{number}"
        for file in python_files(root, "src")
        if "reports" not in file.relative_to(root).parts
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if _PAGE_CODE.search(line) or re.search(r"(?<![\w.])(?:html|pages)\.(?!with_)\w+\(", line)
    ]


def wide_lines(root: Path) -> list[str]:
    """Lines of Python beyond `WIDTH` columns."""
    return [
        f"{file.relative_to(root)}:{number}"
        for file in python_files(root, *CODE, "tests", "benchmarks", "scripts")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > WIDTH
    ]


def sentences(markdown: str) -> list[int]:
    """Words of each sentence of the prose: no code, no tables, no headings, no lists of links."""
    text = _FENCE.sub("", _FRONT_MATTER.sub("", markdown))
    paragraphs = [
        " ".join(line.strip() for line in block.splitlines())
        for block in re.split(r"\n\s*\n", text)
        if block.strip() and not block.startswith(_NO_PROSE)
    ]
    parts = [part for block in paragraphs for part in re.split(r"(?<=[.!?])\s+(?=[A-Z`*])", block)]
    return [len(part.split()) for part in parts if len(part.split()) > 2]


def documentation(root: Path) -> list[Path]:
    return [file for file in sorted((root / "docs").rglob("*.md")) if "notes" not in file.parts]


def _median(counts: list[int]) -> float:
    return float(statistics.median(counts)) if counts else 0.0


def measure(root: Path) -> House:
    """All figures of the checkout at `root`."""
    texts = [file.read_text(encoding="utf-8") for file in python_files(root, *CODE)]
    rows = [row.strip() for text in texts for row in text.splitlines() if row.strip()]
    comments = sum(row.startswith("#") for row in rows)
    lengths = sorted(length for length, _ in functions(root))
    private = sum(name.startswith("_") and not name.endswith("__") for _, name in functions(root))
    readme = (root / "README.md").read_text(encoding="utf-8")
    src = [file.read_text(encoding="utf-8") for file in python_files(root, "src")]
    return House(
        words_that_are_no_identifiers=len(banned_identifiers(root)),
        private_functions_per_1000_lines=round(1000 * private / len(rows), 1),
        comment_lines_percent_of_code=round(100 * comments / (len(rows) - comments), 1),
        lines_over_100_columns=len(wide_lines(root)),
        dict_str_any_in_src=sum(text.count("dict[str, Any]") for text in src),
        page_code_lines_outside_reports=len(page_code(root)),
        dvc_yaml_lines=len((root / "dvc.yaml").read_text(encoding="utf-8").splitlines()),
        readme_lines=len(readme.splitlines()),
        readme_median_words_a_sentence=_median(sentences(readme)),
        docs_median_words_a_sentence=_median(
            [n for file in documentation(root) for n in sentences(file.read_text("utf-8"))]
        ),
        function_lines_median=lengths[len(lengths) // 2],
        function_lines_p90=lengths[int(len(lengths) * 0.9)],
        function_lines_max=lengths[-1],
    )


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    print(json.dumps(asdict(measure(root)), indent=2))


if __name__ == "__main__":
    main()

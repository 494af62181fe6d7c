"""Record benchmarks and write their page.

    python scripts/benchmark.py run model_cost --batch 1    # benchmarks/results/model_cost.jsonl
    python scripts/benchmark.py page                        # docs/reference/benchmarks.md

A record is the JSON lines that a script of benchmarks/ prints, after one line with the command,
the machine, the date and the commit.
"""

import ast
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"


def run(name: str, arguments: list[str]) -> None:
    """Run a benchmark and record its lines.

    Raises:
        SystemExit: it failed or printed no JSON line.
    """
    script = ROOT / "benchmarks" / f"{name}.py"
    words = [sys.executable, str(script), *arguments]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{name} ended with code {done.returncode} and {len(lines)} JSON lines")
    command = shlex.join(["python", f"benchmarks/{name}.py", *arguments])
    head = {"command": command, "machine": machine(), "date": today(), "commit": commit()}
    RESULTS.mkdir(exist_ok=True)
    text = "\n".join([json.dumps(head), *lines]) + "\n"
    (RESULTS / f"{name}.jsonl").write_text(text, encoding="utf-8")


def machine() -> str:
    """The processor, its cores that this process may use, and the GPUs."""
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    model = match[1] if match else "unknown processor"
    gpus = subprocess.run(
        ["sh", "-c", "nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null || true"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    cores = (
        f"{len(os.sched_getaffinity(0))} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
    )
    return ", ".join([model, cores, *filter(None, gpus)])


def today() -> str:
    """The date in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str:
    """The commit of the code."""
    words = ["git", "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def page() -> str:
    """The text of docs/reference/benchmarks.md."""
    parts = [
        "<!-- Written by `python scripts/benchmark.py page`. -->\n",
        "# Benchmarks\n",
        "Each section is the record of one run. `python scripts/benchmark.py run NAME` makes a new "
        "one. Times on a shared machine vary.\n",
    ]
    for file in sorted(RESULTS.glob("*.jsonl")):
        head, *rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        script = (ROOT / "benchmarks" / f"{file.stem}.py").read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(script)) or "").split("\n\n")[0]
        parts.append(f"## {file.stem}\n\n{' '.join(title.split())}\n")
        parts.append(f"```console\n{head['command']}\n```\n")
        parts.append(f"{head['machine']}. {head['date']}, commit {head['commit']}.\n")
        parts += _tables(rows)
    return "\n".join(parts)


def _tables(rows: list[dict[str, Any]]) -> list[str]:
    """A table of keys and values for one record, else one table for each set of keys."""
    flat = [dict(_flat(row)) for row in rows]
    if len(flat) == 1:
        return [_table(["figure", "value"], [[key, _written(v)] for key, v in flat[0].items()])]
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in flat:
        groups.setdefault(tuple(row), []).append([_written(value) for value in row.values()])
    return [_table(list(keys), members) for keys, members in groups.items()]


def _flat(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value != []:
            yield f"{prefix}{key}", value


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")


def main(words: list[str]) -> int:
    """Run one benchmark, or write the page."""
    if words[:1] == ["run"] and len(words) > 1:
        run(words[1], words[2:])
    elif words != ["page"]:
        print(__doc__, file=sys.stderr)
        return 2
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The documentation agrees with the code: reference, links of the site, and every command."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from arl import cli
from arl.command_spec import command_names, read_command

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = runpy.run_path(str(ROOT / "scripts" / "make_reference.py"))["pages"]()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# What makes the tutorials a matter of seconds.
SMALL = [
    "data.size=48",
    "model.embed_dim=24",
    "model.num_heads=3",
    "model.depth=4",
    "objective.local_crops_size=24",
    "sample.images_per_anatomy=0",
    "sample.images_per_task=60",
    "sample.size=64",
    "pretrain.max_steps=2",
    "pretrain.batch_size=8",
    "pretrain.threads=1",
    "finetune.epochs=1",
    "finetune.upernet_channels=8",
    "evaluate.bootstrap=50",
    "gate.bootstrap=50",
]


def blocks(file: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [body for name, body in FENCE.findall(file.read_text("utf-8")) if name == language]


def arl_lines(script: str) -> Iterator[list[str]]:
    """The words of every `arl` command of a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
        tokens.whitespace_split = True
        command: list[str] = []
        for token in [*tokens, ";"]:
            if set(token) <= set(";&|<>()"):
                # Assignments such as ARL_RUNS=x may precede a command.
                while command and re.match(r"\w+=", command[0]):
                    command.pop(0)
                if command[:1] == ["arl"]:
                    yield command[1:]
                command = []
            else:
                command.append(token)


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_what_the_code_gives(name: str) -> None:
    text = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert text == PAGES[name], "run python scripts/make_reference.py"


def test_the_page_of_benchmarks_is_what_their_records_give() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "benchmark.py"))["page"]()
    text = (DOCS / "reference" / "benchmarks.md").read_text(encoding="utf-8")
    assert text == page, "run python scripts/benchmark.py page"


def test_every_page_of_the_navigation_exists() -> None:
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    pages = list(_pages(navigation))
    assert len(pages) > 20
    assert [page for page in pages if not (DOCS / page).is_file()] == []


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        yield from (page for value in entry.values() for page in _pages(value))
    else:
        yield from (page for item in entry for page in _pages(item))


@pytest.mark.parametrize("file", PROSE, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_in_the_documentation_is_valid(file: Path) -> None:
    names = command_names()
    for script in [*blocks(file, "sh"), *blocks(file, "console")]:
        for words in arl_lines(script):
            if not words or words[0].startswith("-") or words[0].isupper():
                continue
            assert words[0] in names, f"{file.name}: arl {words[0]}"
            command = read_command(names[words[0]])
            _, rest = cli.split_overrides(command, words[1:])
            cli.build_parser(command).parse_intermixed_args(rest)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with conf/, an `arl` that makes parameters small, and a folder of images."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "bin").mkdir()
    small = " ".join(map(shlex.quote, SMALL))
    arl = f"{shlex.quote(sys.executable)} -m arl.cli"
    (tmp_path / "bin" / "arl").write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = configure ]; then shift; exec {arl} configure {small} "$@"; fi\n'
        f'exec {arl} "$@"\n'
    )
    (tmp_path / "bin" / "arl").chmod(0o755)
    _write_images(tmp_path / "my-set")
    return tmp_path


def _write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in range(40):
        label = ("benign", "malignant")[patient % 2]
        image = rng.normal(90, 30, (96, 128)).clip(0, 255)
        row, column = rng.integers(30, 60, 2)
        image[row - 12 : row + 12, column - 12 : column + 12] += 60 if label == "malignant" else -60
        file = folder / label / f"patient-{patient:02d}" / "a.png"
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), cv2.GaussianBlur(image, (0, 0), 1.5).clip(0, 255).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pages"),
    [
        ("first-run", ["out/corpus.html", "out/figures/index.html", "out/decision/index.html"]),
        ("own-folder", ["out/probe.json", "out/probe-random.json"]),
    ],
)
def test_the_commands_of_a_tutorial_run(name: str, pages: list[str], project: Path) -> None:
    script = "set -eu\n" + "\n".join(blocks(DOCS / "tutorials" / f"{name}.md", "sh"))
    python = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(project / "bin"), python, os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # A model of two steps may refuse a real clip, which is the last input of the first tutorial.
    refused = name == "first-run" and "does not look like the images" in done.stderr
    assert done.returncode == 0 or refused, done.stdout[-2000:] + done.stderr[-2000:]
    if not refused and name == "first-run":
        pages = [*pages, "out/predict/index.html"]
    assert [page for page in pages if not (project / page).is_file()] == []

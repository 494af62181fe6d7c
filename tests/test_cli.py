"""The derived command line: every command's help without torch, and errors in one sentence."""

import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from arl import cli

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch",
    "timm",
    "deepspeed",
    "numpy",
    "pandas",
    "evidently",
    "great_expectations",
    "hydra",
    "omegaconf",
    "kfp",
)


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of the command line."""
    try:
        code = cli.main(words)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


def test_every_file_is_a_command_with_a_summary() -> None:
    names = cli.command_names()
    assert {"pretrain", "validate", "configure", "run"} <= names.keys()
    for name, module in names.items():
        command = cli.read_command(module)
        assert command.name == name
        assert command.doc.split("\n")[0], f"{module} has no docstring"
        assert command.takes_params or module.startswith("arl.commands."), (
            f"{module}: stages take params"
        )


@pytest.mark.parametrize("module", ["arl.commands.run", "arl.commands.configure"])
def test_signatures_read_from_source_are_those_of_python(module: str) -> None:
    command = cli.read_command(module)
    function = getattr(importlib.import_module(module), command.function)
    parameters = inspect.signature(function).parameters.values()
    assert [argument.name for argument in command.arguments] == [
        parameter.name for parameter in parameters
    ]
    for argument, parameter in zip(command.arguments, parameters, strict=True):
        assert argument.positional == (parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
        assert argument.required == (parameter.default is parameter.empty)


def test_no_help_imports_anything_heavy() -> None:
    program = f"""
import contextlib, io, sys
from arl import cli
for words in [[], *([name] for name in cli.command_names())]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    assert "usage: arl" in out.getvalue(), words
    loaded = [package for package in {HEAVY} if package in sys.modules]
    assert not loaded, (words, loaded)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.command_names())


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = told(["pretrian"], capsys)
    assert code == 2
    assert error == "arl: unknown command 'pretrian'; `arl --help` lists them\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate"], "--corpus"),
        (["validate", "--corpus", "data"], "--validation"),
        (["validate", "--corpus", "data", "--validation", "out", "--verbose"], "--verbose"),
        (["run"], "pipeline"),
    ],
)
def test_wrong_flags(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = told(words, capsys)
    assert code == 2
    assert message in error


@pytest.mark.parametrize(
    ("override", "message"),
    [("pretrain.epoch=1", "epoch"), ("pretrain.epochs=x", "whole number"), ("seed=[", "seed")],
)
def test_wrong_override(
    override: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    code, error = told(["validate", override, "--corpus", "data", "--validation", "out"], capsys)
    assert code == 1
    assert error.startswith("arl validate: ")
    assert error.count("\n") == 1
    assert message in error


def test_missing_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = told(["validate", "--corpus", "data", "--validation", "out"], capsys)
    assert code == 1
    assert "params.yaml does not exist" in error


@pytest.mark.parametrize(
    "name", ["validate", "pretrain", "finetune", "evaluate", "gate", "release", "drift", "report"]
)
def test_missing_input_is_one_sentence_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    command = cli.read_command(f"arl.stages.{name}")
    paths = [a.name for a in command.arguments if a.type is Path or a.name == "registry"]
    words = [word for path in paths for word in (f"--{path.replace('_', '-')}", f"nowhere/{path}")]
    task = ["--task", "breast"] if "task" in {a.name for a in command.arguments} else []
    code, error = told([name, *words, *task], capsys)
    assert code == 1
    assert error.startswith(f"arl {name}: ")
    assert error.count("\n") == 1
    assert "nowhere/" in error
    assert not Path("nowhere").exists()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A package beside arl's with one stage and one command, and what they were called with."""
    seen = SimpleNamespace(calls=[])
    for folder in ("stages", "commands"):
        (tmp_path / folder).mkdir()
    (tmp_path / "stages" / "two_words.py").write_text(
        '''
def two_words(params, source: str, *, corpus: Path, count: int = 3, models: list[Path], site: str | None = None):
    """Summary."""
    return params.seed, source, corpus, count, models, site
'''.replace("def", "from pathlib import Path\n\ndef", 1)
    )
    (tmp_path / "commands" / "words.py").write_text(
        "def words(first: str, choices: list[str], *, loud: str = ''):\n    'S'\n    return first, choices, loud\n"
    )
    monkeypatch.setattr(cli, "_HERE", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path.parent))
    import_module = cli.importlib.import_module

    def imported(module: str) -> SimpleNamespace:
        local = import_module(module.replace("arl", tmp_path.name, 1))
        name = module.split(".")[-1]

        def record(*args: object, **kwargs: object) -> None:
            seen.calls.append(getattr(local, name)(*args, **kwargs))

        return SimpleNamespace(**{name: record})

    monkeypatch.setattr(cli.importlib, "import_module", imported)
    monkeypatch.chdir(ROOT)
    return seen


def test_stage_arguments(toy: SimpleNamespace) -> None:
    # overrides may stand anywhere, also where a list of paths would swallow them
    words = [
        "two-words",
        "seed=7",
        "bus-bra",
        "--models",
        "a",
        "b",
        "pretrain.epochs=1",
        "--corpus",
        "data",
    ]
    assert cli.main(words) == 0
    assert toy.calls == [(7, "bus-bra", Path("data"), 3, [Path("a"), Path("b")], None)]


def test_command_arguments(toy: SimpleNamespace) -> None:
    # key=value words belong to the command, on both sides of an option
    assert cli.main(["words", "x", "a=1", "--loud", "yes", "b=2"]) == 0
    assert cli.main(["words", "x"]) == 0
    assert toy.calls == [("x", ["a=1", "b=2"], "yes"), ("x", [], "")]


def test_call_takes_strings_for_paths(toy: SimpleNamespace) -> None:
    cli.call("two-words", ["seed=2"], source="s", corpus="data", models=["a"], site="x")
    assert toy.calls == [(2, "s", Path("data"), 3, [Path("a")], "x")]

"""The command line: help without torch, checks before torch, one line for an error."""

import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from arl import cli, command_spec
from arl.command_spec import GROUPS, INTERNAL, command_names, read_command

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


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of the command line."""
    try:
        code = cli.main(words)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


COMMANDS = {name: read_command(module) for name, module in command_names().items()}


def test_every_command_has_one_group() -> None:
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted([*grouped, *INTERNAL]) == sorted(command_names()), (
        "add the command to GROUPS or INTERNAL in command_spec.py"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    command = COMMANDS[name]
    assert command.name == name
    assert command.takes_params or command.module.startswith("arl.commands.")
    assert 0 < len(command.summary) <= 100
    assert command.summary.endswith(".")
    undocumented = [argument.name for argument in command.arguments if not argument.help]
    assert not undocumented, f"`Args:` of {command.module} lacks {undocumented}"
    names = {argument.name for argument in command.arguments}
    assert all(name in names or "." in name for name in command.writes)
    for line in command.next_steps:
        assert set(re.findall(r"{(\w+)}", line)) <= names
    for line in (*command.next_steps, *command.examples):
        assert line.startswith("arl ")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_and_next_steps_are_valid_command_lines(name: str) -> None:
    command = COMMANDS[name]
    values = {argument.name: "x" for argument in command.arguments}
    lines = [*command.examples, *(line.format(**values) for line in command.next_steps)]
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        other = COMMANDS[words[1]]
        _, rest = cli.split_overrides(other, words[2:])
        cli.build_parser(other).parse_intermixed_args(rest)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_python(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"], capsys)[0] == 0
    text = cli.build_parser(COMMANDS[name]).format_help()
    for word in ("Args:", "Raises:", "ValueError", "FileNotFoundError", "None", "list[", "STR"):
        assert word not in text


@pytest.mark.parametrize("module", ["arl.commands.run", "arl.commands.configure"])
def test_signatures_read_from_source_are_those_of_python(module: str) -> None:
    command = read_command(module)
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
from arl import cli, command_spec
from arl.command_spec import GROUPS, INTERNAL, command_names, read_command
for words in [[], *([name] for name in command_names())]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    assert "usage: arl" in out.getvalue(), words
    loaded = [package for package in {HEAVY} if package in sys.modules]
    assert not loaded, (words, loaded)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_help_lists_the_commands_of_a_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all((f"  {name} " in text) == (name not in INTERNAL) for name in command_names())
    assert all(len(line) <= 120 for line in text.splitlines())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"arl \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_an_unknown_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = run(["pretrian"], capsys)
    assert code == 2
    assert error.startswith("arl: unknown command 'pretrian' (did you mean 'pretrain'?)")
    assert error.count("\n") == 1


def test_an_unknown_option_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", "--corpus", "data", "--validation", "out", "--quite"]
    code, error = run(words, capsys)
    assert code == 2
    assert "unknown option --quite (did you mean '--quiet'?)" in error
    assert error.count("\n") == 1


def test_a_wrong_choice_names_the_right_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(["run", "pipeline.py", "--backend", "kpf"], capsys)
    assert code == 2
    assert all(word in error for word in ("kpf' (did you mean 'kfp'?)", "local", "docker"))
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match="did you mean 'kfp'"):
        cli.call("run", pipeline="pipelines/arl_full.py", backend="kpf", overrides=[])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate"], "--corpus"),
        (["validate", "--corpus", "data"], "--validation"),
        (["run"], "pipeline"),
    ],
)
def test_wrong_flags(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = run(words, capsys)
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
    code, error = run(["validate", override, "--corpus", "data", "--validation", "out"], capsys)
    assert code == 1
    assert error.startswith("arl validate: ")
    assert error.count("\n") == 1
    assert message in error


def test_missing_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = run(["validate", "--corpus", "data", "--validation", "out"], capsys)
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
    command = COMMANDS[name]
    paths = [a.name for a in command.arguments if a.type is Path or a.name == "registry"]
    words = [word for path in paths for word in (f"--{path.replace('_', '-')}", f"nowhere/{path}")]
    task = ["--task", "breast"] if "task" in {a.name for a in command.arguments} else []
    code, error = run([name, *words, *task], capsys)
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
def two_words(
    params, source: str, *,
    corpus: Path, count: int = 3, models: list[Path], site: str | None = None
):
    """Summary.

    Writes:
        corpus, models
    """
    return params.seed, source, corpus, count, models, site
'''.replace("def", "from pathlib import Path\n\ndef", 1)
    )
    (tmp_path / "commands" / "words.py").write_text(
        "def words(first: str, choices: list[str], *, loud: str = ''):\n"
        "    'S'\n"
        "    return first, choices, loud\n"
    )
    monkeypatch.setattr(command_spec, "HERE", tmp_path)
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


def test_a_switch_and_choices_come_from_the_signature(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "commands").mkdir()
    (tmp_path / "commands" / "toggle.py").write_text(
        'def toggle(*, mode: Literal["a", "b"] = "a", deep: bool = False, set_: list[str] = []):\n'
        '    "S"\n'
    )
    monkeypatch.setattr(command_spec, "HERE", tmp_path)
    command = read_command("arl.commands.toggle")
    assert command.arguments[0].choices == ("a", "b")
    parser = cli.build_parser(command)
    assert vars(parser.parse_args(["--deep", "--set", "x", "y"])) == {
        "deep": True,
        "set_": ["x", "y"],
        "quiet": False,
        "verbose": False,
    }


def test_a_file_with_an_equals_sign_is_no_override(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.dcm").touch()
    words = ["a=b.dcm", "seed=3", "--task", "breast"]
    assert cli.split_overrides(COMMANDS["predict"], words) == (
        ["seed=3"],
        ["a=b.dcm", "--task", "breast"],
    )


CHEAP = [
    (["pretrain", "pretrain.epoch=1", "--corpus", "."], "did you mean 'epochs'"),
    (["pretrain", "--corpus", "nowhere"], "--corpus nowhere does not exist"),
    (["finetune", "--task", "brest", "--corpus", ".", "--model", "m"], "did you mean 'breast'"),
    (["pretrain", "--corpus", ".", "--checkpoint", "file/x"], "is a file"),
]


@pytest.mark.parametrize(("words", "message"), CHEAP)
def test_wrong_words_are_found_before_anything_heavy_is_imported(
    words: list[str], message: str, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "file").touch()
    required = [a.flag for a in COMMANDS[words[0]].arguments if a.required and not a.positional]
    words += [word for flag in required if flag not in words for word in (flag, "params.yaml")]
    program = f"""
import resource, sys
from arl import cli
code = cli.main({words})
assert code == 1, code
heavy = {{"torch", "pandas", "numpy", "hydra"}} & sys.modules.keys()
assert not heavy, heavy
usage = resource.getrusage(resource.RUSAGE_SELF)
assert usage.ru_utime + usage.ru_stime < 1.0, usage
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_leaves_no_traceback() -> None:
    line = f"{shlex.quote(sys.executable)} -m arl.cli datasets | head -n 1 > /dev/null"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_closed_output_is_exit_code_141() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "arl.cli", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_file_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    program = """
import sys
from types import SimpleNamespace
from arl import cli
cli.importlib.import_module = lambda _: SimpleNamespace(models=lambda **_: print("scan-\\udcff"))
sys.exit(cli.main(["models", "--registry", "r"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "scan-\\udcff\n"), done.stderr


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Make a command whose body raises an exception."""

    def fail(error: BaseException) -> None:
        def imported(module: str) -> SimpleNamespace:
            def models(**_: object) -> None:
                raise error

            return SimpleNamespace(models=models)

        monkeypatch.setattr(cli.importlib, "import_module", imported)

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("no"), 1, "arl models: no\n"),
        (IsADirectoryError(21, "Is a directory", "x.json"), 1, "x.json: Is a directory"),
        (OSError(28, "No space left on device", "x.json"), 75, "x.json: No space left"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "arl: interrupted\n"),
        (KeyError("k"), 70, "this is a fault of ARL"),
    ],
)
def test_exit_codes(failing, error, code, message, capsys: pytest.CaptureFixture[str]) -> None:
    failing(error)
    exit_code, text = run(["models", "--registry", "r"], capsys)
    assert exit_code == code
    assert message in text
    assert ("Traceback" in text) == (code == 70)


def test_a_command_says_what_it_wrote_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def output(*words: str) -> str:
        assert cli.main(["sample", "--corpus", "data", *words]) == 0
        return capsys.readouterr().out

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = SimpleNamespace(sample=lambda params, corpus: corpus.mkdir(exist_ok=True))
    monkeypatch.setattr(cli.importlib, "import_module", lambda _: quick)
    text = output()
    assert "Wrote data.\n" in text
    assert "Next: arl validate --corpus data --validation out/validation\n" in text
    assert output("--quiet") == ""
    monkeypatch.setenv("RANK", "1")
    assert output() == ""
    monkeypatch.setenv("RANK", "0")
    # DVC runs the next stage itself
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert output() == "Wrote data.\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "pretrain" in script
    assert "mask-name" in script
    assert "take-batch" not in script


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "arl.bash"
    script.write_text(capsys.readouterr().out)
    program = f"""
source {script}
complete_line() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _shtab_arl; echo "${{COMPREPLY[@]}}"
}}
complete_line arl pre
complete_line arl ingest --mask
complete_line arl run --backend ""
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    commands, options, choices = done.stdout.splitlines()
    assert set(commands.split()) == {"predict", "pretrain"}
    assert options.split() == ["--mask-name"]
    assert choices.split() == ["local", "docker", "kfp"]

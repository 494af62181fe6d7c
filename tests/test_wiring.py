"""dvc.yaml and the KFP components agree with the signatures of the stages, and dvc.yaml tells DVC
all that matters.
"""

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from arl import params
from arl.command_spec import read_command

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "arl"
IMPORTS = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "imports.py")))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# No dependency of a stage: the values that params.py reads are tracked as params, a progress bar
# and
# messages are for people, and most __init__.py hold one sentence.
PLUMBING = {
    *(SRC / name for name in ("params.py", "console.py", "progress.py", "__init__.py")),
    *(
        file
        for file in SRC.rglob("__init__.py")
        if len(ast.parse(file.read_text(encoding="utf-8")).body) == 1
    ),
}
# Registry: the state of the world. A release must not make the next `dvc repro` stale.
WORLD = {"registry"}


def flags(name: str) -> dict[str, list[str]]:
    """Flag -> values of a DVC stage's command line."""
    words = shlex.split(STAGES[name]["cmd"])
    assert words[:2] == ["arl", name]
    values_of: dict[str, list[str]] = {}
    for word in words[2:]:
        if word.startswith("--"):
            values_of[word.removeprefix("--").replace("-", "_")] = values = []
        else:
            values.append(word)
    return values_of


def expected(name: str) -> set[str]:
    command = read_command(f"arl.stages.{name}")
    assert not [argument for argument in command.arguments if argument.positional]
    return {argument.name for argument in command.arguments}


def paths(entries: list[Any]) -> set[str]:
    """Paths of a deps or outs list, of which some carry options."""
    return {path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)}


def outputs(name: str) -> set[str]:
    return {
        path for kind in ("outs", "metrics", "plots") for path in paths(STAGES[name].get(kind, []))
    }


def _is_under(entry: str, path: str) -> bool:
    """Whether an entry is a path of a command, or a file in it; the shell makes out/evaluate/* of
    out/evaluate.
    """
    return f"{entry}/".startswith(path.removesuffix("/*") + "/")


@pytest.mark.parametrize("name", STAGES)
def test_dvc_passes_exactly_the_flags_of_the_stage(name: str) -> None:
    assert set(flags(name)) == expected(name)


@pytest.mark.parametrize("name", STAGES)
def test_every_path_of_a_command_is_a_dep_or_an_out(name: str) -> None:
    types = {
        argument.name: argument.type for argument in read_command(f"arl.stages.{name}").arguments
    }
    used = {
        value for flag, values in flags(name).items() for value in values if types[flag] is Path
    }
    listed = paths(STAGES[name]["deps"]) | outputs(name) | WORLD
    assert {path for path in used if not any(_is_under(entry, path) for entry in listed)} == set()


def _components() -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    for file in sorted((ROOT / "components").glob("*.py")):
        for function in ast.parse(file.read_text(encoding="utf-8")).body:
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            wanted = [
                call
                for call in calls
                if isinstance(call.func, ast.Name) and call.func.id in ("call", "launch")
            ]
            if isinstance(function, ast.FunctionDef) and wanted:
                assert len(wanted) == 1
                yield function, wanted[0]


COMPONENTS = {function.name: (function, call) for function, call in _components()}


# Under DVC a batch is read by hand, once, before `dvc add data`; `arl watch` runs the steps of the
# loop itself.
ONLY_KUBEFLOW = {"ingest", "poll_inbox", "take_batch", "compare", "decide", "close_run"}


def test_kubeflow_has_the_stages_of_dvc() -> None:
    assert set(COMPONENTS) - ONLY_KUBEFLOW == set(STAGES)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_passes_exactly_the_flags_of_its_stage(name: str) -> None:
    _, call = COMPONENTS[name]
    stage, overrides, *_ = call.args
    assert ast.literal_eval(stage) == name
    assert ast.unparse(overrides) == "overrides"
    command = read_command(f"arl.stages.{name}")
    assert {keyword.arg for keyword in call.keywords} == {
        argument.name for argument in command.arguments
    }
    for keyword in call.keywords:
        if isinstance(keyword.value, ast.Constant):
            continue
        # each flag gets the input or output of its own name, or the option
        nodes = list(ast.walk(keyword.value))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert keyword.arg in names | {
            node.value for node in nodes if isinstance(node, ast.Constant)
        }


def sources_of(name: str) -> set[Path]:
    """Every file of arl that a stage imports, directly or not, and its own."""
    files: set[Path] = IMPORTS.closure(SRC / "stages" / f"{name}.py")
    return files - PLUMBING


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_the_imports_of_a_stage_and_hardly_more(name: str) -> None:
    deps = [ROOT / path for path in paths(STAGES[name]["deps"]) if path.startswith("src/")]
    assert [path for path in deps if not path.exists()] == []
    under = {path: {path} if path.is_file() else set(path.rglob("*.py")) for path in deps}
    used = sources_of(name)
    missing = sorted(str(file.relative_to(ROOT)) for file in used - set().union(*under.values()))
    assert not missing, f"dvc.yaml: {name} would not notice a change of {missing}"
    for path, files in under.items():
        # A folder says what a stage depends on. It may hold files that the stage does without.
        fraction = len(files & used) / len(files)
        assert fraction > 0.1, f"dvc.yaml: {name} would run again for nothing when {path} changes"


def _params_names(function: ast.FunctionDef) -> set[str]:
    """Names of the arguments that are Params."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return {
        arg.arg
        for arg in every
        if arg.annotation and ast.unparse(arg.annotation).split(".")[-1] == "Params"
    }


def _read_in(function: ast.FunctionDef, takers: set[str]) -> set[str]:
    """Keys like pretrain.threads, or a section as a whole, that a function reads from its Params.

    Params as a whole may only go to `takers`, functions whose argument is Params: DVC has to be
    able to follow it.
    """
    names, read, followed = _params_names(function), set(), set()
    parents = {
        id(child): node for node in ast.walk(function) for child in ast.iter_child_nodes(node)
    }
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in names
        ):
            above = parents[id(node)]
            read.add(f"{node.attr}.{above.attr}" if isinstance(above, ast.Attribute) else node.attr)
            followed.add(id(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in takers:
            followed.update(
                id(arg) for arg in [*node.args, *(keyword.value for keyword in node.keywords)]
            )
    lost = [
        n
        for n in ast.walk(function)
        if isinstance(n, ast.Name) and n.id in names and id(n) not in followed
    ]
    assert not lost, (
        f"{function.name} (line {lost[0].lineno}) uses all of Params, so that DVC cannot follow it"
    )
    return read


def keys_read(name: str) -> set[str]:
    """Keys of params.yaml that a stage reads."""
    files = [file for file in sources_of(name) if file.parent.name == "stages"]
    nodes = [
        node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    ]
    functions = [
        node for node in nodes if isinstance(node, ast.FunctionDef) and _params_names(node)
    ]
    takers = {function.name for function in functions}
    return set().union(*(_read_in(function, takers) for function in functions))


def _covers(listed: str, read: str) -> bool:
    return f"{read}.".startswith(f"{listed}.")


@pytest.mark.parametrize("name", STAGES)
def test_params_cover_the_keys_a_stage_reads_and_no_more(name: str) -> None:
    read = keys_read(name)
    listed = {key.replace(".${item.task}", "") for key in STAGES[name]["params"]}
    missing = sorted(key for key in read if not any(_covers(entry, key) for entry in listed))
    assert not missing, f"dvc.yaml: {name} would not notice a change of {missing}"
    useless = sorted(entry for entry in listed if not any(_covers(entry, key) for key in read))
    assert not useless, f"dvc.yaml: {name} would run again for nothing when {useless} change"
    # one task's recipe must not make the others stale
    assert "matrix" not in STAGES[name] or "task" not in STAGES[name]["params"]


def test_params_are_sections_of_the_schema() -> None:
    sections = set(params.Params.__dataclass_fields__)
    for name, stage in STAGES.items():
        assert {section.split(".")[0] for section in stage["params"]} <= sections, name


def _producer(path: str) -> str | None:
    """The stage of dvc.yaml that writes a path of a command."""
    producers = {name for name in STAGES if any(_is_under(out, path) for out in outputs(name))}
    assert len(producers) < 2
    return next(iter(producers), None)


def test_both_wirings_connect_the_same_stages() -> None:
    """Which stage makes what a flag of another reads: the paths of dvc.yaml against the compiled
    arl_full.py.
    """
    golden = (ROOT / "tests" / "pipelines" / "golden" / "arl_full.yaml").read_text(encoding="utf-8")
    kubeflow = _compiled_edges(next(iter(yaml.safe_load_all(golden))))
    for name in STAGES:
        producers = {flag: _producer(values[0]) for flag, values in flags(name).items() if values}
        dvc = {flag: made_by for flag, made_by in producers.items() if made_by not in (None, name)}
        assert kubeflow[name] == dvc


def _compiled_edges(spec: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Task -> input artifact -> task that makes it, through the loop's own graph."""
    edges: dict[str, dict[str, str]] = {}
    components = spec["components"]

    def producer(reference: dict[str, Any], dag: dict[str, Any], outer: dict[str, str]) -> str:
        if "componentInputArtifact" in reference:
            return outer[reference["componentInputArtifact"]]
        made = reference["taskOutputArtifact"]
        component = components[dag["tasks"][made["producerTask"]]["componentRef"]["name"]]
        if "dag" not in component:
            return str(made["producerTask"])
        selected = component["dag"]["outputs"]["artifacts"][made["outputArtifactKey"]][
            "artifactSelectors"
        ]
        return str(selected[0]["producerSubtask"])

    def walk(dag: dict[str, Any], outer: dict[str, str]) -> None:
        for name, task in dag["tasks"].items():
            artifacts = task.get("inputs", {}).get("artifacts", {})
            sources = {key: producer(reference, dag, outer) for key, reference in artifacts.items()}
            component = components[task["componentRef"]["name"]]
            if "dag" in component:
                walk(component["dag"], sources)
            else:
                edges[name] = sources

    walk(spec["root"]["dag"], {})
    return edges


def test_an_import_inside_a_function_counts(tmp_path: Path) -> None:
    file = tmp_path / "stage.py"
    file.write_text(
        "def stage():\n    from arl.corpus.manifest import read_manifest\n    import "
        "arl.reports.html\n"
    )
    imported = {path.relative_to(SRC).as_posix() for path in IMPORTS.closure(file) - {file}}
    assert imported >= {"__init__.py", "corpus/manifest.py", "reports/html.py"}


def test_task_names_suit_dvc_and_kubeflow() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", task) for task in values["task"])

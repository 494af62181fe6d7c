"""The direction of imports, and that one module imports each heavy package."""

import ast
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
IMPORTS = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "imports.py")))
# Layer -> the parts of arl it may import; what is in FREE is free for all.
_CORPUS = {"corpus", "storage"}
_NETWORKS = {"models", "objectives", "training", "loading", "tasks", *_CORPUS}
_RESULTS = {"evaluation", "monitoring", "ingest", *_NETWORKS}
BELOW = {
    "storage": set(),
    "objectives": set(),
    "phantoms": set(),
    "corpus": {"storage"},
    "loading": {"corpus"},
    "models": {"objectives"},
    "tasks": {"evaluation", "loading", "models", "corpus"},
    "training": {"models", "objectives", "loading", "tasks"},
    "ingest": {"corpus", "storage"},
    "evaluation": {"models", "objectives", "loading", "corpus"},
    "monitoring": {"models", "ingest", "evaluation", "corpus"},
    "inference": {"evaluation", "ingest", *_NETWORKS},
    # of the experiments only their typed results: the rest of them calls stages, which write pages
    "reports": {
        "evaluation",
        "monitoring",
        "inference",
        "corpus",
        "experiments.results",
        "storage.metadata",
    },
    "stages": {"reports", "params", *_RESULTS},
    "experiments": {"composition", "stages", "inference", "params", *_RESULTS},
    "commands": {
        "cli",
        "composition",
        "experiments",
        "stages",
        "reports",
        "inference",
        "launch",
        "phantoms",
        "params",
        *_RESULTS,
    },
    "params": set(),
    "composition": {"params"},
    "documents": set(),
    "environment": set(),
    "git": set(),
    "console": set(),
    "files": set(),
    "model_config": set(),
    "settings": set(),
    "outages": set(),
    "progress": set(),
    "command_spec": {"corpus"},
    "cli": {"command_spec", "params", "corpus"},
    "launch": {"cli", "corpus", "evaluation", "monitoring", "storage"},
}
FREE = {
    "arl.console",
    "arl.documents",
    "arl.git",
    "arl.files",
    "arl.model_config",
    "arl.outages",
    "arl.progress",
    "arl.settings",
    "arl.corpus.anatomy",
}
# Package -> the only files that import it.
ONLY = {
    "deepspeed": "src/arl/training/distributed.py",
    "evidently": "src/arl/monitoring/evidently_report.py",
    "great_expectations": "src/arl/corpus/checks/validation.py",
    "duckdb": "src/arl/corpus/checks/invariants.py",
    "minio": "src/arl/storage/s3.py",
    "rapidocr": "src/arl/ingest/dicom/burnt_in_text.py",
    "kfp": "(components|pipelines)/.*",
    "hydra": "src/arl/composition.py",
    "dvc": "nothing",
    "kubernetes": "(src/arl/launch/trainjob|pipelines/kube).py",
}


def sources() -> list[Path]:
    return sorted(
        file
        for folder in ("src/arl", "components", "pipelines")
        for file in (ROOT / folder).rglob("*.py")
    )


def layer(name: str) -> str:
    """arl.corpus.shard_writer.BatchWriter -> corpus."""
    return name.split(".")[1]


def is_free(name: str) -> bool:
    return any(name == free or name.startswith(free + ".") for free in FREE)


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_downwards(file: Path) -> None:
    path = file.relative_to(ROOT)
    names = {
        name
        for name in IMPORTS.names(file)
        if name.split(".")[0] in ("arl", "components", "pipelines")
    }
    if path.parts[0] == "pipelines":
        # the last line of a pipeline file may hand over to the command line
        # and the runner reads the request that a command wrote
        allowed = ("arl.cli.main", "arl.launch.request.Request")
        assert all(not name.startswith("arl") or name in allowed for name in names)
    elif path.parts[0] == "components":
        assert all(
            name.startswith("components")
            or name in ("arl.cli.call", "arl.launch.stage.launch", "arl.launch.artifacts")
            or name.startswith(("arl.launch.artifacts.", "arl.launch.corpus_artifacts."))
            for name in names
        )
    elif len(path.parts) > 2:
        own = path.parts[2].removesuffix(".py")
        if own == "__init__":
            assert not names
            return
        assert not {name for name in names if not name.startswith("arl.")}, (
            "arl knows nothing of its pipelines"
        )
        above = {
            name
            for name in names
            if not is_free(name)
            and layer(name) not in {own, *BELOW[own]}
            and ".".join(name.split(".")[1:3]) not in BELOW[own]
        }
        assert not above, f"{own} may import {sorted(BELOW[own])} only"


def test_only_stages_and_commands_see_params() -> None:
    readers = {
        file.relative_to(ROOT).parts[2]
        for file in sources()
        if any("arl.params" in n for n in IMPORTS.names(file))
    }
    assert readers <= {"stages", "commands", "experiments", "composition.py", "cli.py"}


@pytest.mark.parametrize("package", ONLY)
def test_one_module_imports_each_heavy_package(package: str) -> None:
    users = {
        file.relative_to(ROOT).as_posix()
        for file in sources()
        if any(name.split(".")[0] == package for name in IMPORTS.names(file))
    }
    assert {user for user in users if not re.fullmatch(ONLY[package], user)} == set()


def test_kfp_is_the_only_package_of_components() -> None:
    for file in (ROOT / "components").glob("*.py"):
        top = ast.parse(file.read_text(encoding="utf-8")).body
        for node in top:
            if isinstance(node, ast.ImportFrom):
                assert node.module in ("kfp", "components", "collections.abc", "typing") or (
                    node.module.startswith("components.") or node.module == "pathlib"
                ), file

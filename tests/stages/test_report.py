"""The report of a whole run, small and real."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arl import params as parameters
from arl.files import tree_hash
from arl.params import Params
from arl.stages.drift import drift
from arl.stages.evaluate import evaluate
from arl.stages.finetune import finetune
from arl.stages.gate import gate
from arl.stages.pretrain import pretrain
from arl.stages.release import release
from arl.stages.report import report
from arl.stages.validate import validate


@dataclass(frozen=True)
class Run:
    """The outputs of a run's stages, as `report` takes them."""

    params: Params
    files: dict[str, Any]

    def write(self, folder: Path) -> Path:
        report(self.params, **self.files, report=folder)
        return folder


@pytest.fixture(scope="module")
def run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    params = tiny()
    corpus, checkpoint, registry = tiny_corpus, root / "checkpoint", root / "registry"
    validate(params, corpus=corpus, validation=root / "validation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARL_RUNS", str(root / "runs"))
        pretrain(params, corpus=corpus, checkpoint=checkpoint, metrics=root / "pretrain.json")
    models, evaluations = [], []
    for task in params.tasks:
        models.append(root / "models" / task)
        evaluations.append(root / "evaluations" / task)
        finetune(params, task=task, corpus=corpus, checkpoint=checkpoint, model=models[-1])
        evaluate(params, task=task, corpus=corpus, model=models[-1], evaluation=evaluations[-1])
    judged = {
        "models": models,
        "evaluations": evaluations,
        "registry": registry,
        "decision": root / "decision",
    }
    gate(params, corpus=corpus, **judged)
    release(params, checkpoint=checkpoint, **judged, receipt=root / "receipt.json")
    drift(params, corpus=corpus, checkpoint=checkpoint, drift=root / "drift")
    names = {
        "validation": "validation",
        "metrics": "pretrain.json",
        "decision": "decision",
        "receipt": "receipt.json",
    }
    files = {name: root / file for name, file in names.items()}
    return Run(
        params, {**files, "corpus": corpus, "drift": root / "drift", "evaluations": evaluations}
    )


@pytest.fixture(scope="module")
def written(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.write(tmp_path_factory.mktemp("report") / "out")


def tiny() -> Params:
    """The fixture `tiny_params`, at the scope of a module."""
    words = """data.size=32 model.embed_dim=24 model.depth=4 model.num_heads=3
        model.patch_size=8 model.anatomy_hidden=8
        objective.local_crops_size=16 objective.prototypes=16 objective.decoder_dim=16
        objective.decoder_depth=1 objective.decoder_heads=2 objective.discriminator_dim=4
        pretrain.batch_size=8 pretrain.max_steps=3 pretrain.threads=1
        finetune.batch_size=8 finetune.epochs=1 evaluate.bootstrap=50 gate.bootstrap=50
        tasks=[breast,lv]"""
    return parameters.load(words.split(), Path(__file__).parents[2] / "params.yaml")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_opens_without_error_or_request(
    run: Run, written: Path, tmp_path: Path, open_page: Callable[..., Any], width: int, dark: bool
) -> None:
    opened = open_page(written / "index.html", width, dark, tmp_path / "report.png")
    assert (opened.errors, opened.requests, opened.overflow) == ([], [], 0)
    decided = json.loads((run.files["decision"] / "decision.json").read_text())
    assert decided["verdict"].capitalize() in opened.text
    for reason in decided["reasons"]:
        assert reason in opened.text


def test_it_says_what_the_stages_measured(run: Run, written: Path) -> None:
    html = (written / "index.html").read_text()
    for folder in run.files["evaluations"]:
        about = json.loads((folder / "metrics.json").read_text())
        for entry in about["metrics"].values():
            assert f">{entry['value']:.3f}" in html
    for word in (
        "breast, benign",
        "cardiac",
        "L_MIM (eq. 3)",
        "No source has a second batch",
        "Every input was accepted",
    ):
        assert word in html


def links(page: Path) -> set[str]:
    """The addresses of other files that a page links to."""
    return set(re.findall(r'href="([^"#:]+)"', page.read_text(encoding="utf-8")))


def test_it_can_be_moved(written: Path, tmp_path: Path) -> None:
    out = shutil.copytree(written, tmp_path / "elsewhere")
    pages = {"validation/index.html", "decision/index.html", "drift/index.html"}
    assert pages <= links(out / "index.html")
    for page in ("index.html", *pages):
        for link in links(out / page):
            assert (out / page).parent.joinpath(link).is_file(), (page, link)
        if page != "index.html":
            assert "../index.html" in links(out / page), "every page leads back to the report"


def test_a_rerun_writes_the_same_bytes(run: Run, written: Path, tmp_path: Path) -> None:
    assert tree_hash(run.write(tmp_path / "again")) == tree_hash(written)


def test_synthetic_images_are_marked(run: Run, tmp_path: Path) -> None:
    changed = [
        shutil.copytree(folder, tmp_path / folder.name) for folder in run.files["evaluations"]
    ]
    about = json.loads((changed[0] / "metrics.json").read_text())
    (changed[0] / "metrics.json").write_text(json.dumps({**about, "synthetic": True}))
    out = Run(run.params, {**run.files, "evaluations": changed}).write(tmp_path / "out")
    html = (out / "index.html").read_text()
    assert ">synthetic</span>" in html
    assert f"ROC curve, {about['task']} (synthetic)" in html

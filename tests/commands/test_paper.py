"""`arl paper`: experiments at a scale of seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from arl.commands._experiment import experiment_names, read_experiment
from arl.commands.configure import compose
from arl.commands.paper import paper
from arl.files import read_json

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


@pytest.mark.parametrize("name", experiment_names(CONF / "paper"))
def test_every_row_of_every_experiment_fits_the_schema(name: str) -> None:
    found = read_experiment(CONF / "paper", name)
    laptop = found.scales["laptop"]
    for row in found.rows:
        params = compose([*laptop.choices, *row.choices, *laptop.replicates[0]], CONF)
        assert set(found.metrics) <= set(params.task)
        for protocol, tasks in row.claimed.items():
            assert protocol in found.protocols
            for task, claims in tasks.items():
                assert set(claims) == set(found.metrics[task])
                assert all(0.5 < value <= 1 for value in claims.values())


def test_what_is_claimed_is_what_the_paper_prints() -> None:
    found = {row.name: row.claimed for row in read_experiment(CONF / "paper", "table2").rows}
    assert found["usfm"]["probe"]["breast"] == {
        "accuracy": 0.8239,
        "auroc": 0.8927,
        "sensitivity": 0.7091,
        "specificity": 0.9022,
    }
    assert found["avit"]["finetune"]["breast"]["auroc"] == 0.9742
    four = {row.name: row.claimed for row in read_experiment(CONF / "paper", "table4").rows}
    assert four["avit"]["finetune"]["lung"] == {"accuracy": 0.9144, "auroc": 0.9714}


def test_three_replicates_of_bus_bra_are_other_folds_and_seeds() -> None:
    found = read_experiment(CONF / "paper", "busbra").scales["busbra"]
    composed = [compose([*found.choices, *replicate], CONF) for replicate in found.replicates]
    assert [one.seed for one in composed] == [0, 1, 2]
    assert [one.data.splits["bus-bra"] for one in composed] == ["fold-1", "fold-2", "fold-3"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_overrides: list[str]) -> Path:
    """A folder with conf/ and an experiment of three rows, one of them without weights."""
    shutil.copytree(CONF, tmp_path / "conf")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    experiment = {
        "title": "A little table",
        "protocols": ["probe", "finetune"],
        "metrics": {"breast": ["auroc", "accuracy", "sensitivity", "specificity"]},
        "reference": "full",
        "audit": ["full"],
        "scales": {
            "tiny": {
                "choices": [*tiny_overrides, "pretrain.max_steps=2", "probe.neighbours=3"],
                "replicates": [["seed=0"], ["seed=1"]],
            }
        },
        "rows": [
            {"name": "supervised", "label": "Supervised", "baseline": "supervised"},
            {"name": "mae", "label": "MAE", "baseline": "mae"},
            {
                "name": "full",
                "label": "A-ViT",
                "claimed": {
                    "finetune": {
                        "breast": {"accuracy": 0.9366, "auroc": 0.9742, "sensitivity": 0.9455, "specificity": 0.9355}
                    }
                },
            },
        ],
    }
    (tmp_path / "conf" / "paper" / "little.yaml").write_text(yaml.safe_dump(experiment))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_is_measured_beside_the_claims_and_done_once(
    project: Path, tiny_corpus: Path, open_page: Callable[..., Any]
) -> None:
    paper("little", corpus=tiny_corpus, scale="tiny")
    folder = project / "out" / "paper" / "little-tiny"
    found = read_json(folder / "results.json")
    cells = {(c["protocol"], c["metric"], c["row"]): c for c in found["cells"]}
    assert {row for _, _, row in cells} == {"supervised", "full", "full, none", "full, shuffled"}
    one = cells["finetune", "auroc", "supervised"]
    assert one["interval"]["low"] <= one["interval"]["value"] <= one["interval"]["high"]
    assert one["spread"] is not None
    assert 0 <= one["p_value"] <= 1
    assert found["absent"] == {"mae": "no weights: arl baseline import mae FILE --out out/baselines/mae data.size=32"}
    kinds = [name.split("-")[0] for name in found["seconds"]]
    # two replicates of two rows; the reference is measured with three labels
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "supervised": 2,
        "pretrain": 2,
        "probe": 4,
        "finetune": 4,
        "evaluate": 8,
    }
    page = open_page(folder / "index.html")
    assert page.errors == page.requests == []
    assert page.overflow == 0
    for words in ("A little table", "A-ViT: wrong anatomy", "no weights", "0.974", "none"):
        assert words in page.text
    before = {path.name: path.stat().st_mtime_ns for path in (project / "runs" / "paper").iterdir()}
    paper("little", corpus=tiny_corpus, scale="tiny")
    after = {path.name: path.stat().st_mtime_ns for path in (project / "runs" / "paper").iterdir()}
    assert before == after
    assert read_json(folder / "results.json") == found


def test_wrong_words_and_files_are_refused(project: Path, tiny_corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown experiment 'table1': .* has busbra, figure4, little, table2"):
        paper("table1", corpus=tiny_corpus)
    with pytest.raises(ValueError, match="unknown scale 'huge': little has laptop, busbra, paper, tiny"):
        paper("little", corpus=tiny_corpus, scale="huge")
    file = project / "conf" / "paper" / "little.yaml"
    content = yaml.safe_load(file.read_text())
    for change, message in (
        ({"reference": "best"}, r"little\.yaml: 'best' is none of the rows supervised, mae, full"),
        ({"protocols": ["zero-shot"]}, "protocols .* are not among probe, finetune"),
        ({"colour": "blue"}, r"little\.yaml: .*colour"),
        ({"rows": content["rows"] * 2}, "a row's name is there twice"),
    ):
        file.write_text(yaml.safe_dump(content | change))
        with pytest.raises(ValueError, match=message):
            paper("little", corpus=tiny_corpus)

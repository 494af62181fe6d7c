"""`arl paper`: experiments at a scale of seconds."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from arl.commands.paper import paper
from arl.composition import compose
from arl.experiments.runner import LockedByAnotherProcess, Runner
from arl.experiments.spec import experiment_names, read_experiment
from arl.files import read_json
from arl.reports.experiment import consistency

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


@pytest.mark.parametrize("name", experiment_names(CONF / "paper"))
def test_every_row_of_every_experiment_fits_the_schema(name: str) -> None:
    found = read_experiment(CONF / "paper", name)
    laptop = found.scales["laptop"]
    for row in found.rows:
        params = compose([*laptop.choices, *row.choices, *laptop.replicates[0]], CONF)
        assert set(found.metrics) <= set(params.task)
        assert found.metrics or found.illustrations
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


def test_a_claim_is_checked_with_the_decimals_of_its_column() -> None:
    claim = {"accuracy": 0.8943, "sensitivity": 0.88, "specificity": 0.91}
    alone = consistency({"A-ViT": claim, "without specificity": {"accuracy": 0.9}})
    assert alone is not None
    assert alone.rows == [["A-ViT", 0.8943, 0.88, 0.91, "49 of 56 and 78 of 86"]]
    # Another row shows four decimals, so 0.88 is 0.8800.
    exact = {"accuracy": 0.8943, "sensitivity": 0.8831, "specificity": 0.9131}
    both = consistency({"A-ViT": claim, "other": exact})
    assert both is not None
    assert both.rows[0][-1] == "none"


def test_five_replicates_of_bus_bra_are_other_seeds_on_its_first_fold() -> None:
    found = read_experiment(CONF / "paper", "busbra").scales["busbra"]
    composed = [compose([*found.choices, *replicate], CONF) for replicate in found.replicates]
    assert [one.seed for one in composed] == [0, 1, 2, 3, 4]
    assert {one.data.splits["bus-bra"] for one in composed} == {"fold-1"}


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
                        "breast": {
                            "accuracy": 0.9366,
                            "auroc": 0.9742,
                            "sensitivity": 0.9455,
                            "specificity": 0.9355,
                        }
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
    assert found["absent"] == {
        "mae": "no weights: arl baseline import mae FILE --out out/baselines/mae data.size=32"
    }
    kinds = [one["name"].partition("-")[0] for one in found["times"]]
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
    for words in (
        "A little table",
        "A-ViT: wrong anatomy",
        "no weights",
        "0.974",
        "none",
        "the mean over 2 seeds",
    ):
        assert words in page.text
    assert page.text.count("The band is that of A-ViT. First seed.") == 2  # probe and fine-tuned
    rows = [
        line
        for line in (folder / "table.md").read_text().splitlines()
        if line.startswith("| Supervised")
    ]
    value, low, high = (one["interval"][name] for name in ("value", "low", "high"))
    assert (
        f"| {value:.3f} ({low:.3f} to {high:.3f}) | – | {one['each'][0]:.3f}, "
        f"{one['each'][1]:.3f} |" in rows[1]
    )
    before = {path.name: path.stat().st_mtime_ns for path in (project / "runs" / "paper").iterdir()}
    paper("little", corpus=tiny_corpus, scale="tiny")
    after = {path.name: path.stat().st_mtime_ns for path in (project / "runs" / "paper").iterdir()}
    assert before == after
    assert read_json(folder / "results.json") == found
    paper("little", corpus=tiny_corpus, scale="tiny", replicates=1, set=["pretrain.max_steps=3"])
    changed = read_json(folder / "results.json")
    assert changed["changes"] == ["pretrain.max_steps=3"]
    assert {len(cell["each"]) for cell in changed["cells"]} == {1}
    assert "--replicates 1 --set pretrain.max_steps=3" in (folder / "table.md").read_text()


def test_pictures_of_rows_are_on_the_page_with_their_numbers(
    project: Path, tiny_corpus: Path, open_page: Callable[..., Any]
) -> None:
    file = project / "conf" / "paper" / "little.yaml"
    content = yaml.safe_load(file.read_text())
    plain = {
        "name": "plain",
        "label": "MAE here",
        "choices": ["objective=mae", "model.conditioning=none"],
    }
    del content["metrics"], content["protocols"], content["audit"], content["reference"]
    illustrations = ["corpus", "components", "planes", "offsets", "reconstructions"]
    file.write_text(
        yaml.safe_dump(
            {**content, "illustrations": illustrations, "rows": [plain, content["rows"][2]]}
        )
    )
    paper("little", corpus=tiny_corpus, scale="tiny")
    folder = project / "out" / "paper" / "little-tiny"
    page = open_page(folder / "index.html")
    assert page.errors == page.requests == []
    assert page.overflow == 0
    for words in (
        "Corpus by anatomy",
        "Principal components",
        "Images on a plane",
        "Where ACDT samples",
        "completed",
    ):
        assert words in page.text
    found = read_json(folder / "results.json")
    assert found["cells"] == []
    assert [row[0] for row in found["tables"]["Masked images, completed"][1:]] == [
        "MAE here",
        "A-ViT",
    ]
    assert [row[1] for row in found["tables"]["Images on a plane"][1:]] == [
        "given",
        "no",
        "wrong",
    ] * 2
    written = (folder / "table.md").read_text()
    assert "| MAE here |" in written
    assert "A blurred picture has a large distance" in written


def test_all_experiments_of_the_paper_are_on_one_page_in_their_order(
    project: Path, tiny_corpus: Path, open_page: Callable[..., Any]
) -> None:
    for file in (project / "conf" / "paper").glob("[!_]*.yaml"):
        file.unlink()
    little = {
        "protocols": ["probe"],
        "metrics": {"breast": ["auroc"]},
        "reference": "random",
        "scales": {
            "laptop": {
                "choices": ["experiment=laptop", "data.size=24", "probe.neighbours=3"],
                "replicates": [["seed=0"]],
            }
        },
    }
    random = {"name": "random", "label": "Random", "baseline": "supervised"}
    for number, rows in {
        10: [random],
        2: [random, {"name": "mae", "label": "MAE", "baseline": "mae"}],
    }.items():
        content = little | {"title": f"Table {number}, a little one", "rows": rows}
        (project / "conf" / "paper" / f"table{number}.yaml").write_text(yaml.safe_dump(content))
    (project / "conf" / "paper" / "ours.yaml").write_text("not: of the paper")
    paper("all", corpus=tiny_corpus)
    folder = project / "out" / "paper"
    assert sorted(path.name for path in folder.iterdir()) == [
        "all-laptop",
        "table10-laptop",
        "table2-laptop",
    ]
    page = open_page(folder / "all-laptop" / "index.html")
    assert page.errors == page.requests == []
    assert page.overflow == 0
    text = page.text
    # what one experiment lacks is not told of another
    order = [
        "Table 2, a little one",
        "Table 2: breast, linear probe",
        "Table 2: Rows that",
        "Table 10: breast, linear",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "Table 10: Rows that" not in text
    anchors = re.findall(r'id="([^"]+)"', (folder / "all-laptop" / "index.html").read_text())
    assert len(anchors) == len(set(anchors))


def test_a_row_may_be_measured_by_fewer_protocols(project: Path, tiny_corpus: Path) -> None:
    file = project / "conf" / "paper" / "little.yaml"
    content = yaml.safe_load(file.read_text())
    probed = {"name": "probed", "label": "Probed", "baseline": "supervised", "protocols": ["probe"]}
    tuned = {"name": "tuned", "label": "Tuned", "baseline": "supervised", "protocols": ["finetune"]}
    file.write_text(
        yaml.safe_dump(content | {"rows": [probed, tuned], "reference": "tuned", "audit": []})
    )
    paper("little", corpus=tiny_corpus, scale="tiny", replicates=1)
    cells = read_json(project / "out" / "paper" / "little-tiny" / "results.json")["cells"]
    assert {(cell["protocol"], cell["row"]) for cell in cells} == {
        ("probe", "probed"),
        ("finetune", "tuned"),
    }


def test_what_needs_no_training_trains_nothing(project: Path, tiny_corpus: Path) -> None:
    paper("figure1c", corpus=tiny_corpus)
    folder = project / "out" / "paper" / "figure1c-laptop"
    shown = read_json(folder / "results.json")["tables"]["Corpus by anatomy"]
    assert shown == [
        ["anatomy", "images", "share"],
        ["breast", "30", "50.0%"],
        ["cardiac", "30", "50.0%"],
    ]
    assert "| breast | 30 | 50.0% |" in (folder / "table.md").read_text()
    assert not list((project / "runs").rglob("*.time.json"))


def test_an_encoder_without_a_decoder_cannot_complete_images(
    project: Path, tiny_corpus: Path
) -> None:
    file = project / "conf" / "paper" / "little.yaml"
    content = yaml.safe_load(file.read_text())
    rows = [{"name": "dino", "label": "DINO", "choices": ["objective=dino"]}]
    pictures = {
        "title": "x",
        "illustrations": ["reconstructions"],
        "rows": rows,
        "scales": content["scales"],
    }
    file.write_text(yaml.safe_dump(pictures))
    with pytest.raises(
        ValueError,
        match=r"pretrain-.* has no decoder: it was not pretrained here with masked images",
    ):
        paper("little", corpus=tiny_corpus, scale="tiny")


SCRIPT = """
import sys
from pathlib import Path
from arl.commands.paper import paper
paper("little", corpus=Path(sys.argv[1]), scale="tiny", out=Path(sys.argv[2]))
"""


def test_two_processes_share_the_work_and_write_the_same_table(
    project: Path, tiny_corpus: Path
) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tiny_corpus)]
    both = [subprocess.Popen([*words, name], cwd=project) for name in ("first", "second")]
    assert [process.wait(300) for process in both] == [0, 0]
    tables = [
        (project / name / "little-tiny" / "table.md").read_text() for name in ("first", "second")
    ]
    assert tables[0] == tables[1]
    finished = sorted(
        path.name for path in (project / "runs" / "paper").glob("pretrain-*.time.json")
    )
    assert len(finished) == 2
    began = [read_json(project / "runs" / "paper" / name) for name in finished]
    assert not any(one["resumed"] for one in began)


def test_what_another_process_is_making_is_left_to_it(project: Path, tiny_corpus: Path) -> None:
    runner = Runner(tiny_corpus, project / "work", project, [])

    def make(to: Path) -> None:
        with pytest.raises(LockedByAnotherProcess, match="thing-"):
            runner.cached("thing", [1], lambda _: pytest.fail("made twice"))
        to.mkdir()

    assert runner.cached("thing", [1], make).is_dir()
    assert [time.resumed for time in runner.times(runner.used)] == [False]


def test_a_killed_training_says_that_its_time_is_not_whole(
    project: Path, tiny_corpus: Path
) -> None:
    runner = Runner(tiny_corpus, project / "work", project, [])

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.cached("thing", [1], killed)
    assert runner.used == []
    runner.cached("thing", [1], lambda to: to.mkdir())
    assert [time.resumed for time in runner.times(runner.used)] == [True]


def test_other_labels_or_splits_are_other_data(
    project: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_corpus, copy)
    first = Runner(copy, project, project, []).content
    assert Runner(tiny_corpus, project, project, []).content == first
    file = next(copy.glob("*/*/splits/*.parquet"))
    pd.read_parquet(file).assign(split="train").to_parquet(file)
    assert Runner(copy, project, project, []).content != first


def test_wrong_words_and_files_are_refused(project: Path, tiny_corpus: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown experiment 'table1': .* has busbra, figure1c, .*, figure5, frozen, ",
    ):
        paper("table1", corpus=tiny_corpus)
    with pytest.raises(
        ValueError, match="unknown scale 'huge': little has laptop, busbra, paper, tiny"
    ):
        paper("little", corpus=tiny_corpus, scale="huge")
    with pytest.raises(
        ValueError, match=r"--set seed=3: the replicates of the scale differ in seed"
    ):
        paper("little", corpus=tiny_corpus, scale="tiny", set=["seed=3"])
    with pytest.raises(ValueError, match=r"--replicates 3: the scale has 1 to 2"):
        paper("little", corpus=tiny_corpus, scale="tiny", replicates=3)
    file = project / "conf" / "paper" / "little.yaml"
    content = yaml.safe_load(file.read_text())
    for change, message in (
        ({"reference": "best"}, r"little\.yaml: 'best' is none of the rows supervised, mae, full"),
        ({"protocols": ["zero-shot"]}, "protocols .* are not among probe, finetune"),
        ({"protocols": []}, "protocols .* have no metrics"),
        (
            {"illustrations": ["colours"]},
            "illustrations .*colours.*: expected some of corpus, components",
        ),
        ({"metrics": {}, "protocols": []}, "illustrations .* or metrics of tasks"),
        (
            {"metrics": {}, "protocols": [], "illustrations": ["planes"], "rows": [], "audit": []},
            "no rows whose encoders",
        ),
        ({"colour": "blue"}, r"little\.yaml: .*colour"),
        ({"rows": content["rows"] * 2}, "a row's name is there twice"),
        (
            {"rows": [content["rows"][2] | {"protocols": ["zero-shot"]}]},
            "row 'full' has protocols .* beyond",
        ),
    ):
        file.write_text(yaml.safe_dump(content | change))
        with pytest.raises(ValueError, match=message):
            paper("little", corpus=tiny_corpus)

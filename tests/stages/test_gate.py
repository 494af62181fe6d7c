import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arl.commands.testset import testset
from arl.evaluation.predictions import read_predictions, write_predictions
from arl.evaluation.results import Interval, read_metrics
from arl.files import tree_hash
from arl.params import Params

write_batch = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["write_batch"]
testset.__test__ = False  # the name begins like a test's
Runs = Callable[..., Any]


def test_a_first_release_is_judged_by_its_floors(
    lenient: Params, make_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(lenient)
    decision = run.judge()
    assert (decision.verdict, decision.champion) == ("promote", None)
    assert [reason.split(":")[0] for reason in decision.reasons] == ["breast", "lv"]
    assert decision.models == {
        task: tree_hash(run.folder / "models" / task) for task in ("breast", "lv")
    }
    assert "gate: promote\n  breast: there is no current model" in capsys.readouterr().out

    strict = {name: replace(task, floor=0.99) for name, task in lenient.task.items()}
    run.params = replace(lenient, task=strict)
    assert run.judge().verdict == "reject"


def test_the_champion_is_scored_on_the_same_images(lenient: Params, make_run: Runs) -> None:
    first, second = make_run(lenient, seed=0), make_run(lenient, seed=1)
    first.judge()
    version = first.publish().version
    decision = second.judge()
    assert decision.champion == version
    for task in ("breast", "lv"):
        measured = read_metrics(first.folder / "evaluations" / task)
        assert decision.tasks[task].champion.value == measured.main.value
        assert decision.tasks[task].difference is not None


def test_the_champion_against_itself_is_no_difference(lenient: Params, make_run: Runs) -> None:
    run = make_run(
        replace(lenient, task={n: replace(t, margin=1e-6) for n, t in lenient.task.items()})
    )
    run.judge()
    run.publish()
    decision = run.judge()
    assert decision.verdict == "promote"
    assert decision.tasks["breast"].difference == Interval(0, 0, 0)


def test_few_patients_are_inconclusive(lenient: Params, make_run: Runs) -> None:
    params = replace(lenient, task={n: replace(t, margin=1e-6) for n, t in lenient.task.items()})
    first, second = make_run(params, seed=0), make_run(params, seed=1)
    first.judge()
    first.publish()
    assert second.judge().verdict in ("inconclusive", "reject")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_and_says_why(
    lenient: Params, make_run: Runs, open_page: Callable[..., Any], width: int
) -> None:
    first, second = make_run(lenient, seed=0), make_run(lenient, seed=1)
    for run in (first, second):
        decision = run.judge()
        run.publish()
    opened = open_page(second.folder / "decision/index.html", width)
    assert (opened.errors, opened.requests, opened.overflow) == ([], [], 0)
    for words in [
        *decision.reasons,
        f"Compared with release {decision.champion}",
        "fewer than 20 patients",
    ]:
        assert words in opened.text


def test_a_rerun_writes_the_same_bytes(lenient: Params, make_run: Runs) -> None:
    first, second = make_run(lenient, seed=0), make_run(lenient, seed=1)
    first.judge()
    first.publish()
    hashes = set()
    for _ in range(2):
        second.judge()
        hashes.add(tree_hash(second.folder / "decision"))
    assert len(hashes) == 1


def test_synthetic_images_and_dropped_tasks_are_noted(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    run.judge()
    run.publish()
    table = run.folder / "evaluations/breast/predictions.parquet"
    write_predictions(read_predictions(table).assign(synthetic=True), table)
    run.params = replace(lenient, tasks=["breast"])
    notes = run.judge().notes
    assert notes == [
        "The current release also has lv, which the new one would lack.",
        "The test set of breast is not frozen, and whoever adds data can change it:"
        " `arl testset add`.",
        "Synthetic images in breast: these figures say nothing about patients.",
    ]


def test_only_the_tasks_that_run_count(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    run.params = replace(lenient, tasks=["lv"])
    assert list(run.judge().tasks) == ["lv"]


def test_an_image_without_prediction_is_refused(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    table = run.folder / "evaluations/breast/predictions.parquet"
    write_predictions(read_predictions(table)[1:], table)
    with pytest.raises(ValueError, match="lacks predictions of test images: evaluate again"):
        run.judge()


def test_what_the_gate_refuses(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    shutil.rmtree(run.folder / "evaluations/lv")
    with pytest.raises(ValueError, match=r"task 'lv' has no evaluation among .*evaluations/breast"):
        run.judge()
    run.params = replace(lenient, tasks=["breast"])
    run.make_model("breast")  # trained again, not evaluated again
    with pytest.raises(
        ValueError,
        match=r"evaluations/breast is the evaluation of another model than .*evaluate again",
    ):
        run.judge()
    assert not (run.folder / "decision").exists()


def test_a_tampered_champion_is_refused(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    run.judge()
    version = run.publish().version
    weights = run.registry / "versions" / version / "tasks/lv/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"tasks/lv/model\.safetensors is changed"):
        run.judge()


def test_a_decision_is_counted_once(lenient: Params, make_run: Runs) -> None:
    first, second, third = (make_run(lenient, seed=seed) for seed in range(3))
    assert first.judge().tasks["breast"].trial.number == 1
    first.publish()
    assert first.judge().tasks["breast"].trial.number == 2  # against itself
    numbers = [run.judge().tasks["breast"].trial.number for run in (second, third, second)]
    assert numbers == [3, 4, 3]
    trial = second.judge().tasks["breast"].trial
    assert (trial.limit, trial.frozen) == (lenient.gate.max_trials, False)
    assert trial.level < lenient.gate.alpha / 2


def test_a_frozen_test_set_judges_and_renewing_it_starts_the_count_again(
    lenient: Params, make_run: Runs, tiny_corpus: Path, tmp_path: Path
) -> None:
    run = make_run(lenient)
    corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "data"))
    run.corpus = corpus
    run.judge()
    for task in lenient.tasks:
        testset(lenient, "add", corpus=corpus, task=task, by="A. Reader", reason="first")
    decision = run.judge()
    trial = decision.tasks["breast"].trial
    assert (trial.frozen, trial.test_set, trial.number) == (True, "breast, version 1", 1)
    assert not any("not frozen" in note for note in decision.notes)
    with pytest.raises(ValueError, match="no image for a new test set of breast"):
        testset(lenient, "renew", corpus=corpus, task="breast", by="A. Reader", reason="used")


def test_other_test_images_than_the_champions_need_a_freeze(
    lenient: Params, make_run: Runs, tiny_corpus: Path, tmp_path: Path
) -> None:
    """Whoever adds data sets its split, so that new test images judge nothing by themselves."""
    first = make_run(lenient)
    first.judge()
    first.publish()
    second = make_run(lenient, seed=1)
    second.corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "data"))
    write_batch(second.corpus, "clinic", batch="0001", seed=5)
    second.measure()
    decision = second.judge()
    assert decision.verdict == "inconclusive"
    assert "no one has frozen them" in decision.reasons[0]
    for task in lenient.tasks:
        testset(lenient, "add", corpus=second.corpus, task=task, by="A", reason="looked at them")
    assert second.judge().verdict != "inconclusive"

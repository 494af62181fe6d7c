import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from arl.evaluation.results import Interval, read_metrics
from arl.files import tree_hash
from arl.params import Params

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
        assert decision.tasks[task].champion == Interval(**vars(measured.main))
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
    pd.read_parquet(table).assign(synthetic=True).to_parquet(table)
    run.params = replace(lenient, tasks=["breast"])
    notes = run.judge().notes
    assert notes == [
        "The current release also has lv, which the new one would lack.",
        "Synthetic images in breast: these figures say nothing about patients.",
    ]


def test_only_the_tasks_that_run_count(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    run.params = replace(lenient, tasks=["lv"])
    assert list(run.judge().tasks) == ["lv"]


def test_an_image_without_prediction_rejects(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    table = run.folder / "evaluations/breast/predictions.parquet"
    pd.read_parquet(table)[1:].to_parquet(table)
    decision = run.judge()
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith(
        "breast: the new model gives no prediction for 1 of 6 test images"
    )
    assert decision.tasks["breast"].difference is None


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

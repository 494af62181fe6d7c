from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from arl.corpus.selection import task_rows
from arl.evaluation.metrics import youden_threshold
from arl.evaluation.results import Metrics, read_metrics
from arl.files import tree_hash
from arl.params import Params
from arl.stages._scoring import score
from arl.stages.evaluate import evaluate
from arl.tasks.classification import Classification

Runs = Callable[..., Any]


def measured(run: Any, task: str) -> tuple[Metrics, pd.DataFrame]:
    folder = run.folder / "evaluations" / task
    return read_metrics(folder), pd.read_parquet(folder / "predictions.parquet")


def test_a_classification_is_measured_on_its_test_patients(
    lenient: Params, make_run: Runs, tiny_corpus: Path
) -> None:
    run = make_run(lenient)
    about, table = measured(run, "breast")
    rows = task_rows(
        tiny_corpus,
        sources=[],
        anatomy="breast",
        choose=Classification(("benign", "malignant")).select,
        description="",
        protocols={},
    ).set_index("id")
    assert set(table["id"]) == set(rows.index[rows["split"] == "test"])
    assert (
        rows.loc[table["id"], "label"] == np.where(table["label"] == 1, "malignant", "benign")
    ).all()
    assert list(table.columns) == [
        *["id", "patient", "site", "probe", "device", "synthetic"],
        *["label", "score_0", "score_1"],
    ]
    assert (about.images, about.patients, about.grouping, about.main_metric) == (
        6,
        6,
        "patient",
        "auroc",
    )
    assert about.synthetic is False
    assert about.model_hash == tree_hash(run.folder / "models/breast")
    expected = roc_auc_score(table["label"], table["score_1"])
    assert about.metrics["auroc"].value == pytest.approx(expected, abs=5e-5)
    assert set(about.slices["device"]) == {"scanner 0", "scanner 1"}


def test_the_confusion_matrix_follows_from_predictions_and_threshold(
    lenient: Params, make_run: Runs
) -> None:
    run = make_run(lenient)
    about, table = measured(run, "breast")
    called = (table["score_1"] >= about.threshold).astype(int)
    assert (
        np.array(about.confusion).tolist()
        == pd.crosstab(table["label"], called)
        .reindex(index=[0, 1], columns=[0, 1], fill_value=0)
        .to_numpy()
        .tolist()
    )
    (_, false_positive), (_, true_positive) = about.confusion
    positives = int((table["label"] == 1).sum())
    assert about.metrics["sensitivity"].value == pytest.approx(true_positive / positives, abs=5e-5)
    assert about.metrics["specificity"].value == pytest.approx(
        1 - false_positive / (len(table) - positives), abs=5e-5
    )


def test_the_threshold_is_of_validation_images(
    lenient: Params, make_run: Runs, tiny_corpus: Path
) -> None:
    run = make_run(lenient)
    about, _ = measured(run, "breast")
    settings = lenient.task["breast"]
    rows = task_rows(
        tiny_corpus,
        sources=[],
        anatomy="breast",
        choose=Classification(("benign", "malignant")).select,
        description="",
        protocols={},
    )
    validation = score(
        run.folder / "models/breast", tiny_corpus, rows[rows["split"] == "val"], settings
    )
    assert about.threshold == youden_threshold(validation["label"], validation["score_1"])


def test_a_segmentation_is_measured_by_image(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    about, table = measured(run, "lv")
    assert about.main_metric == "dice"
    assert about.threshold is None
    assert about.confusion is None
    assert about.metrics["dice"].value == pytest.approx(table["dice"].mean(), abs=5e-5)
    assert (table["iou"] <= table["dice"]).all()


def test_a_rerun_writes_the_same_bytes(lenient: Params, make_run: Runs) -> None:
    run = make_run(lenient)
    before = tree_hash(run.folder / "evaluations")
    run.measure()
    assert tree_hash(run.folder / "evaluations") == before


def test_a_model_with_undefined_weights_is_refused(
    lenient: Params, make_run: Runs, tiny_corpus: Path
) -> None:
    run = make_run(lenient)
    for task, name in {"breast": "head.linear.weight", "lv": "encoder.cls_token"}.items():
        file = run.folder / "models" / task / "model.safetensors"
        weights = load_file(file)
        weights[name] = torch.full_like(weights[name], float("nan"))
        save_file(weights, file)
        out = run.folder / "evaluation"
        message = (
            f"task {task}, model .*"
            if task == "lv"
            else "6 of 6 images have a score that is not a finite number"
        )
        with pytest.raises(ValueError, match=message):
            evaluate(lenient, task=task, corpus=tiny_corpus, model=file.parent, evaluation=out)
        assert not out.exists()


def test_models_and_tasks_that_do_not_fit(
    lenient: Params, make_run: Runs, tiny_corpus: Path, tmp_path: Path
) -> None:
    run = make_run(lenient)
    model = run.folder / "models/breast"
    where = {"corpus": tiny_corpus, "evaluation": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"unknown task 'spleen': params\.yaml defines breast"):
        evaluate(lenient, task="spleen", model=model, **where)
    with pytest.raises(
        ValueError,
        match="models/breast was made for another task: it needs label of the main task",
    ):
        evaluate(lenient, task="lv", model=model, **where)
    reverse = replace(lenient.task["breast"], classes=["malignant", "benign"])
    other = replace(lenient, task={**lenient.task, "breast": reverse})
    with pytest.raises(ValueError, match=r"the task has label .* one of malignant, benign"):
        evaluate(other, task="breast", model=model, **where)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        evaluate(
            lenient,
            task="breast",
            model=model,
            corpus=tmp_path / "nowhere",
            evaluation=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_an_audit_tells_the_model_another_anatomy(
    lenient: Params, make_run: Runs, tiny_corpus: Path
) -> None:
    run = make_run(lenient)
    model = run.folder / "models" / "breast"
    file = model / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    # the conditioning starts at zero, where no label matters
    weights = {
        name: torch.randn(tensor.shape, generator=generator)
        if ".deform." in name or ".anatomy." in name
        else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(weights, file)
    settings = lenient.task["breast"]
    rows = task_rows(
        tiny_corpus,
        sources=[],
        anatomy="breast",
        choose=Classification(("benign", "malignant")).select,
        description="",
        protocols={},
    )
    tables = {
        told: score(model, tiny_corpus, rows, settings, anatomy=told)
        for told in ("given", "none", "shuffled")
    }
    assert not np.allclose(tables["given"]["score_1"], tables["none"]["score_1"])
    assert not np.allclose(tables["given"]["score_1"], tables["shuffled"]["score_1"])
    thyroid = score(model, tiny_corpus, rows.assign(anatomy="thyroid"), settings)
    assert not (tables["shuffled"]["score_1"] == thyroid["score_1"]).all(), (
        "one other anatomy is no shuffle"
    )
    with pytest.raises(
        ValueError, match=r"evaluate\.anatomy 'true' is not given, none or shuffled"
    ):
        score(model, tiny_corpus, rows, settings, anatomy="true")

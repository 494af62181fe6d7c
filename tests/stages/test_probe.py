from dataclasses import replace
from pathlib import Path

import pytest

from arl.commands.probe import probe
from arl.evaluation.results import ProbeMetrics
from arl.params import Params
from arl.stages.finetune import finetune


def probed(
    params: Params, run: object, corpus: Path, folder: Path, task: str = "breast"
) -> ProbeMetrics:
    probe(
        params,
        task=task,
        corpus=corpus,
        checkpoint=run.folder / "pretrain",
        metrics=folder / "probe.json",
    )
    return ProbeMetrics.read(folder / "probe.json")


def test_frozen_features_are_measured_on_the_test_patients(
    lenient: Params, make_run, tiny_corpus, tmp_path
) -> None:
    run = make_run(lenient)
    found = probed(
        replace(lenient, probe=replace(lenient.probe, neighbours=5)), run, tiny_corpus, tmp_path
    )
    assert (found.images, found.patients, found.grouping) == (6, 6, "patient")
    for estimates in (found.linear, found.knn):
        auroc = estimates["auroc"]
        assert auroc.low is not None
        assert auroc.high is not None
        assert 0 <= auroc.low <= auroc.value <= auroc.high <= 1


def test_pooling_changes_the_features(lenient: Params, make_run, tiny_corpus, tmp_path) -> None:
    run = make_run(lenient)
    lenient = replace(lenient, probe=replace(lenient.probe, neighbours=5))
    gap = probed(lenient, run, tiny_corpus, tmp_path)
    cls = probed(
        replace(lenient, probe=replace(lenient.probe, pooling="cls")), run, tiny_corpus, tmp_path
    )
    assert gap.linear["brier"] != cls.linear["brier"]


def test_a_segmentation_has_no_probe(lenient: Params, make_run, tiny_corpus, tmp_path) -> None:
    with pytest.raises(ValueError, match="'lv' is no classification"):
        probed(lenient, make_run(lenient), tiny_corpus, tmp_path, task="lv")


def test_another_image_size_than_the_encoder_reads_is_an_error(
    lenient: Params, make_run, tiny_corpus, tmp_path
) -> None:
    run = make_run(lenient)
    larger = replace(lenient, data=replace(lenient.data, size=2 * lenient.data.size))
    with pytest.raises(ValueError, match=f"data.size is {larger.data.size}, but the encoder of"):
        probed(larger, run, tiny_corpus, tmp_path)
    with pytest.raises(ValueError, match=f"set data.size={lenient.data.size}"):
        finetune(
            larger,
            task="breast",
            corpus=tiny_corpus,
            checkpoint=run.folder / "pretrain",
            model=tmp_path / "model",
        )

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from arl.corpus.shard_reader import RowGroupIndex
from arl.files import read_json, tree_hash
from arl.params import Params
from arl.stages.finetune import finetune
from arl.stages.pretrain import _pool, pretrain
from arl.training.checkpoint import load_encoder
from arl.training.finetuner import FineTuner
from arl.training.task_models import load_task_model


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def checkpoint(tiny_params: Params, tiny_corpus: Path, tmp_path: Path) -> Path:
    pretrain(
        tiny_params,
        corpus=tiny_corpus,
        checkpoint=tmp_path / "pretrain",
        metrics=tmp_path / "pretrain.json",
    )
    return tmp_path / "pretrain"


def test_pretraining_leaves_an_encoder_and_its_history(checkpoint: Path, runs: Path) -> None:
    encoder, config = load_encoder(checkpoint)
    assert encoder.embed_dim == 24
    assert config.size == 32
    metrics = read_json(checkpoint.with_suffix(".json"))
    assert [record["step"] for record in metrics["history"]] == [1, 2, 3]
    assert {"loss", "mim", "sd", "d", "lambda", "teacher_entropy", "grad_norm"} <= set(
        metrics["final"]
    )
    assert metrics["images"] == 36  # the training patients' only
    assert list(runs.glob("pretrain-*")) == []
    assert len(list(runs.glob("tensorboard/pretrain-*/events*"))) == 1


def test_measuring_the_features_does_not_change_the_weights(
    checkpoint: Path, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    settings = replace(tiny_params.pretrain, eval_every=2, eval_images=30)
    files = {"checkpoint": tmp_path / "examined", "metrics": tmp_path / "examined.json"}
    pretrain(replace(tiny_params, pretrain=settings), corpus=tiny_corpus, **files)
    assert tree_hash(files["checkpoint"]) == tree_hash(checkpoint)
    evaluated, plain = read_json(files["metrics"]), read_json(checkpoint.with_suffix(".json"))
    assert evaluated["history"] == plain["history"]
    # The default measures after the last step only, since it has fewer steps than eval_every.
    assert [row["step"] for row in plain["features"]] == [3]
    assert [row["step"] for row in evaluated["features"]] == [2, 3]
    for row in evaluated["features"]:
        assert 1 <= row["rankme"] <= 24
        assert 0 <= row["knn"] <= 1


def test_the_pool_lies_in_few_row_groups() -> None:
    """13 of 1,000 row groups of 31 images give 97 images; a pool of all images needs all groups."""
    rows = pd.DataFrame(
        {"source": "s", "batch": "b", "shard": "shard-00000.parquet"}, index=range(32_000)
    )
    rows = rows.assign(row=rows.index)[rows.index % 32 > 0]  # a row group holds 32
    layout = RowGroupIndex.from_rows(rows)
    pool = _pool(layout, 97, seed=3)
    groups, counts = np.unique(layout.group[pool], return_counts=True)
    assert sorted(counts.tolist()) == [1, *[8] * 12]
    assert groups.std() > 100  # of 0..999, not neighbours
    assert (np.diff(pool) > 0).all()
    assert not np.array_equal(pool, _pool(layout, 97, seed=4))
    assert _pool(layout, len(rows), seed=3).tolist() == list(range(len(rows)))


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # dynamo looks at every attribute
@pytest.mark.parametrize("changes", [{"grad_checkpointing": True}, {"compile": True}])
def test_how_blocks_are_run_does_not_matter(
    checkpoint: Path,
    tiny_params: Params,
    tiny_corpus: Path,
    tmp_path: Path,
    changes: dict[str, bool],
) -> None:
    files = {"checkpoint": tmp_path / "other", "metrics": tmp_path / "other.json"}
    pretrain(
        replace(tiny_params, pretrain=replace(tiny_params.pretrain, **changes)),
        corpus=tiny_corpus,
        **files,
    )
    expected = read_json(checkpoint.with_suffix(".json"))["final"]["loss"]
    assert read_json(files["metrics"])["final"]["loss"] == pytest.approx(expected, rel=1e-4)


def test_pretraining_again_gives_the_same_bytes(
    checkpoint: Path, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    pretrain(tiny_params, corpus=tiny_corpus, checkpoint=again, metrics=tmp_path / "again.json")
    assert tree_hash(again) == tree_hash(checkpoint)
    assert (tmp_path / "again.json").read_text() == (tmp_path / "pretrain.json").read_text()


def test_another_seed_gives_other_weights(
    checkpoint: Path, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    pretrain(
        replace(tiny_params, seed=1),
        corpus=tiny_corpus,
        checkpoint=other,
        metrics=tmp_path / "other.json",
    )
    assert tree_hash(other) != tree_hash(checkpoint)


@pytest.mark.parametrize(("task", "shape"), [("breast", (2, 2)), ("lv", (2, 1, 32, 32))])
def test_fine_tuning_leaves_a_model_of_the_task(
    checkpoint: Path,
    tiny_params: Params,
    tiny_corpus: Path,
    tmp_path: Path,
    task: str,
    shape: tuple[int, ...],
) -> None:
    finetune(
        tiny_params, task=task, corpus=tiny_corpus, checkpoint=checkpoint, model=tmp_path / task
    )
    model, config = load_task_model(tmp_path / task)
    assert config.name == task
    assert model(torch.zeros(2, 1, 32, 32), torch.tensor([3, 3])).shape == shape
    pretrained, _ = load_encoder(checkpoint)
    assert not torch.equal(
        model.encoder.blocks[0].mlp.fc1.weight, pretrained.blocks[0].mlp.fc1.weight
    )


def test_fine_tuning_that_was_killed_goes_on_to_the_same_bytes(
    checkpoint: Path,
    tiny_params: Params,
    tiny_corpus: Path,
    tmp_path: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = replace(
        tiny_params, finetune=replace(tiny_params.finetune, checkpoint_every=1, epochs=2)
    )
    arguments = {"task": "breast", "corpus": tiny_corpus, "checkpoint": checkpoint}
    finetune(params, **arguments, model=tmp_path / "whole")
    assert list(runs.glob("finetune-*")) == []

    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "after_step", _die_after(2))
        with pytest.raises(KeyboardInterrupt):
            finetune(params, **arguments, model=tmp_path / "killed")
    assert max(folder.name for folder in runs.glob("finetune-breast-*/step-*")) == "step-00000002"
    finetune(params, **arguments, model=tmp_path / "killed")
    assert tree_hash(tmp_path / "killed") == tree_hash(tmp_path / "whole")


def _die_after(steps: int) -> Callable[[FineTuner, float], None]:
    left = iter(range(steps))

    def after_step(self: FineTuner, progress: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return after_step


def test_an_unknown_task_is_refused(
    checkpoint: Path, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="unknown task 'spleen'"):
        finetune(
            tiny_params,
            task="spleen",
            corpus=tiny_corpus,
            checkpoint=checkpoint,
            model=tmp_path / "m",
        )


def test_a_task_model_is_no_encoder(
    checkpoint: Path, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="holds an encoder, expected the model of a task"):
        load_task_model(checkpoint)


def test_a_truncated_model_is_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated"):
        load_encoder(checkpoint)


def test_too_few_images_for_a_batch(tiny_params: Params, tiny_corpus: Path, tmp_path: Path) -> None:
    large = replace(tiny_params, pretrain=replace(tiny_params.pretrain, batch_size=64))
    with pytest.raises(ValueError, match="36 training images are fewer than one batch of 64"):
        pretrain(large, corpus=tiny_corpus, checkpoint=tmp_path / "c", metrics=tmp_path / "m.json")

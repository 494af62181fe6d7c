"""Batches: the same after a restart and for any number of ranks, every example once, tensors as promised."""

from pathlib import Path

import numpy as np
import pytest
import torch

from arl.data import manifest
from arl.data.anatomy import NULL_ANATOMY, anatomy_index
from arl.data.loader import Examples, TrainingOrder, evaluation_batches, training_batches
from arl.data.shards import BatchWriter

COUNT = 23


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    with BatchWriter(root, "s", "0000", 64, licence="", citation="") as batch:
        for number in range(COUNT):
            mask = np.zeros((10, 20), bool)
            mask[: number % 11] = True
            batch.accept(
                np.full((10, 20), number, np.uint8),
                key=str(number),
                anatomy="other" if number % 2 else "lung",
                label=(None, "benign", "malignant", "normal")[number % 4],
                mask=mask if number % 3 else None,
                mask_name="lesion" if number % 3 else None,
            )
    return root


@pytest.fixture(scope="module")
def examples(corpus: Path) -> Examples:
    return Examples(corpus, manifest.read_manifest(corpus), 20, classes=["benign", "malignant"], masks=True)


def test_a_batch_holds_what_the_rows_say(examples: Examples) -> None:
    batch = examples.take(np.array([5, 2, 3]))
    assert batch.image.shape == (3, 1, 20, 20)
    assert batch.image.dtype == torch.uint8
    assert batch.image[:, 0, 0, 0].tolist() == [5, 2, 3]
    assert batch.extent.tolist() == [[10, 20]] * 3
    assert batch.anatomy.tolist() == [NULL_ANATOMY, anatomy_index("lung"), NULL_ANATOMY]
    assert batch.label.tolist() == [0, 1, -1]  # benign, malignant, a class that was not asked for
    assert examples.take(np.array([0])).label.tolist() == [-1]
    assert batch.mask is not None
    assert batch.mask.sum((1, 2, 3)).tolist() == [5 * 20, 2 * 20, 0]
    assert batch.index.tolist() == [5, 2, 3]
    assert {batch.extent.dtype, batch.anatomy.dtype, batch.label.dtype, batch.index.dtype} == {torch.int64}


def test_no_masks_unless_asked_for(corpus: Path) -> None:
    examples = Examples(corpus, manifest.read_manifest(corpus), 8)
    assert examples.take(np.arange(2)).mask is None


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    order = TrainingOrder(length=20, batch_size=5, seed=3)
    epochs = [np.concatenate([order.indices(step) for step in range(start, start + 4)]) for start in (0, 4)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert TrainingOrder(20, 5, seed=4).indices(0).tolist() != order.indices(0).tolist()


def test_the_incomplete_batch_is_dropped_in_training_only(examples: Examples) -> None:
    order = TrainingOrder(COUNT, 5, seed=0)
    assert order.steps_per_epoch == 4
    seen = torch.cat([batch.index for batch in training_batches(examples, order, 0, 4)])
    assert len(seen.unique()) == 20
    read = torch.cat([batch.index for batch in evaluation_batches(examples, 5)])
    assert read.tolist() == list(range(COUNT))


def test_a_restart_at_any_step_sees_the_same_batches(examples: Examples) -> None:
    order = TrainingOrder(COUNT, 4, seed=7)
    whole = [batch.index.tolist() for batch in training_batches(examples, order, 0, 17)]
    for start in range(17):
        again = TrainingOrder(COUNT, 4, seed=7)
        assert [batch.index.tolist() for batch in training_batches(examples, again, start, 17)] == whole[start:]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_the_global_batch(world: int) -> None:
    for step in range(9):
        slices = [TrainingOrder(COUNT, 6, 1, rank, world).indices(step) for rank in range(world)]
        assert np.concatenate(slices).tolist() == TrainingOrder(COUNT, 6, 1).indices(step).tolist()


def test_what_cannot_be_ordered() -> None:
    with pytest.raises(ValueError, match="batch size 5 cannot be divided over 2 ranks"):
        TrainingOrder(10, 5, 0, 0, 2)
    with pytest.raises(ValueError, match="4 training images are fewer than one batch of 5"):
        TrainingOrder(4, 5, 0)

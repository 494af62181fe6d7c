"""Batches: equal after a restart and for any number of ranks; every example once."""

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from arl.corpus import manifest
from arl.corpus.anatomy import NULL_ANATOMY, anatomy_index
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_reader import RowGroupIndex
from arl.corpus.shard_writer import BatchWriter
from arl.loading.loader import (
    LANES,
    WINDOW,
    Examples,
    TrainingOrder,
    evaluation_batches,
    training_batches,
)

COUNT = 23


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    with BatchWriter(root, "s", "0000", 64, origin=BatchOrigin(licence="", citation="")) as batch:
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
    rows = manifest.read_manifest(corpus)
    targets = rows["label"].map({"benign": 0, "malignant": 1}).fillna(-1).to_numpy(np.int64)
    return Examples(corpus, rows, 20, targets=targets, masks=True)


def test_a_batch_holds_what_the_rows_say(examples: Examples) -> None:
    batch = examples.take(np.array([5, 2, 3]))
    assert batch.image.shape == (3, 1, 20, 20)
    assert batch.image.dtype == torch.uint8
    assert batch.image[:, 0, 0, 0].tolist() == [5, 2, 3]
    assert batch.extent.tolist() == [[10, 20]] * 3
    assert batch.anatomy.tolist() == [NULL_ANATOMY, anatomy_index("lung"), NULL_ANATOMY]
    assert batch.target.tolist() == [0, 1, -1]
    assert examples.take(np.array([0])).target.tolist() == [-1]
    assert batch.mask is not None
    assert batch.mask.sum((1, 2, 3)).tolist() == [5 * 20, 2 * 20, 0]
    assert batch.index.tolist() == [5, 2, 3]
    assert {batch.extent.dtype, batch.anatomy.dtype, batch.target.dtype, batch.index.dtype} == {
        torch.int64
    }


def test_no_masks_unless_asked_for(corpus: Path) -> None:
    examples = Examples(corpus, manifest.read_manifest(corpus), 8)
    assert examples.take(np.arange(2)).mask is None


def layout(*counts: int) -> RowGroupIndex:
    """Row groups of these sizes."""
    group = np.repeat(np.arange(len(counts)), counts)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    places = [("s/0000/shard-00000.parquet", number) for number in range(len(counts))]
    return RowGroupIndex(places, group, np.arange(len(group)), np.arange(len(group)), bounds)


def epoch(order: TrainingOrder, number: int) -> list[int]:
    steps = range(number * order.steps_per_epoch, (number + 1) * order.steps_per_epoch)
    return np.concatenate([order.indices(step) for step in steps]).tolist()


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    order = TrainingOrder(layout(7, 5, 8), batch_size=5, seed=3)
    epochs = [epoch(order, number) for number in range(2)]
    assert all(sorted(rows) == list(range(20)) for rows in epochs)
    assert epochs[0] != epochs[1]
    assert (
        TrainingOrder(layout(7, 5, 8), 5, seed=4).indices(0).tolist() != order.indices(0).tolist()
    )


@pytest.mark.parametrize(("batch_size", "groups"), [(64, 700), (48, 700), (7, 300), (1, 60)])
def test_large_epochs_see_every_row_at_most_once_and_leave_out_less_than_a_batch(
    batch_size: int, groups: int
) -> None:
    rng = np.random.default_rng(batch_size)
    order = TrainingOrder(layout(*rng.integers(1, 33, groups).tolist()), batch_size, seed=1)
    left_out = []
    for number in (0, 1):
        rows = epoch(order, number)
        assert len(rows) == len(set(rows)) == order.steps_per_epoch * batch_size
        assert len(order.layout) - len(rows) < batch_size
        left_out.append(set(range(len(order.layout))) - set(rows))
    assert left_out[0] != left_out[1] or not left_out[0]


def test_rows_of_one_group_are_spread_over_many_batches() -> None:
    order = TrainingOrder(layout(*[32] * 1024), batch_size=64, seed=0)
    batch_of = np.empty(len(order.layout), int)
    batch_of[epoch(order, 0)] = np.repeat(np.arange(order.steps_per_epoch), 64)
    spread = [len(set(batch_of[order.layout.rows(group)])) for group in range(1024)]
    assert np.mean(spread) > 29  # of 32
    neighbours = np.abs(np.diff(epoch(order, 0)))
    assert (neighbours == 1).mean() < 0.01


def test_reading_stays_within_a_window_of_row_groups() -> None:
    """A cache of two windows has to read each row group once."""
    order = TrainingOrder(layout(*[32] * 3000), batch_size=64, seed=0)
    cache: OrderedDict[int, None] = OrderedDict()
    reads = []
    for step in range(order.steps_per_epoch):
        before = len(reads)
        for group in order.layout.group[order.indices(step)].tolist():
            if group not in cache:
                reads.append(group)
            cache[group] = None
            cache.move_to_end(group)
            if len(cache) > 2 * LANES * WINDOW // 32:
                cache.popitem(last=False)
        # evenly, once the first windows are full: not all lanes at once
        assert step < 64 or len(reads) - before < 24
    assert len(reads) < 3000 + 3 * LANES


def test_a_rank_reads_its_own_row_groups() -> None:
    groups = layout(*[32] * 2000)
    read = []
    for rank in range(4):
        order = TrainingOrder(groups, 64, 0, rank, 4)
        steps = range(order.steps_per_epoch)
        read.append(
            {group for step in steps for group in groups.group[order.indices(step)].tolist()}
        )
    assert (
        sum(map(len, read)) < 2000 + 2 * LANES
    )  # a lane's first and last row group belong to its neighbours too


def test_the_incomplete_batch_is_dropped_in_training_only(examples: Examples) -> None:
    order = TrainingOrder(examples.layout, 5, seed=0)
    assert order.steps_per_epoch == 4
    seen = torch.cat(
        [micro_batch.batch.index for micro_batch in training_batches(examples, order, 0, 4)]
    )
    assert len(seen.unique()) == 20
    read = torch.cat([batch.index for batch in evaluation_batches(examples, 5)])
    assert read.tolist() == list(range(COUNT))


def test_a_restart_at_any_step_sees_the_same_batches(examples: Examples, corpus: Path) -> None:
    order = TrainingOrder(examples.layout, 4, seed=7)
    whole = [
        micro_batch.batch.index.tolist() for micro_batch in training_batches(examples, order, 0, 17)
    ]
    for start in range(17):
        again = TrainingOrder(RowGroupIndex.from_rows(manifest.read_manifest(corpus)), 4, seed=7)
        assert [
            micro_batch.batch.index.tolist()
            for micro_batch in training_batches(examples, again, start, 17)
        ] == whole[start:]


def test_accumulated_micro_batches_of_two_ranks_make_up_the_global_batch(
    examples: Examples,
) -> None:
    whole = next(iter(training_batches(examples, TrainingOrder(examples.layout, 12, seed=7), 3, 4)))
    parts = [
        micro_batch
        for rank in range(2)
        for micro_batch in training_batches(
            examples,
            TrainingOrder(examples.layout, 12, 7, rank, 2),
            3,
            4,
            gradient_accumulation_steps=3,
        )
    ]
    assert [micro_batch.step for micro_batch in parts] == [3] * 6
    assert [
        (micro_batch.rank_slice.rank, micro_batch.rank_slice.world) for micro_batch in parts
    ] == [(number, 6) for number in range(6)]
    assert torch.equal(
        torch.cat([micro_batch.batch.index for micro_batch in parts]), whole.batch.index
    )


def test_batches_read_ahead_are_the_batches_asked_for(examples: Examples) -> None:
    asked = [np.array([number, 0]) for number in range(COUNT)]
    assert [batch.index.tolist() for batch in examples.batches(iter(asked))] == [
        index.tolist() for index in asked
    ]


def test_an_error_of_the_reading_thread_reaches_the_loop_and_the_thread_ends(
    examples: Examples, corpus: Path, tmp_path: Path
) -> None:
    absent = Examples(tmp_path, manifest.read_manifest(corpus), 8)
    with pytest.raises(FileNotFoundError, match="the manifest of its batch names it"):
        next(absent.batches([np.arange(2)]))
    begun = examples.batches(np.arange(2) for _ in range(1000))
    next(begun)
    begun.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_the_global_batch(world: int) -> None:
    groups = layout(5, 9, 3, 6)
    for step in range(9):
        slices = [TrainingOrder(groups, 6, 1, rank, world).indices(step) for rank in range(world)]
        assert np.concatenate(slices).tolist() == TrainingOrder(groups, 6, 1).indices(step).tolist()


def test_what_cannot_be_ordered() -> None:
    with pytest.raises(ValueError, match="batch size 5 cannot be divided over 2 ranks"):
        TrainingOrder(layout(10), 5, 0, 0, 2)
    with pytest.raises(ValueError, match="4 training images are fewer than one batch of 5"):
        TrainingOrder(layout(4), 5, 0)

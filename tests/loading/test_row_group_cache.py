"""Stored images, read back: exact, letterboxed, within the memory given."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.manifest import read_manifest
from arl.corpus.shard_reader import ROWS_PER_GROUP, SHARD_SCHEMA, RowGroupIndex, read_images
from arl.corpus.shard_writer import BatchWriter
from arl.loading import row_group_cache as module
from arl.loading.row_group_cache import RowGroupCache

COUNT = 3 * ROWS_PER_GROUP + 7


def writer(corpus: Path, batch: str = "0000", **options: int) -> BatchWriter:
    return BatchWriter(
        corpus,
        "probe-set",
        batch,
        512,
        origin=BatchOrigin(licence="CC0", citation="Nobody 2020"),
        **options,
    )


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of images of one grey level each, over several shards and row groups."""
    root = tmp_path_factory.mktemp("corpus")
    for batch in ("0000", "0001"):
        with writer(root, batch, shard_bytes=1) as writing:
            for number in range(COUNT):
                image = np.full((6, 12), number + 100 * int(batch), np.uint8)
                writing.accept(image, key=f"{batch}-{number}", anatomy="lung")
    return root


def test_a_layout_says_which_rows_lie_together(corpus: Path) -> None:
    rows = read_manifest(corpus).sample(frac=0.6, random_state=0)
    layout = RowGroupIndex.from_rows(rows)
    assert sorted(layout.members.tolist()) == list(range(len(rows)))
    for group, (shard, number) in enumerate(layout.row_groups):
        part = rows.iloc[layout.rows(group)]
        assert set(part["source"] + "/" + part["batch"] + "/" + part["shard"]) == {shard}
        assert (part["row"] // ROWS_PER_GROUP == number).all()
        assert (layout.row_in_group[layout.rows(group)] == part["row"] % ROWS_PER_GROUP).all()
        assert (layout.group[layout.rows(group)] == group).all()


@pytest.mark.parametrize("memory", [0, 40 * 12 * 12, 1 << 20])
def test_any_rows_in_any_order_within_any_memory(corpus: Path, memory: int) -> None:
    rows = read_manifest(corpus)
    cache = RowGroupCache(corpus, rows, 12, memory=memory)
    rng = np.random.default_rng(1)
    for _ in range(9):
        index = rng.integers(0, len(rows), 50)
        canvases = cache.take(index)
        level = index % COUNT + 100 * (index // COUNT)
        assert (canvases.images[:, :6] == level[:, None, None]).all()
        assert not canvases.images[:, 6:].any()
        assert canvases.extents.tolist() == [[6, 12]] * 50
    held = sum(group.result().images.nbytes for group in cache._row_groups.values())
    assert held <= memory
    assert held == cache._num_canvases * 12 * 12


def test_what_was_decoded_is_decoded_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_manifest(corpus)
    cache = RowGroupCache(corpus, rows, 12)
    first = cache.take(np.arange(len(rows)))
    monkeypatch.setattr(module, "RowGroup", None)  # any reading would fail
    assert np.array_equal(cache.take(np.arange(len(rows))).images, first.images)


def test_the_row_groups_used_longest_ago_go_first(corpus: Path) -> None:
    rows = read_manifest(corpus)
    cache = RowGroupCache(corpus, rows, 12, memory=2 * ROWS_PER_GROUP * 12 * 12)
    for row in (0, ROWS_PER_GROUP, 0, 2 * ROWS_PER_GROUP):
        cache.take(np.array([row]))
    assert list(cache._row_groups) == cache.layout.group[[0, 2 * ROWS_PER_GROUP]].tolist()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.accept(noise(64, 64), key="a", anatomy="lung")
    file = tmp_path / "probe-set/0000/shard-00000.parquet"
    table = pq.read_table(file)
    for height, message in (
        (63, "4096 stored bytes are not 63 x 64 pixels"),
        (32, "4096 stored bytes are not 32 x 64"),
    ):
        pq.write_table(
            table.set_column(1, SHARD_SCHEMA.field("height"), [pd.array([height], "int32")]), file
        )
        with pytest.raises(ValueError, match=rf"shard-00000.parquet, image probe-set:a: {message}"):
            read_images(tmp_path, read_manifest(tmp_path))


def test_unreadable_shards_are_named(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.accept(noise(64, 64), key="a", anatomy="lung")
    rows = read_manifest(tmp_path)
    file = tmp_path / "probe-set/0000/shard-00000.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"shard-00000.parquet: row group 0 is not readable"):
        read_images(tmp_path, rows)
    place = len(whole) // 2  # in the pixels
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(
        ValueError, match=r"shard-00000.parquet: row group 0 is not readable: .*checksum"
    ):
        read_images(tmp_path, rows)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="the manifest of its batch names it"):
        read_images(tmp_path, rows)


def test_stretched_canvases_are_filled(tmp_path: Path) -> None:
    wide, mask = np.tile(np.arange(40, dtype=np.uint8) * 6, (20, 1)), np.zeros((20, 40), bool)
    mask[:10] = True
    with writer(tmp_path) as batch:
        batch.accept(wide, key="wide", anatomy="lung", mask=mask, mask_name="pleura")
    cache = RowGroupCache(tmp_path, read_manifest(tmp_path), 32, masks=True, stretched=True)
    canvases = cache.take(np.array([0]))
    assert canvases.masks is not None
    assert canvases.extents.tolist() == [[32, 32]]
    assert canvases.masks[0].sum() == 16 * 32
    assert canvases.masks[0, :16].all()
    assert np.array_equal(
        canvases.images[0], cv2.resize(wide, (32, 32), interpolation=cv2.INTER_LINEAR)
    )
    assert canvases.images[0, 0, -1] > 220


def test_canvases_are_letterboxed_in_the_corner(tmp_path: Path) -> None:
    wide, tall = np.full((20, 40), 200, np.uint8), np.full((64, 32), 100, np.uint8)
    mask = np.zeros((20, 40), bool)
    mask[:10] = True
    with writer(tmp_path) as batch:
        batch.accept(wide, key="wide", anatomy="lung", mask=mask, mask_name="pleura")
        batch.accept(tall, key="tall", anatomy="lung")
    rows = read_manifest(tmp_path)
    cache = RowGroupCache(tmp_path, rows, 32, masks=True)
    canvases = cache.take(np.array([0, 1]))
    assert canvases.masks is not None
    assert canvases.extents.tolist() == [[16, 32], [32, 16]]
    assert (canvases.images[0, :16] == 200).all()
    assert not canvases.images[0, 16:].any()
    assert canvases.masks[0].sum() == 8 * 32
    assert (canvases.images[1, :, :16] == 100).all()
    assert not canvases.images[1, :, 16:].any()
    assert not canvases.masks[1].any()
    assert canvases.images.transpose(
        0, 2, 1
    ).flags.c_contiguous  # column by column, as `resample` reads them

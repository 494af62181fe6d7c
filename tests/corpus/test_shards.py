"""Writing and reading batches: exact pixels, whole or absent, the same bytes each time."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.pixels import difference_hash, perceptual_hash, pixel_sha256
from arl.corpus.record import Label
from arl.corpus.shard_reader import read_images, read_masks, read_shard
from arl.corpus.shard_writer import BatchWriter
from arl.files import tree_hash


def writer(corpus: Path, batch: str = "0000", store_size: int = 512, **options: int) -> BatchWriter:
    return BatchWriter(
        corpus,
        "probe-set",
        batch,
        store_size,
        origin=BatchOrigin(licence="CC0", citation="Nobody 2020"),
        **options,
    )


def noise(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_images_and_masks_come_back_exactly(tmp_path: Path) -> None:
    grey, colour = noise(37, 53), noise(41, 29, 3)
    mask = noise(37, 53, seed=1) > 127
    with writer(tmp_path) as batch:
        assert (
            batch.accept(grey, key="a", anatomy="breast", mask=mask, mask_name="lesion")
            == "probe-set:a"
        )
        batch.accept(colour, key="b", anatomy="liver", color_doppler=True)
    rows = manifest.read_manifest(tmp_path)
    assert np.array_equal(read_images(tmp_path, rows, channels=3)[1], colour)
    stored = read_images(tmp_path, rows)
    assert np.array_equal(stored[0], grey)
    assert np.array_equal(stored[1], cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))
    masks = read_masks(tmp_path, rows)
    assert masks[1] is None
    assert np.array_equal(masks[0], mask)


def test_manifest_row_tells_what_was_stored(tmp_path: Path) -> None:
    image = noise(90, 60)
    with writer(tmp_path, store_size=45) as batch:
        batch.accept(
            image,
            key="k",
            anatomy="breast",
            patient="7",
            clip="c",
            pixel_spacing_mm=0.25,
            device="ACME Ray",
        )
    row = manifest.read_manifest(tmp_path).iloc[0]
    stored = cv2.resize(image, (30, 45), interpolation=cv2.INTER_AREA)
    assert (row["height"], row["width"], row["original_height"], row["original_width"]) == (
        45,
        30,
        90,
        60,
    )
    assert row["patient"] == "probe-set:7"
    assert row["clip"] == "probe-set:c"
    assert row["site"] == "probe-set"
    assert row["pixel_spacing_mm"] == pytest.approx(0.5)
    assert row["mean"] == pytest.approx(stored.mean(), rel=1e-6)
    assert row["std"] == pytest.approx(stored.std(), rel=1e-6)
    assert row["pixel_sha256"] == pixel_sha256(stored)
    assert (row["perceptual_hash"], row["difference_hash"]) == (
        perceptual_hash(stored),
        difference_hash(stored),
    )


def test_equal_channels_are_stored_once_and_small_images_are_not_scaled_up(tmp_path: Path) -> None:
    grey = noise(11, 13)
    with writer(tmp_path) as batch:
        batch.accept(np.dstack([grey] * 3), key="k", anatomy="other")
    shard = read_shard(tmp_path / "probe-set/0000/shard-00000.parquet")
    assert shard[["height", "width"]].values.tolist() == [[11, 13]]
    assert len(shard["image"][0]) == 11 * 13
    assert np.array_equal(read_images(tmp_path, manifest.read_manifest(tmp_path))[0], grey)


def test_masks_are_scaled_without_new_values(tmp_path: Path) -> None:
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:70] = True
    with writer(tmp_path, store_size=25) as batch:
        batch.accept(noise(80, 100), key="k", anatomy="breast", mask=mask, mask_name="lesion")
    stored = read_masks(tmp_path, manifest.read_manifest(tmp_path))[0]
    assert stored is not None
    assert stored.shape == (20, 25)
    assert stored.mean() == pytest.approx(mask.mean(), abs=0.02)


def test_any_order_and_any_subset_of_rows_over_several_shards(tmp_path: Path) -> None:
    images = [noise(23, 19, seed=seed) for seed in range(101)]
    with writer(tmp_path, shard_bytes=20_000) as batch:
        for number, image in enumerate(images):
            batch.accept(image, key=str(number), anatomy="breast")
    rows = manifest.read_manifest(tmp_path)
    assert rows["shard"].nunique() > 1
    for shard, part in rows.groupby("shard"):
        assert (
            read_shard(tmp_path / "probe-set/0000" / str(shard))["id"].tolist()
            == part["id"].tolist()
        )
    chosen = np.random.default_rng(3).permutation(101)[:47]
    for number, image in zip(chosen, read_images(tmp_path, rows.iloc[chosen]), strict=True):
        assert np.array_equal(image, images[number])


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for corpus in ("one", "two"):
        with writer(tmp_path / corpus, shard_bytes=20_000) as batch:
            for number in range(70):
                identifier = batch.accept(
                    noise(20, 20, seed=number), key=str(number), anatomy="breast", patient="p"
                )
                batch.split("official", identifier, "test")
            batch.refuse("x", "broken")
    assert tree_hash(tmp_path / "one") == tree_hash(tmp_path / "two")


def test_counts_add_up_and_refused_inputs_are_kept(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.expect(3)
        for frame in range(2):
            batch.accept(
                noise(8, 8), key=f"clip-{frame}", input_name="clip", anatomy="lung", frame=frame
            )
        batch.refuse("torn", "it is truncated")
        batch.accept(noise(8, 8), key="still", anatomy="lung")
    summary = json.loads((tmp_path / "probe-set/0000/batch.json").read_text())
    assert [summary[name] for name in ("num_inputs", "accepted", "refused", "images")] == [
        3,
        2,
        1,
        3,
    ]
    refused = manifest.read_quarantine(tmp_path)
    assert refused[["input", "reason"]].values.tolist() == [["torn", "it is truncated"]]


def test_refusing_an_input_takes_its_images_back(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="good", anatomy="lung")
        for frame in range(5):
            identifier = batch.accept(
                noise(8, 8), key=f"f{frame}", input_name="clip", anatomy="lung"
            )
            batch.split("default", identifier, "train")
        batch.refuse("clip", "frame 5 is truncated")
        batch.split("default", "probe-set:good", "val")
        batch.accept(noise(8, 8), key="f0", anatomy="lung")  # the id is free again
        batch.split("default", "probe-set:f0", "val")
    rows = manifest.read_manifest(tmp_path)
    assert rows["id"].tolist() == ["probe-set:good", "probe-set:f0"]
    assert rows["row"].tolist() == [0, 1]


def test_a_lost_input_is_an_error(tmp_path: Path) -> None:
    batch = writer(tmp_path)
    batch.expect(2)
    with pytest.raises(ValueError, match="1 inputs are accepted and 0 refused of 2 given"), batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung")
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"key": "a"}, "duplicate id 'probe-set:a'"),
        ({"anatomy": "elbow"}, "unknown anatomy 'elbow'"),
        ({"probe": "round"}, "probe 'round'"),
        ({"image": np.zeros((4, 4), np.uint16)}, r"uint16 \(4, 4\)"),
        ({"image": np.zeros((0, 4), np.uint8)}, r"\(0, 4\)"),
        ({"mask": np.zeros((3, 4), bool), "mask_name": "lesion"}, r"bool \(3, 4\)"),
        ({"mask": np.zeros((8, 8), bool)}, "come together"),
    ],
)
def test_what_cannot_be_accepted(tmp_path: Path, problem: dict, message: str) -> None:
    given = {"image": noise(8, 8), "key": "b", "anatomy": "lung", **problem}
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung")
        with pytest.raises(ValueError, match=message):
            batch.accept(given.pop("image"), **given)
    assert manifest.read_manifest(tmp_path)["id"].tolist() == ["probe-set:a"]


def accept_two(batch: BatchWriter) -> None:
    """The second without the split that the first has."""
    batch.accept(noise(8, 8), key="a", anatomy="lung", splits={"official": "train"})
    batch.accept(noise(8, 8), key="b", anatomy="lung")


def test_splits_name_only_accepted_images_and_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of"), writer(tmp_path) as batch:
        batch.split("default", "probe-set:a", "train")
    batch = writer(tmp_path)
    with pytest.raises(ValueError, match="'official' gives no split for probe-set:b"), batch:
        accept_two(batch)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> None:
        with writer(tmp_path, shard_bytes=1) as batch:
            for number in range(40):
                batch.accept(noise(8, 8), key=str(number), anatomy="lung")
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        fails()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_batch_is_written_once(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung")
    before = tree_hash(tmp_path / "probe-set/0000")
    with pytest.raises(ValueError, match=r"0000 exists: a batch is written once"), writer(tmp_path):
        pass
    with writer(tmp_path, batch="0001") as batch:
        batch.accept(noise(8, 8), key="b", anatomy="lung")
    assert tree_hash(tmp_path / "probe-set/0000") == before
    assert manifest.read_manifest(tmp_path)["batch"].tolist() == ["0000", "0001"]


_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from arl.corpus.shard_reader import read_images, read_masks, read_shard
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_writer import BatchWriter
with BatchWriter(Path(sys.argv[1]), "probe-set", "0000", 64,
        origin=BatchOrigin(licence="", citation=""), shard_bytes=1) as batch:
    for number in range(100):
        batch.accept(np.full((9, 9), number, np.uint8), key=str(number), anatomy="lung")
        if number == 80:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_nothing_that_is_trusted_and_a_rerun_succeeds(
    tmp_path: Path,
) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("shard-*"))  # it had begun
    with pytest.raises(FileNotFoundError, match="no complete batch"):
        manifest.read_manifest(tmp_path)
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung")
    assert len(manifest.read_manifest(tmp_path)) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_a_torn_folder_of_a_killed_writer_is_not_a_batch(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung")
    (tmp_path / "probe-set/0000").rename(tmp_path / "probe-set/.0000.partial")
    with pytest.raises(FileNotFoundError, match="no complete batch"):
        manifest.batch_folders(tmp_path)


def test_the_writer_does_not_hold_the_images(tmp_path: Path) -> None:
    """120 noise images of 0.36 MB each, far more than what the writer may keep."""
    image = noise(600, 600)
    with writer(tmp_path, store_size=600, shard_bytes=8 << 20) as batch:
        for number in range(40):  # one full row group: pools have their size
            batch.accept(np.roll(image, number), key=str(number), anatomy="lung")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(40, 160):
            batch.accept(np.roll(image, number), key=str(number), anatomy="lung")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 25_000  # KiB


def test_manifest_columns_are_the_schema(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.refuse("x", "empty")
    rows = manifest.read_manifest(tmp_path)
    assert isinstance(rows, pd.DataFrame)
    assert rows.columns.tolist() == manifest.SCHEMA.names
    assert rows.empty


def test_labels_of_every_kind_are_read_back(tmp_path: Path) -> None:
    labels = {
        "severity": Label("2", "clip"),
        "ejection_fraction": Label(55.5, "exam"),
        "pcr": Label("positive", "patient"),
    }
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung", exam="e", labels=labels)
        batch.accept(noise(8, 9), key="b", anatomy="lung")
    lines = manifest.read_labels(tmp_path).set_index("name")
    assert lines["id"].unique().tolist() == ["probe-set:a"]
    assert lines["level"].to_dict() == {
        "ejection_fraction": "exam",
        "pcr": "patient",
        "severity": "clip",
    }
    assert lines["number"].dropna().to_dict() == {"ejection_fraction": 55.5}
    assert lines["text"].dropna().to_dict() == {"pcr": "positive", "severity": "2"}
    assert manifest.read_manifest(tmp_path, ["exam"])["exam"].dropna().tolist() == ["probe-set:e"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("A lines", Label("yes")),
        ("a_lines", Label("")),
        ("ef", Label(float("nan"))),
        ("ef", Label(1.0, "study")),  # type: ignore[arg-type]
    ],
)
def test_a_label_without_a_plain_name_or_a_value_is_refused(
    tmp_path: Path, name: str, label: Label
) -> None:
    with pytest.raises(ValueError, match="label"), writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung", labels={name: label})


def test_a_batch_of_an_earlier_version_reads_with_nulls(tmp_path: Path) -> None:
    with writer(tmp_path) as batch:
        batch.accept(noise(8, 8), key="a", anatomy="lung", labels={"grade": Label("2")})
    file = tmp_path / "probe-set/0000/manifest.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["exam", "labels"]), file)
    rows = manifest.read_manifest(tmp_path)
    assert rows[["exam", "labels"]].isna().all().all()
    assert rows.columns.tolist() == manifest.SCHEMA.names
    assert manifest.read_labels(tmp_path).empty

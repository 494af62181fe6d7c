"""Splits: no group is in two splits, and nothing moves when a batch is added."""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arl.corpus import manifest, splits
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_writer import BatchWriter


def random_rows(seed: int) -> pd.DataFrame:
    """Rows with patients, clips, both or none."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 300))
    patients = [f"s:p{value}" if value < 40 else None for value in random.integers(0, 60, count)]
    clips = [f"s:c{value}" if value < 30 else None for value in random.integers(0, 40, count)]
    return pd.DataFrame(
        {"id": [f"s:{n}" for n in range(count)], "patient": patients, "clip": clips}, dtype="str"
    )


@pytest.mark.parametrize("seed", range(25))
def test_no_group_is_in_two_splits(seed: int) -> None:
    rows = random_rows(seed)
    ids, _ = splits.split_by_patient(rows, seed=seed)
    assert sorted(chain.from_iterable(ids.values())) == sorted(rows["id"])
    chosen = rows["id"].map(
        {identifier: split for split, members in ids.items() for identifier in members}
    )
    assert (chosen.groupby(splits.groups(rows)).nunique() == 1).all()


@pytest.mark.parametrize("seed", range(10))
def test_adding_rows_moves_nobody(seed: int) -> None:
    rows = random_rows(seed)
    before, _ = splits.split_by_patient(rows.iloc[::2])
    after, _ = splits.split_by_patient(rows.iloc[::-1])
    for split, members in before.items():
        assert set(members) <= set(after[split])


def test_shares_are_met_on_average_and_the_seed_matters() -> None:
    rows = pd.DataFrame({"id": [f"s:{n}" for n in range(20_000)], "patient": None, "clip": None})
    ids, _ = splits.split_by_patient(rows, fractions=(0.6, 0.3, 0.1))
    assert [len(ids[split]) / 20_000 for split in manifest.SPLITS] == pytest.approx(
        [0.6, 0.3, 0.1], abs=0.015
    )
    other, _ = splits.split_by_patient(rows, seed=1, fractions=(0.6, 0.3, 0.1))
    assert len(set(ids["test"]) & set(other["test"])) < 400  # 200 by chance


def test_the_assignment_is_fixed_for_ever() -> None:
    known = ["val", "train", "train", "train", "train", "val", "train", "train"]
    assert [splits.assign(f"bus-bra:{case}") for case in range(8)] == known


@pytest.mark.parametrize(
    ("patients", "clips", "expected"),
    [
        (["a", "b"], [None, None], "patient"),
        (["a", None], [None, None], "image"),
        ([None, None], ["c", "d"], "clip"),
        (["a", None], [None, "d"], "clip"),
        ([None, None], ["c", None], "image"),
        ([None, None], [None, None], "image"),
    ],
)
def test_it_says_what_was_kept_together(patients: list, clips: list, expected: str) -> None:
    rows = pd.DataFrame({"id": ["1", "2"], "patient": patients, "clip": clips}, dtype="str")
    assert splits.split_by_patient(rows)[1] == expected


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_fractions_that_are_none(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative and must sum to 1"):
        splits.split_by_patient(random_rows(0), fractions=fractions)


def two_sources(corpus: Path) -> pd.DataFrame:
    for source in ("first", "second"):
        with BatchWriter(
            corpus,
            source,
            "0000",
            32,
            origin=BatchOrigin(licence="", citation=""),
        ) as batch:
            for number in range(6):
                image = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
                identifier = batch.accept(image, key=str(number), anatomy="lung")
                if source == "second":
                    batch.split("official", identifier, manifest.SPLITS[number % 3])
    return manifest.read_manifest(corpus)


def test_read_split_follows_the_index_of_the_rows(tmp_path: Path) -> None:
    rows = two_sources(tmp_path)
    shuffled = rows.sample(frac=1, random_state=5)
    read = splits.read_split(tmp_path, shuffled, {"second": "official"})
    assert read.index.equals(shuffled.index)
    second = rows["source"] == "second"
    assert read.sort_index()[second].tolist() == ["train", "val", "test"] * 2
    expected = [splits.assign(identifier) for identifier in rows.loc[~second, "id"]]
    assert read.sort_index()[~second].tolist() == expected
    assert splits.read_split(tmp_path, rows.iloc[:0], {}).empty


def test_a_protocol_that_a_batch_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    rows = two_sources(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"first/0000/splits/official.parquet does not exist: .* not one of default$",
    ):
        splits.read_split(tmp_path, rows, {"first": "official"})


def test_a_row_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    rows = two_sources(tmp_path)
    rows.loc[8, "id"] = "second:new"
    with pytest.raises(
        ValueError, match=r"default.parquet gives no split for 1 rows, e.g. second:new"
    ):
        splits.read_split(tmp_path, rows, {})


def test_an_official_test_part_stays_and_the_rest_gives_val() -> None:
    assert {splits.keep_test("test", f"g{n}") for n in range(50)} == {"test"}
    chosen = [splits.keep_test("train", f"g{n}") for n in range(2000)]
    assert set(chosen) == {"train", "val"}
    assert 0.13 < chosen.count("val") / 2000 < 0.17


def test_stratified_gives_every_class_its_share_and_divides_no_group() -> None:
    labels = {f"k{n}": "malignant" if n < 34 else "benign" for n in range(400)}
    groups = {key: f"g{int(key[1:]) // 2}" for key in labels}  # pairs of one class
    split = splits.stratified(labels, groups)
    assert split == splits.stratified(dict(reversed(labels.items())), groups)
    for label, total in (("malignant", 34), ("benign", 366)):
        held = [split[key] for key in labels if labels[key] == label]
        for name, share in zip(("train", "val", "test"), splits.FRACTIONS, strict=True):
            assert abs(held.count(name) - share * total) <= 2  # one group
    assert all(split[f"k{n}"] == split[f"k{n + 1}"] for n in range(0, 400, 2))


def test_stratified_keeps_a_group_of_several_classes_whole() -> None:
    labels = {"a": "benign", "b": "malignant", "c": "benign"}
    split = splits.stratified(labels, {"a": "p", "b": "p", "c": "q"})
    assert split["a"] == split["b"]
    assert splits.stratified({}, {}) == {}

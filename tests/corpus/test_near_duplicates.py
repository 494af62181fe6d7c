"""The search finds every pair that brute force finds; clusters stay on one side."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arl.corpus.near_duplicates import (
    CONFIRM_DETAIL,
    clusters,
    contradictory_clusters,
    duplicate_clusters,
    merge_duplicate_groups,
    near_duplicates,
    near_pairs,
)


def flipped(hashes: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Each hash with `bits` different bits changed."""
    places = rng.permuted(np.tile(np.arange(64), (len(hashes), 1)), axis=1)[:, :bits]
    return hashes ^ np.bitwise_or.reduce(np.uint64(1) << places.astype(np.uint64), axis=1)


def brute(hashes: np.ndarray, group: np.ndarray, radius: int) -> list[list[int]]:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= radius
    near &= group[:, None] != group[None]
    return np.argwhere(np.triu(near, 1)).tolist()


@pytest.fixture(scope="module")
def hashes() -> np.ndarray:
    """Random hashes with neighbours at distances 0 to 9, and a crowd that differs in low bits."""
    rng = np.random.default_rng(5)
    base = rng.integers(0, 1 << 63, 300, dtype=np.uint64)
    crowd = np.uint64(0xABCDEF0123456789) ^ rng.integers(0, 1 << 12, 150, dtype=np.uint64)
    return np.concatenate([base, *(flipped(base, bits, rng) for bits in range(10)), crowd])


@pytest.mark.parametrize("radius", [0, 1, 3, 6, 7])
def test_all_pairs_within_the_radius_and_no_others(hashes: np.ndarray, radius: int) -> None:
    group = np.arange(len(hashes)) // 2
    found = near_pairs(hashes, group, radius)
    assert found.tolist() == brute(hashes, group, radius)
    assert len(found) > 300 * radius


def test_a_radius_that_would_miss_pairs_is_refused(hashes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="radius 8 is not 0 to 7"):
        near_pairs(hashes, np.arange(len(hashes)), 8)


def test_no_hashes_no_pairs() -> None:
    empty = near_pairs(np.empty(0, np.uint64), np.empty(0, np.int64))
    assert empty.shape == (0, 2)
    assert clusters(0, empty).tolist() == []


def test_clusters_are_connected_and_named_by_their_first() -> None:
    assert clusters(7, np.array([[1, 4], [4, 6], [2, 3]])).tolist() == [0, 1, 2, 2, 1, 5, 1]


def table(*rows: tuple[str, str | None, str | None, str | None, int, int]) -> pd.DataFrame:
    """id, clip, label, split, both hashes; each pair of equal hashes has equal pixels."""
    columns = ["id", "clip", "label", "split", "perceptual_hash", "difference_hash"]
    frame = pd.DataFrame(rows, columns=columns).astype(
        {"perceptual_hash": "uint64", "difference_hash": "uint64"}
    )
    pixels = frame["perceptual_hash"].astype(str) + frame["difference_hash"].astype(str)
    return frame.assign(
        source=frame["id"].str.split(":").str[0],
        patient=None,
        pixel_sha256=pixels,
        detail_hash=None,
    )


def test_both_hashes_must_be_near() -> None:
    rows = table(
        ("a:1", None, None, "train", 0, 0),
        ("a:2", None, None, "test", 63, 0),
        ("a:3", None, None, "test", 0, (1 << 11) - 1),
    )
    assert near_duplicates(rows).tolist() == [[0, 1]]


def test_the_detail_must_agree_where_it_is_known() -> None:
    rows = table(*((f"a:{i}", None, None, "train", 0, 0) for i in range(4)))
    far = (1 << (CONFIRM_DETAIL + 1)) - 1
    rows["detail_hash"] = [bytes(128), far.to_bytes(128), (far >> 1).to_bytes(128), None]
    assert near_duplicates(rows).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_frames_of_a_clip_are_never_compared() -> None:
    rows = table(
        ("a:1", "c", None, "train", 7, 7),
        ("a:2", "c", None, "train", 7, 7),
        ("a:3", "c", None, "train", 6, 7),
    )
    assert near_duplicates(rows).tolist() == []
    assert duplicate_clusters(rows).empty


def test_test_outranks_val_outranks_train_and_clips_go_whole() -> None:
    rows = table(
        ("a:1", None, "x", "train", 0, 0),
        ("a:2", None, "x", "val", 1, 0),
        ("b:3", None, "y", "test", 3, 0),
        ("c:4", "clip", None, "train", 7, 0),
        ("c:5", "clip", None, "train", 1 << 40, 0),  # a frame unlike the others goes with its clip
        ("d:6", None, "x", "train", 0xFF << 20, 0),
        ("d:7", None, "x", "train", 0xFF << 20, 0),  # alike, but on one side
        ("e:8", None, "x", "val", 0xFF << 50, 0),
        ("e:9", None, "x", "train", 0xFF << 50, 1),
        ("f:10", None, "x", "train", 0xF0F << 30, 0),
    )
    found = duplicate_clusters(rows).set_index("id")
    assert set(found.index[found["withheld"]]) == {"a:1", "a:2", "c:4", "c:5", "e:9"}
    assert found.loc[["a:1", "a:2", "b:3", "c:4"], "cluster"].tolist() == ["a:1"] * 4
    assert set(found.index[found["exact"]]) == {"d:6", "d:7"}
    assert "f:10" not in found.index
    mixed = contradictory_clusters(found.reset_index())
    assert mixed.values.tolist() == [["a:1", "x, y", 3]]


def test_every_copy_takes_the_cluster_of_its_representative() -> None:
    """A patient has one picture twice in train, and another patient has it in test."""
    rows = table(
        ("a:1", "p", "x", "train", 5, 5),
        ("a:2", "q", None, "train", 0xFF << 20, 0),
        ("a:3", "p", "x", "train", 5, 5),
        ("b:4", "r", "x", "test", 5, 5),
    )
    # The clips of one patient are one group, so only one of its equal rows is compared.
    rows["patient"] = ["a:A", "a:A", "a:A", "b:B"]
    rows["clip"] = None
    members = duplicate_clusters(rows).set_index("id")
    assert set(members.index[members["withheld"]]) == {"a:1", "a:3"}
    assert members["cluster"].tolist() == ["a:1"] * 3


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ABC"),
            st.sampled_from([0, 1, 7, 0xFF << 20]),
            st.sampled_from(["train", "val", "test"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_equal_pixels_are_in_one_split_after_withholding(
    images: list[tuple[str, int, str]],
) -> None:
    rows = table(
        *((f"a:{i}", None, None, split, code, 0) for i, (_, code, split) in enumerate(images))
    )
    rows["patient"] = [patient for patient, _, _ in images]
    members = duplicate_clusters(rows)
    kept = rows[~rows["id"].isin(members.loc[members["withheld"], "id"])]
    # Patients are not divided by a real split, so copies inside a patient are out of scope here.
    across = kept.groupby("perceptual_hash").filter(lambda part: part["patient"].nunique() > 1)
    assert (across.groupby("perceptual_hash")["split"].nunique() <= 1).all()


def test_an_image_without_a_split_is_on_no_side() -> None:
    rows = table(("a:1", None, None, None, 0, 0), ("a:2", None, None, "test", 0, 0))
    assert duplicate_clusters(rows)["withheld"].tolist() == [False, False]


def test_near_identical_images_without_patients_are_one_group() -> None:
    rows = table(
        ("a:1", None, None, None, 0, 0),
        ("a:2", "c", None, None, 1, 0),
        ("a:3", "c", None, None, 1 << 40, 0),
        ("a:4", None, None, None, 1 << 41 | 1 << 40, 0),
        ("a:5", None, None, None, 0xFF, 0),
        ("a:6", None, None, None, 0, 0),
    )
    rows.loc[5, "patient"] = "a:p"  # knows better
    assert merge_duplicate_groups(rows).tolist() == ["a:1", "a:1", "a:1", "a:1", "a:5", "a:p"]

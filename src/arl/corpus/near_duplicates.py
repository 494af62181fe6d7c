"""Near-identical images on both sides of a split, over all sources.

Two images are near-identical if their perceptual hashes (pHash) differ in at most `RADIUS` of 64
bits, their difference hashes (dHash) in at most `CONFIRM`, and their detail hashes in at most
`CONFIRM_DETAIL` of 1,024. Two copies of one image have all distances 0. Batches of earlier versions
have no detail hash; there the first two decide. Images of one group (patient, else clip) are
similar by nature and are never compared.

The search is exact. Split 64 bits into four parts of 16: if two hashes differ in at most 7 bits,
one of the parts differs in at most one bit (pigeonhole). So each hash is compared with those in 17
of 65,536 buckets, four times.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from arl.corpus.manifest import SPLITS
from arl.corpus.splits import groups
from arl.progress import progress

# Bits of 64 in which the perceptual hashes may differ.
RADIUS = 6
# Bits of 64 in which the difference hashes may differ.
CONFIRM = 10
# Bits of 1,024 in which the detail hashes may differ. Consecutive frames of a clip differ in at
# most 283 (3,000 pairs of COVID-BLUES; 0.5 % in more than 193), and copies with another gamma,
# contrast, size or JPEG quality in at most 164. Of 2,220 pairs of different patients with
# near pHash and dHash, 99 % differ in more than 248.
CONFIRM_DETAIL = 236
_PARTS, _BITS = 4, 16
_BUCKETS = 1 << _BITS
# Buckets that a thread takes at a time.
_BUCKETS_PER_TASK = 1024
# Pairs compared at a time, so that they stay in the processor's cache.
_PAIRS_PER_BLOCK = 1 << 17
# Searches among fewer images finish before a progress bar is of use.
_PROGRESS_IMAGES = 200_000

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
# (P, 2), the lower index first.
Pairs = npt.NDArray[np.int64]


def near_pairs(hashes: Hashes, group: Integers, radius: int = RADIUS) -> Pairs:
    """All pairs of different groups whose hashes (N,) differ in at most `radius` bits, sorted.

    Raises:
        ValueError: The radius is above 7, where the search would miss pairs.
    """
    if not 0 <= radius < 2 * _PARTS:
        raise ValueError(
            f"radius {radius} is not 0 to {2 * _PARTS - 1}: "
            f"a search by {_PARTS} parts of the hash would miss pairs"
        )
    interleaved = _interleave(hashes)
    visible = len(hashes) > _PROGRESS_IMAGES
    pairs_of_buckets = [np.empty((0, 2), np.int64)]
    with (
        ThreadPoolExecutor() as pool,
        progress(_PARTS, "near pairs", "part", visible=visible) as bar,
    ):
        for part in range(_PARTS):
            index = _BucketIndex(interleaved, part)
            tasks = np.array_split(index.keys, -(-len(index.keys) // _BUCKETS_PER_TASK) or 1)
            for pairs in pool.map(
                lambda keys, index=index: _pairs_of_buckets(index, keys.tolist(), group, radius),
                tasks,
            ):
                pairs_of_buckets.append(pairs)
            bar.update(1)
    pairs = np.sort(np.concatenate(pairs_of_buckets), axis=1)
    ordered: Pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def _interleave(hashes: Hashes) -> Hashes:
    """Deal the bits out to the parts in turn.

    Neighbouring bits of a pHash are neighbouring frequencies, which correlate: contiguous parts
    would fill few buckets.
    """
    interleaved = np.zeros_like(hashes)
    for bit in range(64):
        target = np.uint64(bit % _PARTS * _BITS + bit // _PARTS)
        interleaved |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << target
    return interleaved


class _BucketIndex:
    """Hashes sorted by one of their parts; a bucket holds the hashes that share this part."""

    def __init__(self, interleaved: Hashes, part: int) -> None:
        self.part = part
        key = _part(interleaved, part)
        self.order = np.argsort(key, kind="stable")
        self.hashes = interleaved[self.order]
        counts = np.bincount(key, minlength=_BUCKETS)
        self.keys = np.flatnonzero(counts)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).tolist()

    def bucket(self, key: int) -> slice:
        """Positions of the hashes in a bucket."""
        return slice(self.starts[key], self.starts[key + 1])


def _part(interleaved: Hashes, part: int) -> npt.NDArray[np.uint16]:
    return (interleaved >> np.uint64(part * _BITS)).astype(np.uint16)


def _pairs_of_buckets(index: _BucketIndex, keys: list[int], group: Integers, radius: int) -> Pairs:
    """Near pairs of different groups in these buckets that no earlier part has found."""
    pairs_of_buckets = [pairs for key in keys for pairs in _pairs_of_bucket(index, key, radius)]
    if not pairs_of_buckets:
        return np.empty((0, 2), np.int64)
    pairs = np.concatenate(pairs_of_buckets)
    is_new = np.ones(len(pairs), bool)
    difference = index.hashes[pairs[:, 0]] ^ index.hashes[pairs[:, 1]]
    for part in range(index.part):
        is_new &= np.bitwise_count(_part(difference, part)) > 1
    pairs = index.order[pairs[is_new]]
    across_groups: Pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
    return across_groups


def _pairs_of_bucket(index: _BucketIndex, key: int, radius: int) -> Iterator[Pairs]:
    """Near pairs inside a bucket, and with the buckets whose key has one more bit set."""
    own = index.bucket(key)
    count = own.stop - own.start
    others = [index.bucket(key | 1 << bit) for bit in range(_BITS) if not key >> bit & 1]
    positions = np.concatenate([np.arange(part.start, part.stop) for part in (own, *others)])
    step = max(1, _PAIRS_PER_BLOCK // len(positions))
    for begin in range(0, count, step):
        rows = np.arange(own.start + begin, min(own.start + begin + step, own.stop))
        near = np.bitwise_count(index.hashes[rows, None] ^ index.hashes[positions]) <= radius
        # Each pair inside the bucket only once.
        near[:, :count] &= rows[:, None] < positions[:count]
        row, column = near.nonzero()
        if len(row):
            yield np.stack([rows[row], positions[column]], axis=1)


def near_duplicates(rows: pd.DataFrame) -> Pairs:
    """Positions of near-identical images of different groups.

    Of equal hashes in a group, only the first row is compared; see `representatives`.

    Args:
        rows: Manifest rows with at least id, patient, clip and the three hashes.
    """
    group = pd.factorize(groups(rows))[0].astype(np.int64)
    perceptual = rows["perceptual_hash"].to_numpy(np.uint64)
    difference = rows["difference_hash"].to_numpy(np.uint64)
    first = np.unique(representatives(rows))
    pairs = first[near_pairs(perceptual[first], group[first])]
    distance = np.bitwise_count(difference[pairs[:, 0]] ^ difference[pairs[:, 1]])
    confirmed: Pairs = pairs[distance <= CONFIRM]
    return confirmed[_same_detail(rows["detail_hash"], confirmed)]


def _same_detail(hashes: "pd.Series[bytes]", pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Whether the detail hashes of each pair agree; unknown hashes agree with any."""
    same = np.ones(len(pairs), bool)
    has_hash = hashes.notna().to_numpy()
    both = np.flatnonzero(has_hash[pairs].all(axis=1))
    for begin in range(0, len(both), _PAIRS_PER_BLOCK):
        part = both[begin : begin + _PAIRS_PER_BLOCK]
        first, second = (
            np.frombuffer(b"".join(hashes.iloc[pairs[part, side]]), np.uint64).reshape(-1, 16)
            for side in (0, 1)
        )
        same[part] = np.bitwise_count(first ^ second).sum(axis=1) <= CONFIRM_DETAIL
    return same


def representatives(rows: pd.DataFrame) -> Integers:
    """For each row, the position of the first row of its group with the same hashes."""
    keys = [groups(rows), rows["perceptual_hash"], rows["difference_hash"]]
    positions = pd.Series(np.arange(len(rows)), index=rows.index)
    first: Integers = positions.groupby(keys, sort=False).transform("first").to_numpy(np.int64)
    return first


def clusters(count: int, pairs: Pairs) -> Integers:
    """The connected component of each of `count` rows, named by its first row."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    first = np.full(component.max(initial=-1) + 1, count)
    np.minimum.at(first, component, np.arange(count))
    names: Integers = first[component]
    return names


def merge_duplicate_groups(
    rows: pd.DataFrame, *, across_patients: bool = False
) -> "pd.Series[str]":
    """The group of each row, where groups with near-identical images count as one.

    No split may divide the result.

    Args:
        across_patients: Also merge patients; otherwise only groups without a patient.
    """
    unit = groups(rows)
    positions = np.arange(len(rows)) if across_patients else np.flatnonzero(rows["patient"].isna())
    code, names = pd.factorize(unit)
    pairs = code[positions[near_duplicates(rows.iloc[positions])]]
    return pd.Series(names[clusters(len(names), pairs)[code]], rows.index)


def duplicate_clusters(rows: pd.DataFrame) -> pd.DataFrame:
    """The members of all clusters of near-identical images, and which ones training leaves out.

    A cluster belongs to its most protected split: test before val before train. Members in another
    split are withheld, together with the frames of their clip in that split.

    Args:
        rows: Manifest rows with their `split`: id, source, patient, clip, label, pixel_sha256 and
            the three hashes.

    Returns:
        id, source, label, split, `cluster` (the id of its first member), `exact` (another member
        has the same pixels) and `withheld`, sorted by cluster.
    """
    rows = rows.reset_index(drop=True)
    pairs = near_duplicates(rows)
    # Rows with the hashes of a compared row share its cluster.
    cluster = clusters(len(rows), pairs)[representatives(rows)]
    rank_of = {name: rank for rank, name in enumerate(SPLITS)}
    rank = rows["split"].map(rank_of).fillna(len(SPLITS)).to_numpy(int)
    cluster_rank = np.zeros(len(rows), int)
    has_split = rank < len(SPLITS)
    np.maximum.at(cluster_rank, cluster[has_split], rank[has_split])
    rows = rows.assign(cluster=cluster, withheld=has_split & (rank < cluster_rank[cluster]))
    rows["withheld"] |= _in_withheld_clip(rows)
    members = rows[np.isin(cluster, cluster[pairs[:, 0]]) | rows["withheld"]]
    exact = members.duplicated(["cluster", "pixel_sha256"], keep=False)
    named = members.assign(cluster=rows["id"].to_numpy()[members["cluster"]], exact=exact)
    columns = ["cluster", "id", "source", "label", "split", "exact", "withheld"]
    table: pd.DataFrame = named.sort_values(["cluster", "id"])[columns].reset_index(drop=True)
    return table


def _in_withheld_clip(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows whose clip has a withheld frame in the same split."""
    clip, split = (pd.factorize(rows[name])[0] for name in ("clip", "split"))
    key = clip * (len(SPLITS) + 2) + split
    withheld = rows["withheld"].to_numpy() & (clip >= 0)
    return np.isin(key, np.unique(key[withheld])) & (clip >= 0)


def contradictory_clusters(members: pd.DataFrame) -> pd.DataFrame:
    """Clusters of `duplicate_clusters` with different labels: `cluster`, `labels`, `images`."""
    labelled = members.dropna(subset=["label"]).groupby("cluster", sort=True)
    table = labelled.agg(
        labels=("label", lambda labels: ", ".join(sorted(set(labels)))), images=("id", "size")
    )
    contradictory: pd.DataFrame = table[labelled["label"].nunique() > 1].reset_index()
    return contradictory

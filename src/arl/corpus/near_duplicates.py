"""Near-identical images on both sides of a split, over all sources.

Two images are near-identical where their perceptual hashes (pHash) differ in at most `RADIUS` of 64
bits and their difference hashes (dHash) in at most `CONFIRM`. On breast images these find the known
duplicates of BUSI (142 clusters) and no pair of two patients in BUS-BRA; the same images have both
distances 0. Frames of one group (patient, else clip) are alike by nature and are never compared.

The search is exact: 64 bits in four parts of 16 can differ in 6 places only if one of the parts
differs in at most one (pigeonhole), so that each image is held against those of 17 of 65,536
buckets, four times.
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

RADIUS = 6  # bits of 64, of the perceptual hash
CONFIRM = 10  # bits of 64, of the difference hash
_PARTS, _BITS = 4, 16
_BUCKETS = 1 << _BITS
_SPAN = 1024  # buckets that a thread takes at a time
_BLOCK = 1 << 17  # pairs compared at a time, so that they stay in the processor's cache
_LONG = 200_000  # images whose search takes long enough to show its progress

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]  # (P, 2), the lower index first


def near_pairs(hashes: Hashes, group: Integers, radius: int = RADIUS) -> Pairs:
    """All pairs of different groups whose hashes (N,) differ in at most `radius` bits, sorted.

    Raises:
        ValueError: the radius is above 7, where pairs would be missed.
    """
    if not 0 <= radius < 2 * _PARTS:
        raise ValueError(
            f"radius {radius} is not 0 to {2 * _PARTS - 1}: {_PARTS} parts of the hash would miss pairs"
        )
    spread = _spread(hashes)
    shown = len(hashes) > _LONG
    found = [np.empty((0, 2), np.int64)]
    with ThreadPoolExecutor() as pool, progress(_PARTS, "near pairs", "part", shown=shown) as bar:
        for part in range(_PARTS):
            index = _Index(spread, part)
            spans = np.array_split(index.keys, -(-len(index.keys) // _SPAN) or 1)
            for pairs in pool.map(
                lambda keys, index=index: _of_span(index, keys.tolist(), group, radius), spans
            ):
                found.append(pairs)
            bar.update(1)
    pairs = np.concatenate(found)
    pairs = np.sort(pairs, axis=1)
    ordered: Pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def _spread(hashes: Hashes) -> Hashes:
    """The bits dealt out to the parts in turn: neighbouring frequencies are alike, and would fill few buckets."""
    spread = np.zeros_like(hashes)
    for bit in range(64):
        place = np.uint64(bit % _PARTS * _BITS + bit // _PARTS)
        spread |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << place
    return spread


class _Index:
    """Hashes sorted by one part of theirs."""

    def __init__(self, spread: Hashes, part: int) -> None:
        self.part = part
        key = _part(spread, part)
        self.order = np.argsort(key, kind="stable")
        self.hashes = spread[self.order]
        counts = np.bincount(key, minlength=_BUCKETS)
        self.keys = np.flatnonzero(counts)  # of the buckets that hold any
        self.starts = np.concatenate([[0], np.cumsum(counts)]).tolist()

    def bucket(self, key: int) -> slice:
        """The hashes with this part."""
        return slice(self.starts[key], self.starts[key + 1])


def _part(spread: Hashes, part: int) -> npt.NDArray[np.uint16]:
    return (spread >> np.uint64(part * _BITS)).astype(np.uint16)


def _of_span(index: _Index, keys: list[int], group: Integers, radius: int) -> Pairs:
    """Near pairs of different groups that begin in these buckets and were in no earlier part's."""
    found = [pairs for key in keys for pairs in _of_bucket(index, key, radius)]
    if not found:
        return np.empty((0, 2), np.int64)
    pairs = np.concatenate(found)
    first_seen = np.ones(len(pairs), bool)
    difference = index.hashes[pairs[:, 0]] ^ index.hashes[pairs[:, 1]]
    for part in range(index.part):
        first_seen &= np.bitwise_count(_part(difference, part)) > 1
    pairs = index.order[pairs[first_seen]]
    apart: Pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
    return apart


def _of_bucket(index: _Index, key: int, radius: int) -> Iterator[Pairs]:
    """Near pairs, as places in the index, of a bucket with itself and with those whose part has one bit more."""
    own = index.bucket(key)
    count = own.stop - own.start
    others = [index.bucket(key | 1 << bit) for bit in range(_BITS) if not key >> bit & 1]
    places = np.concatenate([np.arange(place.start, place.stop) for place in (own, *others)])
    step = max(1, _BLOCK // len(places))
    for begin in range(0, count, step):
        rows = np.arange(own.start + begin, min(own.start + begin + step, own.stop))
        near = np.bitwise_count(index.hashes[rows, None] ^ index.hashes[places]) <= radius
        near[:, :count] &= rows[:, None] < places[:count]  # each pair of the bucket once
        row, column = near.nonzero()
        if len(row):
            yield np.stack([rows[row], places[column]], axis=1)


def near_duplicates(rows: pd.DataFrame) -> Pairs:
    """Confirmed pairs of near-identical images of different groups: positions in `rows`, sorted.

    Args:
        rows: manifest rows, at least id, patient, clip, perceptual_hash and difference_hash. Of
            equal hashes in a group
            the first row stands for all.
    """
    group = pd.factorize(groups(rows))[0].astype(np.int64)
    perceptual = rows["perceptual_hash"].to_numpy(np.uint64)
    difference = rows["difference_hash"].to_numpy(np.uint64)
    keys = pd.DataFrame({"group": group, "perceptual": perceptual, "difference": difference})
    first = np.flatnonzero(~keys.duplicated().to_numpy())
    pairs = first[near_pairs(perceptual[first], group[first])]
    distance = np.bitwise_count(difference[pairs[:, 0]] ^ difference[pairs[:, 1]])
    confirmed: Pairs = pairs[distance <= CONFIRM]
    return confirmed


def clusters(count: int, pairs: Pairs) -> Integers:
    """The connected component of each of `count` rows, named by its first row."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    first = np.full(component.max(initial=-1) + 1, count)
    np.minimum.at(first, component, np.arange(count))
    names: Integers = first[component]
    return names


def alike(rows: pd.DataFrame) -> "pd.Series[str]":
    """`groups`, where those without a patient that hold near-identical images are one: what no split may divide."""
    unit = groups(rows)
    unknown = np.flatnonzero(rows["patient"].isna())
    code, names = pd.factorize(unit)
    pairs = code[unknown[near_duplicates(rows.iloc[unknown])]]
    return pd.Series(names[clusters(len(names), pairs)[code]], rows.index)


def leaks(rows: pd.DataFrame) -> pd.DataFrame:
    """The members of all clusters of near-identical images, and which of them training has to leave out.

    A cluster belongs to its most guarded side: test before val before train. Members on another
    side are withheld, with the frames of their clip on that side.

    Args:
        rows: manifest rows with their `split`: id, source, patient, clip, label, pixel_sha256, both
            hashes.

    Returns:
        id, source, label, split, `cluster` (the id of its first member), `exact` (another member
        has the same pixels), `withheld`; sorted by cluster.
    """
    rows = rows.reset_index(drop=True)
    pairs = near_duplicates(rows)
    cluster = clusters(len(rows), pairs)
    rank = (
        rows["split"]
        .map({name: place for place, name in enumerate(SPLITS)})
        .fillna(len(SPLITS))
        .to_numpy(int)
    )
    guarded = np.zeros(len(rows), int)
    placed = rank < len(SPLITS)
    np.maximum.at(guarded, cluster[placed], rank[placed])
    rows = rows.assign(cluster=cluster, withheld=placed & (rank < guarded[cluster]))
    rows["withheld"] |= _with_their_clip(rows)
    members = rows[np.isin(cluster, cluster[pairs[:, 0]]) | rows["withheld"]]
    exact = members.duplicated(["cluster", "pixel_sha256"], keep=False)
    named = members.assign(cluster=rows["id"].to_numpy()[members["cluster"]], exact=exact)
    columns = ["cluster", "id", "source", "label", "split", "exact", "withheld"]
    table: pd.DataFrame = named.sort_values(["cluster", "id"])[columns].reset_index(drop=True)
    return table


def _with_their_clip(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows whose clip has a withheld frame in the same split."""
    clip, split = (pd.factorize(rows[name])[0] for name in ("clip", "split"))
    key = clip * (len(SPLITS) + 2) + split
    chosen = rows["withheld"].to_numpy() & (clip >= 0)
    return np.isin(key, np.unique(key[chosen])) & (clip >= 0)


def mixed_labels(found: pd.DataFrame) -> pd.DataFrame:
    """Clusters whose members have different labels: `cluster`, `labels`, `images`."""
    labelled = found.dropna(subset=["label"]).groupby("cluster", sort=True)
    table = labelled.agg(
        labels=("label", lambda labels: ", ".join(sorted(set(labels)))), images=("id", "size")
    )
    mixed: pd.DataFrame = table[labelled["label"].nunique() > 1].reset_index()
    return mixed

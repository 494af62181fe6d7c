"""Does new data look like the data the model was trained on?

Two views, both with the patient as the unit, are the tests of one report of Evidently
(`evidently_report`). Of the encoder's embeddings, a permutation test of the maximum mean
discrepancy (Gretton et al. 2012) over patients says whether the new data differ at all. The
distances of the training sites from each other say whether they differ by more than sites do, as a
new hospital always differs. Evidently's own embedding tests take images for independent and alarm
on nearly every batch, so they are not used. The columns hold image statistics and metadata.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype
from scipy.stats import chi2_contingency, fisher_exact

from arl.files import atomic_file
from arl.monitoring.drift_result import ColumnDrift, TabularDrift

Array = npt.NDArray[np.float64]

SAME_SITE = "its own training images"
SAME_SCANNER = "its own training images of the same scanner"
SAME_KIND = "training images of the same kind at other sites"
SAME_ANATOMY = "training images of the same anatomies at other sites"
EVERYTHING = "all training images"
# Names of the tests of columns in Evidently. Both give p values, so a low one is drift.
KOLMOGOROV_SMIRNOV, HOMOGENEITY = "ks", "homogeneity"
# In front of Evidently's page, which knows nothing of ours.
_WAY_BACK = '<a href="index.html">All results of this drift test</a>'
_BLOCK = 1024  # rows of the kernel computed at a time
_KNOWN_SITES = 3  # fewer have no usual distance
_USUAL = 0.95  # quantile of the distances between known sites
_EXPECTED = 5  # least expected count of the chi-square approximation
_TIME_UUID = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b|metric_[0-9a-f]{32}"
)


@dataclass(frozen=True)
class Shift:
    """Distance between the embeddings of two sets of patients."""

    mmd2: float  # unbiased, so it may be negative
    p_value: float


def comparable(
    reference: pd.DataFrame, current: pd.DataFrame, min_groups: int, within: Sequence[str] = ()
) -> tuple[pd.DataFrame, str]:
    """The part of the reference that new images of one site should be like, and its name.

    The same site where enough of its groups are known, and of these the same probes and devices
    where enough are: once a new scanner has been trained on, its images are like its own, not like
    the mixture of all. Else other sites with the same anatomies, else everything; and of these the
    rows that agree in the columns `within` (probe, device), where the current ones are of one kind.
    Phantoms are compared with phantoms only, and a patient who came back is not compared with
    themself. Both tables are manifest rows with a `group`.
    """
    # Phantoms differ from patients in everything, and would make every hospital look new.
    pool = reference[reference["synthetic"].isin(current["synthetic"].unique())]
    pool = pool[~pool["group"].isin(current["group"])]
    agreeing = _agree(pool, current, within)
    anatomy = _agree(pool, current, ["anatomy"])
    own = agreeing & _agree(pool, current, ["site"])
    scanner = own & _agree(pool, current, ["probe", "device"])
    choices = [
        *([(SAME_SCANNER, scanner)] if scanner.sum() < own.sum() else []),
        (SAME_SITE, own),
        *([(SAME_KIND, agreeing & anatomy)] if within else []),
        (SAME_ANATOMY, anatomy),
    ]
    for name, chosen in choices:
        if pool.loc[chosen, "group"].nunique() >= min_groups:
            return pool[chosen], name
    return pool, EVERYTHING


def _agree(pool: pd.DataFrame, current: pd.DataFrame, columns: Sequence[str]) -> "pd.Series[bool]":
    """Rows whose value in every column is one of the current ones; an unknown value is a value."""
    agree = pd.Series(True, index=pool.index)
    for column in columns:
        agree &= pool[column].fillna("").isin(current[column].fillna("").unique())
    return agree


@dataclass(frozen=True)
class Kernel:
    """Sums of a Gaussian kernel over the images of each pair of cells, such as the images of a
    patient and a probe.
    """

    sums: Array  # (Q, Q)
    images: Array  # (Q,) in each cell

    def of_groups(self, group: npt.NDArray[np.int64], cells: npt.NDArray[np.bool_]) -> Array:
        """Kernel (P, P) averaged over the images of each pair of groups, of the chosen cells alone.

        Args:
            group: of each cell (Q,).
            cells: which count (Q,). Groups come in the order of their numbers.
        """
        # Sorted by group, so that `reduceat` sums each group as one run of rows and columns.
        order = np.flatnonzero(cells)[np.argsort(group[cells], kind="stable")]
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        sums = np.add.reduceat(self.sums[np.ix_(order, order)], starts, axis=0)
        images = np.add.reduceat(self.images[order], starts)
        return np.asarray(np.add.reduceat(sums, starts, axis=1) / np.outer(images, images))


def cell_kernel(
    embeddings: npt.NDArray[np.floating[Any]], cell: npt.NDArray[np.integer[Any]]
) -> Kernel:
    """The kernel of embeddings (N, C) whose cells (N,) are numbered from 0 on.

    The bandwidth is the median distance of at most 1,000 of them; it is the same for all that is
    made of the kernel.
    """
    order = np.argsort(cell, kind="stable")
    points = np.asarray(embeddings, np.float64)[order]
    starts = np.searchsorted(cell[order], np.arange(cell.max() + 1))
    ends = np.append(starts[1:], len(points))
    # The median heuristic (Gretton et al. 2012, section 8): a bandwidth that fits the data without
    # labels.
    scale = 2 * _median_square(points)
    sums = np.zeros((len(starts), len(starts)))
    first = 0
    while first < len(starts):
        # whole cells of about so many images, against themselves and the later ones
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + _BLOCK, "right")))
        begin = starts[first]
        # The images' kernel never exists as a whole: 8,000 images would take 512 MB.
        values = np.exp(_squares(points[begin : ends[last - 1]], points[begin:]) / -scale)
        part = np.add.reduceat(values, starts[first:last] - begin, axis=0)
        sums[first:last, first:] = np.add.reduceat(part, starts[first:] - begin, axis=1)
        sums[first:, first:last] = sums[first:last, first:].T
        first = last
    return Kernel(sums, np.bincount(cell).astype(np.float64))


def group_kernel(
    embeddings: npt.NDArray[np.floating[Any]], groups: Sequence[str]
) -> tuple[Array, list[str]]:
    """Gaussian kernel (P, P) averaged over the images of each pair of groups, and the groups' names
    in its order.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    everything = np.arange(len(names))
    return cell_kernel(embeddings, member).of_groups(everything, everything >= 0), names.tolist()


def distance(kernel: Array, current: npt.NDArray[np.bool_]) -> float:
    """Unbiased squared MMD of the groups marked `current` (P,) from the others."""
    return float(_mmd2(kernel, current[None].astype(np.float64))[0])


def usual_distance(distances: Sequence[float]) -> float | None:
    """How far a site of the training data usually is from the others, given each site's distance
    from the rest.

    The 95 % quantile; None where fewer than three sites are known, which say nothing about how
    sites differ.
    """
    return float(np.quantile(distances, _USUAL)) if len(distances) >= _KNOWN_SITES else None


def _squares(a: Array, b: Array) -> Array:
    """Squared distances (len(a), len(b))."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    # Rounding makes the distance of a point from itself slightly negative.
    return np.asarray(np.maximum(squares, 0))


def _median_square(points: Array) -> float:
    # Evenly spaced points, not random ones: the bandwidth is the same at each call.
    some = points[:: -(-len(points) // 1000)]
    apart = _squares(some, some)[np.triu_indices(len(some), 1)]
    return float(np.median(apart)) or 1.0  # 1 where all points are one


def permutation_mmd(
    kernel: Array, current: npt.NDArray[np.bool_], permutations: int, seed: int
) -> Shift:
    """Test whether the groups marked `current` (P,) are drawn like the others, by permuting whole
    groups.

    Args:
        kernel: (P, P), see `group_kernel`.

    Raises:
        ValueError: fewer than two groups on a side.
    """
    size = int(current.sum())
    if min(size, len(current) - size) < 2:
        raise ValueError(f"MMD needs two groups on each side, got {size} current of {len(current)}")
    rng = np.random.default_rng(seed)
    # Whole groups are permuted: images of one patient are not exchangeable with those of another.
    shuffled = rng.permuted(np.tile(current, (permutations, 1)), axis=1)
    observed, *null = _mmd2(kernel, np.concatenate([current[None], shuffled]).astype(np.float64))
    # sums of one split in another order differ in their last bits and are ties
    reached = np.sum(np.asarray(null) >= observed - 1e-12)
    # The observed split is one of the permutations, so p is never 0 (Phipson & Smyth 2010).
    return Shift(float(observed), float((1 + reached) / (1 + permutations)))


def _mmd2(kernel: Array, current: Array) -> Array:
    """Unbiased squared MMD of each row of `current` (B, P), 1 = current."""
    diagonal = np.diag(kernel)
    ones = current.sum(axis=1)
    zeros = current.shape[1] - ones
    towards = current @ kernel
    within = (towards * current).sum(axis=1)
    across = towards.sum(axis=1) - within
    rest = kernel.sum() - within - 2 * across
    # Without the diagonal the estimate is unbiased, so that small batches do not look shifted.
    first = (within - current @ diagonal) / (ones * (ones - 1))
    second = (rest - (1 - current) @ diagonal) / (zeros * (zeros - 1))
    return np.asarray(first + second - 2 * across / (ones * zeros))


@dataclass(frozen=True)
class SiteSample:
    """The embeddings of a site, or of one probe or device of it, with those of its reference.

    Attributes:
        kernel: (P, P), see `group_kernel`.
        is_current: (P,), the new groups.
        compared_with: name of the reference.
        usual: squared MMD that a shift must exceed; None: too few training sites to say.
    """

    kernel: Array
    is_current: npt.NDArray[np.bool_]
    compared_with: str
    usual: float | None


@dataclass(frozen=True)
class ShiftVerdict:
    """The test of one `SiteSample` in Evidently's report."""

    mmd2: float
    p_value: float
    p_adjusted: float
    drifted: bool


@dataclass(frozen=True)
class DriftVerdict:
    """What Evidently's report decided: whether a critical test failed, and each test's result."""

    drifts: bool
    tabular: TabularDrift
    sites: dict[str, ShiftVerdict]


def judge_drift(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    samples: Mapping[str, SiteSample],
    alpha: float,
    drift_share: float,
    permutations: int,
    seed: int,
    html: Path,
) -> DriftVerdict:
    """Run all tests as one report of Evidently, and write its page and, beside it, its JSON.

    The embedding tests of sites, probes and devices are critical. Numbers are tested by
    Kolmogorov-Smirnov and names by a chi-square test of homogeneity, each column at alpha over the
    number of columns. A column that one side lacks, or that has one value, is left out and listed.
    The share of drifted columns is critical where every sample is compared with its own training
    images: a new hospital differs in some columns nearly always, which is no reason to train.

    Args:
        current: one row per new patient.
        reference: one row per patient of the training images.
        numeric, categorical: names of columns.
        samples: label of a site, probe or device -> its embeddings.
        alpha: of all embedding tests together, and of all columns together.
        drift_share: fraction of drifted columns from which their test fails.
        html: Evidently's page.

    Raises:
        ValueError: no column can be compared.
    """
    left_out = _left_out(current, reference, [*numeric, *categorical])
    numbers = [name for name in numeric if name not in left_out]
    names = [name for name in categorical if name not in left_out]
    if not numbers + names:
        raise ValueError(f"no column can be compared: {left_out}")
    # Evidently costs 5 s, which nothing else pays.
    from arl.monitoring.evidently_report import ReportRules, run_report

    own = {SAME_SITE, SAME_SCANNER}
    rules = ReportRules(
        alpha,
        alpha / len(numbers + names),
        drift_share,
        all(sample.compared_with in own for sample in samples.values()),
        permutations,
        seed,
    )
    done = run_report(current, reference, numbers, names, samples, rules)
    with atomic_file(html) as partial:
        page = _stable(done.snapshot.get_html_str(as_iframe=False))
        partial.write_text(page.replace("<body>", f"<body>{_WAY_BACK}", 1), encoding="utf-8")
    with atomic_file(html.with_suffix(".json")) as partial:
        partial.write_text(_stable(done.snapshot.json()), encoding="utf-8")
    columns = [
        _column(name, done.columns[name], name in done.drifted_columns, current, reference)
        for name in (*numbers, *names)
    ]
    tabular = TabularDrift(
        columns,
        rules.threshold,
        drift_share,
        left_out,
        done.drifted_fraction,
        done.drifted_fraction >= drift_share,
        rules.columns_decide,
    )
    sites = {
        name: ShiftVerdict(
            done.distances[name], done.p_values[name], done.adjusted[name], name in done.failed
        )
        for name in samples
    }
    return DriftVerdict(done.drifts, tabular, sites)


def _column(
    name: str, p_value: float, drifted: bool, current: pd.DataFrame, reference: pd.DataFrame
) -> ColumnDrift:
    """The test of a column, with the typical value of both sides."""
    if is_numeric_dtype(current[name]):
        column = ColumnDrift(name, KOLMOGOROV_SMIRNOV, p_value, drifted)
        medians = (float(reference[name].median()), float(current[name].median()))
        return replace(column, reference_median=medians[0], current_median=medians[1])
    modes = [str(table[name].mode().iloc[0]) for table in (reference, current)]
    column = ColumnDrift(name, HOMOGENEITY, p_value, drifted)
    return replace(column, reference_mode=modes[0], current_mode=modes[1])


def _left_out(
    current: pd.DataFrame, reference: pd.DataFrame, columns: Sequence[str]
) -> dict[str, str]:
    reasons = {}
    for name in columns:
        if reference[name].isna().all():
            reasons[name] = (
                "unknown in the reference"
                if current[name].notna().any()
                else "unknown on both sides"
            )
        elif current[name].isna().all():
            reasons[name] = "unknown in the new data"
        elif pd.concat([current[name], reference[name]]).nunique() < 2:
            reasons[name] = "one value only"
    return reasons


def homogeneity(current: "pd.Series[str]", reference: "pd.Series[str]") -> float:
    """p-value that two samples of names have one distribution; rare names are merged, two by
    Fisher's exact test.
    """
    counts = (
        pd.concat([reference.value_counts(), current.value_counts()], axis=1).fillna(0).sort_index()
    )
    table = counts.to_numpy(np.float64).T
    # Merging the two rarest names keeps the test valid; leaving them out would hide a new scanner.
    while table.shape[1] > 2 and _least_expected(table) < _EXPECTED:
        order = np.argsort(table.sum(axis=0), kind="stable")
        merged = table[:, order[:2]].sum(axis=1, keepdims=True)
        table = np.concatenate([merged, table[:, order[2:]]], axis=1)
    if table.shape[1] < 2:
        return 1.0
    if table.shape[1] == 2 and _least_expected(table) < _EXPECTED:
        return float(fisher_exact(table).pvalue)
    return float(chi2_contingency(table, correction=False).pvalue)


def _least_expected(table: Array) -> float:
    return float((np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()).min())


def _stable(text: str) -> str:
    """Number the time-based identifiers of a page or JSON in the order of their appearance."""
    numbers: dict[str, str] = {}
    return _TIME_UUID.sub(
        lambda match: numbers.setdefault(match.group(), f"metric_{len(numbers)}"), text
    )

"""Does new data look like the data the model was trained on?

Two views, both with the patient as the unit. Evidently compares a table of image statistics and
metadata, to be read. The decision is made on the encoder's embeddings: a permutation test of the
maximum mean discrepancy (Gretton et al. 2012) over patients says whether the new data differ at
all, and the distances of the known sites from each other say whether they differ by more than sites
do, as a new hospital always differs. Evidently's own embedding tests take images for independent
and alarm on nearly every batch, so they are not used.
"""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact

from arl.files import atomic_file
from arl.monitoring.drift_result import ColumnDrift, TabularDrift

Array = npt.NDArray[np.float64]

SAME_SITE = "its own training images"
SAME_SCANNER = "its own training images of the same scanner"
SAME_KIND = "training images of the same kind at other sites"
SAME_ANATOMY = "training images of the same anatomies at other sites"
EVERYTHING = "all training images"
_METHODS = {"numeric": "ks", "categorical": "homogeneity"}  # both give p-values: drift is a low one
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


def tabular_drift(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    alpha: float,
    drift_share: float,
    html: Path,
) -> TabularDrift:
    """Compare two tables of one row a patient column by column, and write Evidently's page and,
    beside it, its JSON.

    Numbers by Kolmogorov-Smirnov, names by a chi-square test of homogeneity. Each column is tested
    at alpha over the number of columns. A column that one side lacks, or that has one value, is
    left out and listed. `drift_share` is the share of drifted columns from which the table as a
    whole drifts.

    Raises:
        ValueError: no column can be compared.
    """
    left_out = _left_out(current, reference, [*numeric, *categorical])
    numbers = [name for name in numeric if name not in left_out]
    names = [name for name in categorical if name not in left_out]
    if not numbers + names:
        raise ValueError(f"no column can be compared: {left_out}")
    threshold = alpha / len(numbers + names)
    p_values = _run_evidently(current, reference, numbers, names, threshold, drift_share, html)
    columns = [
        *(
            ColumnDrift(
                name,
                _METHODS["numeric"],
                p_values[name],
                p_values[name] < threshold,
                reference_median=float(reference[name].median()),
                current_median=float(current[name].median()),
            )
            for name in numbers
        ),
        *(
            ColumnDrift(
                name,
                _METHODS["categorical"],
                p_values[name],
                p_values[name] < threshold,
                reference_mode=str(reference[name].mode().iloc[0]),
                current_mode=str(current[name].mode().iloc[0]),
            )
            for name in names
        ),
    ]
    drifted_fraction = float(np.mean([column.drifted for column in columns]))
    return TabularDrift(
        columns, threshold, drift_share, left_out, drifted_fraction, drifted_fraction >= drift_share
    )


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


def _run_evidently(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    numbers: list[str],
    names: list[str],
    threshold: float,
    drift_share: float,
    html: Path,
) -> dict[str, float]:
    """p-value of each column; Evidently's page is written to `html`, its JSON beside it."""
    with _evidently() as (evidently, preset):
        definition = evidently.DataDefinition(numerical_columns=numbers, categorical_columns=names)
        tables = [
            evidently.Dataset.from_pandas(table[numbers + names].reset_index(drop=True), definition)
            for table in (current, reference)
        ]
        metric = preset(
            num_method=_METHODS["numeric"],
            cat_method=_METHODS["categorical"],
            num_threshold=threshold,
            cat_threshold=threshold,
            drift_share=drift_share,
        )
        snapshot = evidently.Report([metric]).run(*tables)
        with atomic_file(html) as partial:
            snapshot.save_html(str(partial))
            partial.write_text(_stable(partial.read_text(encoding="utf-8")), encoding="utf-8")
        with atomic_file(html.with_suffix(".json")) as partial:
            partial.write_text(_stable(snapshot.json()), encoding="utf-8")
        results = {m["config"].get("column"): m["value"] for m in snapshot.dict()["metrics"]}
    return {name: float(results[name]) for name in numbers + names}


@contextmanager
def _evidently() -> Iterator[tuple[Any, Any]]:
    """The library with our test for names; it costs 5 s, so nothing else imports it."""
    os.environ["DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        # These are warnings of the library's own imports, which its users cannot mend.
        warnings.filterwarnings("ignore", r"numpy\.core is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", r".*in litestar 2\.", DeprecationWarning)
        import evidently
        from evidently.legacy.calculations.stattests import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.presets import DataDriftPreset

        name = _METHODS["categorical"]
        display = "chi-square test of homogeneity, p-value"
        register_stattest(
            StatTest(name, display, [ColumnType.Categorical]), default_impl=_homogeneity
        )
        yield evidently, DataDriftPreset


def _homogeneity(
    reference_data: "pd.Series[str]",
    current_data: "pd.Series[str]",
    feature_type: object,
    threshold: float,
) -> tuple[float, bool]:
    """p-value and verdict for two samples of names.

    Evidently's own chi-square takes the reference for the truth, and a name it lacks for
    impossible.
    """
    p_value = homogeneity(current_data, reference_data)
    return p_value, p_value < threshold


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

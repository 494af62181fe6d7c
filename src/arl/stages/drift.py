"""Test new batches for a shift away from the training data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import select
from arl.corpus.shard_reader import read_images
from arl.corpus.splits import groups
from arl.files import atomic_directory
from arl.loading.loader import Examples, evaluation_batches
from arl.loading.transforms import eval_view
from arl.monitoring.drift import (
    Kernel,
    ShiftVerdict,
    SiteSample,
    cell_kernel,
    comparable,
    distance,
    judge_drift,
    usual_distance,
)
from arl.monitoring.drift_result import DriftResult, SiteShift
from arl.monitoring.features import (
    CATEGORICAL,
    NUMERIC,
    UNKNOWN,
    adjust_for_anatomy,
    embed,
    image_features,
    patient_features,
    thin,
)
from arl.monitoring.sites import Rules, Samples
from arl.params import Params
from arl.reports import drift as drift_page
from arl.reports.stamp import Stopwatch
from arl.training.checkpoint import load_encoder
from arl.training.distributed import local_device

MIN_PATIENTS = 8  # on a side: fewer cannot tell a shift from a patient
PERMUTATIONS = 1999
MAX_PATIENTS, MAX_IMAGES = 1000, 8  # patients of a site, images of a patient
MIN_OTHER_PATIENTS = 100  # of each training site without new images
_KINDS = (
    "probe",
    "device",
)  # a site's images of one kind are tested for themselves, where it sends several kinds
_CELL = [
    "group",
    "site",
    "probe",
    "device",
    "anatomy",
]  # what is alike in all images of a cell of the kernel
_BATCH_SIZE = 64

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Manifest rows of one site, or of one kind of its images, and of its reference, with their
    `group`.
    """

    site: str
    part: str
    current: pd.DataFrame
    reference: pd.DataFrame
    compared_with: str

    @property
    def label(self) -> str:
        """Site and part, e.g. "clinic, probe linear"."""
        return ", ".join(filter(None, (self.site, self.part)))


def drift(params: Params, *, corpus: ReadableCorpus, checkpoint: Path, drift: Path) -> None:
    """Compare new batches of the corpus with the other training images.

    The new batches are those of drift.batches, or the newest batch of each source that has several.
    Writes drift.json (drift, no-drift, too-few or no-new-data, with reasons) and index.html; where
    a
    comparison is possible also the files of Evidently and charts.json.

    Args:
        corpus: Folder of the corpus, or s3://bucket/prefix.
        checkpoint: Folder of the encoder.
        drift: Folder of the results.

    Raises:
        ValueError: the corpus lacks a batch of drift.batches.

    Writes:
        drift

    Examples:
        arl drift --corpus data --checkpoint out/pretrain --drift out/drift
    """
    watch = Stopwatch("arl drift")
    torch.set_num_threads(params.pretrain.threads)
    rows = select(corpus, sources=[], protocols=params.data.splits)
    rows = rows.assign(group=groups(rows))
    is_new = _new_rows(rows, params.drift.batches, corpus)
    in_training = rows["source"].isin(params.data.sources) if params.data.sources else True
    held_out = rows["source"].isin(params.data.held_out)
    # What the champion was trained on and no more: test and held-out images may differ for good
    # reasons.
    reference = rows[~is_new & in_training & ~held_out & (rows["split"] == "train")]
    with atomic_directory(drift) as folder:
        result, samples = _compare(params, corpus, checkpoint, rows[is_new], reference, folder)
        result.write(folder / "drift.json")
        rules = Rules(params.drift.alpha, params.drift.drift_fraction, PERMUTATIONS)
        drift_page.write_page(result, samples, rules, watch.stamp(corpus), folder)


def _new_rows(rows: pd.DataFrame, batches: Sequence[str], corpus: Path) -> "pd.Series[bool]":
    """Mark the rows of the new batches."""
    batch = rows["source"] + "/" + rows["batch"]
    if batches:
        missing = sorted(set(batches) - set(batch))
        if missing:
            raise ValueError(
                f"drift.batches: corpus {corpus} has no batch {missing[0]}; "
                f"it has {sorted(set(batch))}"
            )
        return batch.isin(batches)
    # Batch names sort by time, so the greatest one is the newest.
    by_source = rows.groupby("source")["batch"]
    return (rows["batch"] == by_source.transform("max")) & (by_source.transform("nunique") > 1)


def _compare(
    params: Params,
    corpus: Path,
    checkpoint: Path,
    new: pd.DataFrame,
    reference: pd.DataFrame,
    folder: Path,
) -> tuple[DriftResult, Samples | None]:
    if new.empty:
        return DriftResult(
            "no-new-data", ["No source has a second batch, and none is named."]
        ), None
    batches = sorted((new["source"] + "/" + new["batch"]).unique())
    current, training = _thinned(params, new, reference)
    pairs, untested = _pairs(current, training)
    result = DriftResult(
        "too-few", [], batches, len(new), new["group"].nunique(), untested=untested
    )
    if not pairs or len(new) < params.drift.min_images:
        return replace(result, reasons=_too_few(params, result)), None
    result, samples = _test(params, corpus, checkpoint, pairs, training, result, folder)
    return replace(result, reasons=_reasons(params, result)), samples


def _pairs(new: pd.DataFrame, reference: pd.DataFrame) -> tuple[list[Pair], dict[str, str]]:
    """The comparisons by site and kind; for the other sites and kinds, why there is none."""
    pairs, untested = [], {}
    for site, rows in new.groupby("site", sort=True):
        for part, current, within in _parts(rows):
            match, name = comparable(reference, current, MIN_PATIENTS, within)
            fewest = min(current["group"].nunique(), match["group"].nunique())
            if fewest < MIN_PATIENTS:
                side = "new" if current["group"].nunique() == fewest else "training"
                untested[", ".join(filter(None, (str(site), part)))] = (
                    f"{fewest} {side} patients, {MIN_PATIENTS} are needed"
                )
            else:
                pairs.append(Pair(str(site), part, current, match, name))
    return pairs, untested


def _parts(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """All images of a site; then those of each probe and device, if there are several."""
    parts: list[tuple[str, pd.DataFrame, list[str]]] = [("", rows, [])]
    for kind in _KINDS:
        by_kind = list(rows.groupby(rows[kind].fillna(UNKNOWN), sort=True))
        parts += [(f"{kind} {name}", part, [kind]) for name, part in by_kind if len(by_kind) > 1]
    return parts


def _thinned(
    params: Params, new: pd.DataFrame, reference: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Subsample the new images, and the training images of their anatomies evenly over sites."""
    # A patient who came back would make a batch look more alike than it is.
    pool = reference[~reference["group"].isin(new["group"])]
    same_anatomy = pool[pool["anatomy"].isin(new["anatomy"].unique())]
    pool = same_anatomy if same_anatomy["group"].nunique() >= MIN_PATIENTS else pool
    # Evenly over sites: the kernel is quadratic in patients, and a large site would crowd out the
    # others.
    per_site = max(MIN_OTHER_PATIENTS, MAX_PATIENTS // max(1, pool["site"].nunique()))
    limits = {
        str(site): MAX_PATIENTS if site in set(new["site"]) else per_site
        for site in pool["site"].unique()
    }
    return _thin(new, {}, params.seed), _thin(pool, limits, params.seed)


def _thin(rows: pd.DataFrame, limits: dict[str, int], seed: int) -> pd.DataFrame:
    """Keep MAX_IMAGES of a patient and `limits[site]` patients of a site, or MAX_PATIENTS."""
    kept = [
        thin(part, patients=limits.get(str(site), MAX_PATIENTS), images=MAX_IMAGES, seed=seed)
        for site, part in rows.groupby("site", sort=True)
    ]
    return pd.concat(kept).sort_index() if kept else rows


def _too_few(params: Params, result: DriftResult) -> list[str]:
    reasons = [f"Site {site} cannot be tested: {why}." for site, why in result.untested.items()]
    if result.images < params.drift.min_images:
        reasons.insert(
            0,
            f"{result.images} new images, {params.drift.min_images} are needed (drift.min_images).",
        )
    return reasons


def _test(
    params: Params,
    corpus: Path,
    checkpoint: Path,
    pairs: list[Pair],
    training: pd.DataFrame,
    result: DriftResult,
    folder: Path,
) -> tuple[DriftResult, Samples]:
    """Run the column tests and the embedding tests; the result with both, and the samples."""
    current, reference = (
        _union([getattr(pair, side) for pair in pairs]) for side in ("current", "reference")
    )
    rows = pd.concat([current, reference])
    is_current = np.arange(len(rows)) < len(current)
    tables = _tables(_features(corpus, rows), is_current)
    # The other training sites are embedded too: their distances say how far apart sites are.
    embedded = _union([rows, training])
    vectors = pd.DataFrame(_embeddings(corpus, checkpoint, embedded), index=embedded.index)
    space = _space(embedded, vectors, embedded.index.isin(current.index))
    site_distances = _between_sites(space, training)
    usual = usual_distance(list(site_distances.values()))
    samples = {
        pair.label: SiteSample(
            *space.compare(pair.current, pair.reference), pair.compared_with, usual
        )
        for pair in pairs
    }
    verdict = judge_drift(
        *tables,
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        samples=samples,
        alpha=params.drift.alpha,
        drift_share=params.drift.drift_fraction,
        permutations=PERMUTATIONS,
        seed=params.seed,
        html=folder / "evidently.html",
    )
    result = replace(
        result,
        reference_images=len(reference),
        reference_patients=reference["group"].nunique(),
        # Evidently's tests are the trigger.
        decision="drift" if verdict.drifts else "no-drift",
        tabular=verdict.tabular,
        site_distances=site_distances,
        sites=[_site(pair, verdict.sites[pair.label], usual) for pair in pairs],
    )
    new, old = tables
    return result, Samples(new, old, vectors.loc[rows.index].to_numpy(np.float32), is_current)


def _union(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables, each row once."""
    together = pd.concat(tables)
    return together[~together.index.duplicated()]


def _tables(features: pd.DataFrame, is_current: npt.NDArray[np.bool_]) -> list[pd.DataFrame]:
    """One row a patient, adjusted for the anatomy: the new patients, then the reference."""
    numbers = adjust_for_anatomy(features[list(NUMERIC)], features["anatomy"], is_current)
    adjusted = features.assign(**numbers)
    return [patient_features(adjusted[is_current]), patient_features(adjusted[~is_current])]


def _features(corpus: Path, rows: pd.DataFrame) -> pd.DataFrame:
    parts = (rows.iloc[start : start + _BATCH_SIZE] for start in range(0, len(rows), _BATCH_SIZE))
    return pd.concat([image_features(part, read_images(corpus, part)) for part in parts])


def _embeddings(corpus: Path, checkpoint: Path, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    encoder, config = load_encoder(checkpoint)
    examples = Examples(corpus, rows, config.size, stretched=True)
    batches = evaluation_batches(examples, _BATCH_SIZE)
    images = ((eval_view(batch, config.size).image, batch.anatomy) for batch in batches)
    return embed(encoder, images, local_device())


@dataclass(frozen=True)
class Space:
    """One kernel over the embeddings of all comparisons, so that distances have one scale."""

    kernel: Kernel
    cell: "pd.Series[int]"  # of each row
    group: npt.NDArray[np.int64]  # of each cell

    def compare(
        self, current: pd.DataFrame, reference: pd.DataFrame
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the kernel (P, P) of the groups of two tables, and a mask (P,) of the current."""
        cells = np.zeros(len(self.group), bool)
        cells[self.cell.loc[[*current.index, *reference.index]].to_numpy()] = True
        groups, new = (
            np.unique(self.group[cells]),
            self.group[self.cell.loc[current.index].to_numpy()],
        )
        return self.kernel.of_groups(self.group, cells), np.isin(groups, new)


def _space(
    rows: pd.DataFrame, embeddings: pd.DataFrame, is_current: npt.NDArray[np.bool_]
) -> Space:
    points = adjust_for_anatomy(embeddings, rows["anatomy"], is_current)
    cell = rows[_CELL].fillna(UNKNOWN).groupby(_CELL, sort=True).ngroup()
    group = pd.factorize(rows["group"], sort=True)[0]
    of_cell = np.zeros(cell.max() + 1, np.int64)
    of_cell[cell] = group
    return Space(cell_kernel(points.to_numpy(), cell.to_numpy(np.int64)), cell, of_cell)


def _between_sites(space: Space, training: pd.DataFrame) -> dict[str, float]:
    """Squared MMD of each training site from the other sites' images of its anatomies."""
    distances = {}
    for site, own in training.groupby("site", sort=True):
        others = training[
            (training["site"] != site)
            & training["anatomy"].isin(own["anatomy"].unique())
            & training["synthetic"].isin(own["synthetic"].unique())
        ]
        if min(own["group"].nunique(), others["group"].nunique()) >= MIN_PATIENTS:
            distances[str(site)] = distance(*space.compare(own, others))
    return distances


def _site(pair: Pair, verdict: ShiftVerdict, usual: float | None) -> SiteShift:
    return SiteShift(
        pair.site,
        pair.part,
        pair.compared_with,
        pair.current["group"].nunique(),
        pair.reference["group"].nunique(),
        verdict.mmd2,
        verdict.p_value,
        verdict.p_adjusted,
        usual,
        verdict.drifted,
    )


def _reasons(params: Params, result: DriftResult) -> list[str]:
    assert result.tabular is not None
    tabular = result.tabular
    moved = [column.column for column in tabular.columns if column.drifted]
    names = f": {', '.join(moved)}" if moved else ""
    limit = "reaches" if tabular.drifted else "stays below"
    role = (
        "asks for a training"
        if tabular.drifted and tabular.decides
        else "explains a shift and asks for nothing"
    )
    return [
        *(_reason(site, params.drift.alpha) for site in result.sites),
        *(f"Site {label} was not tested: {why}." for label, why in result.untested.items()),
        f"{len(moved)} of {len(tabular.columns)} columns drifted{names}. "
        f"Their share {limit} {tabular.drift_share:.0%}, which {role}.",
    ]


def _reason(site: SiteShift, alpha: float) -> str:
    what, from_ = f"Embeddings of site {site.label}", f"from {site.compared_with}"
    if site.p_adjusted >= alpha:
        return (
            f"{what} did not move measurably {from_} (adjusted p = {site.p_adjusted:.4f} ≥ "
            f"{alpha:g})."
        )
    chance = f"adjusted p = {site.p_adjusted:.4f} < {alpha:g}"
    if site.usual is None:
        return (
            f"{what} moved away {from_} ({chance}; too few sites are known to say how far apart "
            f"sites are)."
        )
    distances = f"MMD² {_signed(site.mmd2)}, usually up to {_signed(site.usual)}"
    if site.drifted:
        return (
            f"{what} moved away {from_}, further than known sites are from each other "
            f"({distances}; {chance})."
        )
    return (
        f"{what} differ {from_}, but no more than known sites differ from each other "
        f"({distances}; {chance})."
    )


def _signed(number: float) -> str:
    return f"{number:.4f}".replace("-", "−")

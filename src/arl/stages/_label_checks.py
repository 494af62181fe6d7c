"""Check the labels of arriving batches with the champion's models."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from arl.corpus.anatomy import NULL_ANATOMY
from arl.corpus.near_duplicates import duplicate_clusters
from arl.corpus.splits import groups, with_splits
from arl.evaluation.metrics import macro_auroc
from arl.loading.loader import Examples, evaluation_batches
from arl.loading.transforms import eval_view
from arl.models.encoder import Encoder
from arl.monitoring.features import embed, thin
from arl.monitoring.label_checks import (
    MIN_PATIENTS,
    Floats,
    LabelCheck,
    LabelReport,
    Limits,
    confident_noise,
    cross_fitted,
    find_neighbours,
    patient_scores,
    prior_distance,
)
from arl.params import Params
from arl.settings import Task
from arl.stages._scoring import score
from arl.storage.registry import tasks_of
from arl.tasks.make import make_kind
from arl.training.checkpoint import load_encoder
from arl.training.distributed import local_device
from arl.training.task_models import load_task_model

_BATCH_SIZE = 64
_REFERENCE_PATIENTS = 300  # of each organ or task; more change no neighbour
_COLUMNS = [
    "id",
    "source",
    "patient",
    "clip",
    "label",
    "pixel_sha256",
    "perceptual_hash",
    "difference_hash",
    "detail_hash",
]
_P_PRIOR = 1e-3
_USUAL = 0.95  # quantile of the distances between training images of different patients


@dataclass
class ReferenceFeatures:
    """Features of reference images that were computed before, for many batches in turn."""

    ids: list[str] = field(default_factory=list)
    organs: npt.NDArray[np.float64] | None = None
    tasks: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    agreement: dict[str, float | None] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def clear_unless(self, ids: list[str]) -> None:
        """Forget everything if the reference rows are others: copies of test images in a batch
        change which training images are withheld."""
        if self.ids != ids:
            self.ids, self.organs = ids, None
            for features in (self.tasks, self.agreement, self.noise):
                features.clear()


def check_labels(
    params: Params,
    rows: pd.DataFrame,
    is_new: npt.NDArray[np.bool_],
    *,
    corpus: Path,
    champion: Path,
    limits: Limits | None = None,
    cached: ReferenceFeatures | None = None,
) -> LabelReport:
    """Check the labels of new rows against the champion and its training and test rows.

    Args:
        rows: rows of the corpus with their `split` and `group`, new and reference.
        is_new: (N,) the new ones.
        corpus: folder with the images of all rows.
        champion: local folder of the release.
        limits: default: those of `Limits`.
        cached: features of the same reference rows and champion, filled in by the first call.
    """
    limits, cached = limits or Limits(), cached or ReferenceFeatures()
    new, reference = rows[is_new], rows[~is_new]
    cached.clear_unless((reference["id"] + " " + reference["split"].fillna("")).tolist())
    checks = [*_test_images(corpus, params, new, limits)]
    skipped: list[str] = []
    organ_checks, familiar = _organs(params, corpus, champion, new, reference, limits, cached)
    checks += organ_checks
    models = tasks_of(champion)
    for task in params.tasks:
        settings = params.task[task]
        if make_kind(settings).one_class_each and task in models:
            checks_, why = _task_checks(
                params,
                task,
                settings,
                models[task],
                corpus,
                new,
                reference,
                familiar,
                limits,
                cached,
            )
            checks += checks_
            skipped += why
    return LabelReport(checks, skipped)


def _test_images(
    corpus: Path, params: Params, new: pd.DataFrame, limits: Limits
) -> list[LabelCheck]:
    """New images that are near-identical to images that judge models."""
    table = with_splits(corpus, _COLUMNS, params.data.splits)
    # As the batch will be used: whatever split its sender names, its images train.
    table.loc[table["id"].isin(new["id"]), "split"] = "train"
    members = duplicate_clusters(table)
    judging = set(members.loc[members["split"] == "test", "cluster"])
    copies = set(members.loc[members["cluster"].isin(judging), "id"])
    checks = []
    for site, part in new.groupby("site", sort=True):
        count = int(part["id"].isin(copies).sum())
        fraction = count / len(part)
        words = f"{count} of {len(part)} images of site {site} are near-identical to test images"
        passed = fraction <= limits.test_images
        checks.append(
            LabelCheck(
                "test-image",
                str(site),
                "",
                fraction,
                limits.test_images,
                part["group"].nunique(),
                passed,
                f"{words}.",
            )
        )
    return checks


def _organs(
    params: Params,
    corpus: Path,
    champion: Path,
    new: pd.DataFrame,
    reference: pd.DataFrame,
    limits: Limits,
    cached: ReferenceFeatures,
) -> tuple[list[LabelCheck], dict[str, bool]]:
    """New images that look like another organ than the one that the batch names.

    Also says of each site whether its images look like training images.
    """
    encoder, config = load_encoder(champion / "encoder")
    training_rows = reference[(reference["split"] == "train")]
    parts = [
        thin(part, patients=_REFERENCE_PATIENTS, images=2, seed=params.seed)
        for _, part in training_rows.groupby("anatomy", sort=True)
    ]
    # An organ without training images has no neighbours to be told from.
    new = new[new["anatomy"].isin(training_rows["anatomy"].unique())]
    if not parts or new.empty:
        return [], {}
    training_rows = pd.concat(parts)
    of_new = _organ_features(encoder, config.size, corpus, new)
    if cached.organs is None:
        cached.organs = _organ_features(encoder, config.size, corpus, training_rows)
    of_known = cached.organs
    organs, group = training_rows["anatomy"].tolist(), training_rows["group"].to_numpy()
    neighbours = find_neighbours(of_new, new["anatomy"].tolist(), of_known, organs)
    # Images of one patient are near-copies, and would make the usual distance far too small.
    itself = group[:, None] == group
    among_known = find_neighbours(of_known, organs, of_known, organs, excluded=itself)
    # The usual distance between training images of different patients.
    near = neighbours.distance <= np.quantile(among_known.distance, _USUAL)
    usual = _fraction_of_patients(training_rows, among_known.other)
    # An image far from all training images is new, and its neighbours say nothing about its organ.
    new = new.assign(other=neighbours.other & near, near=near)
    familiar = {
        str(site): bool(part["near"].mean() >= limits.familiar)
        for site, part in new.groupby("site", sort=True)
    }
    checks = []
    for (site, organ), part in new.groupby(["site", "anatomy"], sort=True):
        if usual[str(organ)] > limits.organ:
            # The encoder cannot tell this organ from the others, so it says nothing about it.
            continue
        fraction = _fraction_of_patients(part, part["other"].to_numpy())[str(organ)]
        limit = usual[str(organ)] + limits.organ
        patients = part["group"].nunique()
        words = (
            f"The images of {fraction:.0%} of {patients} patients of site {site} labelled {organ} "
            f"look like known images of another organ; in the training data it is "
            f"{usual[str(organ)]:.0%}."
        )
        checks.append(
            LabelCheck("organ", str(site), "", fraction, limit, patients, fraction <= limit, words)
        )
    return checks, familiar


def _organ_features(
    encoder: Encoder, size: int, corpus: Path, rows: pd.DataFrame
) -> npt.NDArray[np.float64]:
    """Mean patch tokens (N, C) of an encoder without the organ as its input.

    With the organ as its input, the encoder would see the claim instead of the image.
    """
    examples = Examples(corpus, rows, size, stretched=True)
    examples.anatomy = np.full_like(examples.anatomy, NULL_ANATOMY)
    batches = evaluation_batches(examples, _BATCH_SIZE)
    images = ((eval_view(batch, size).image, batch.anatomy) for batch in batches)
    return embed(encoder, images, local_device()).astype(np.float64)


def _fraction_of_patients(rows: pd.DataFrame, other: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Organ -> fraction of the patients most of whose images are marked."""
    marked = rows.assign(marked=other).groupby(["anatomy", "group"])["marked"].mean() > 0.5
    return {str(organ): float(part.mean()) for organ, part in marked.groupby("anatomy")}


def _task_rows(rows: pd.DataFrame, settings: Task) -> pd.DataFrame:
    """The rows that have a label of the task."""
    chosen = rows["anatomy"] == settings.anatomy
    if settings.sources:
        chosen &= rows["source"].isin(settings.sources)
    return make_kind(settings).select(rows[chosen])


def _task_checks(
    params: Params,
    task: str,
    settings: Task,
    model: Path,
    corpus: Path,
    new: pd.DataFrame,
    reference: pd.DataFrame,
    familiar: dict[str, bool],
    limits: Limits,
    cached: ReferenceFeatures,
) -> tuple[list[LabelCheck], list[str]]:
    new, reference = _task_rows(new, settings), _task_rows(reference, settings)
    if new.empty:
        return [], [f"{task}: the batch has no label of this task"]
    training = reference[reference["split"] == "train"]
    # The champion is judged on images that it has not trained on; on training images it would agree
    # with any label.
    held_out = reference[reference["split"].isin(["val", "test"])]
    training = thin(training, patients=_REFERENCE_PATIENTS, images=2, seed=params.seed)
    of_new = _task_features(model, corpus, new, settings)
    if task not in cached.tasks:
        cached.tasks[task] = _task_features(model, corpus, training, settings)
        cached.agreement[task] = _agreement(
            score(model, corpus, held_out, settings), len(settings.classes)
        )
        cached.noise[task] = _noise(
            params, cached.tasks[task], training, cached.tasks[task][:0], training[:0], settings
        )
    of_training, expected = cached.tasks[task], cached.agreement[task]
    usual_noise = cached.noise[task]
    scored = score(model, corpus, new, settings)
    new = new.reset_index(drop=True)
    checks: list[LabelCheck] = []
    skipped: list[str] = []
    for site, part in new.groupby("site", sort=True):
        positions = part.index.to_numpy()
        patients = part["group"].nunique()
        # Fewer patients contradict a champion by chance, and one class has no AUROC.
        if patients < MIN_PATIENTS or part["target"].nunique() < 2:
            skipped.append(
                f"{task}: site {site} has {patients} labelled patients of "
                f"{part['target'].nunique()} classes"
            )
            continue
        agreement = _agreement(scored.iloc[positions], len(settings.classes))
        strict = familiar.get(str(site), True)
        checks.append(
            _agreement_check(task, str(site), agreement, expected, patients, strict, limits)
        )
        noise = _noise(params, of_new[positions], part, of_training, training, settings)
        # Beyond the training data's own estimate, since confident learning finds some noise in any
        # labels.
        limit = usual_noise + (limits.label_noise if strict else limits.new_look_noise)
        words = (
            f"Confident learning estimates that {noise:.0%} of the {task} labels of site {site} "
            f"are wrong; of the training labels it is {usual_noise:.0%}."
        )
        checks.append(
            LabelCheck(
                "label-noise", str(site), task, noise, limit, patients, noise <= limit, words
            )
        )
        checks.append(_prior_check(task, str(site), part, training, settings, limits))
    return checks, skipped


def _noise(
    params: Params,
    features: Floats,
    rows: pd.DataFrame,
    reference_features: Floats,
    reference: pd.DataFrame,
    settings: Task,
) -> float:
    """The fraction of wrong labels that confident learning estimates, with patients as units."""
    targets = rows["target"].to_numpy(np.int64)
    probabilities = cross_fitted(
        features,
        targets,
        rows["group"].tolist(),
        reference_features,
        reference["target"].to_numpy(np.int64),
        len(settings.classes),
        params.seed,
    )
    scores, labels = patient_scores(probabilities, targets, rows["group"].tolist())
    return confident_noise(labels, scores)


def _agreement(scored: pd.DataFrame, classes: int) -> float | None:
    """Macro AUROC of the champion over patients; None where a class is missing."""
    columns = [f"score_{c}" for c in range(classes)]
    scores, labels = patient_scores(
        scored[columns].to_numpy(np.float64),
        scored["label"].to_numpy(np.int64),
        scored["patient"].tolist(),
    )
    if len(set(labels.tolist())) < 2:
        return None
    if classes == 2:
        return float(macro_auroc(labels, scores))
    # A batch need not have every view; the mean is over the classes that it has.
    present = sorted(set(labels.tolist()))
    return float(
        np.mean(
            [
                macro_auroc((labels == c).astype(int), np.stack([1 - s, s], axis=1))
                for c in present
                for s in [scores[:, c]]
            ]
        )
    )


def _agreement_check(
    task: str,
    site: str,
    agreement: float | None,
    expected: float | None,
    patients: int,
    strict: bool,
    limits: Limits,
) -> LabelCheck:
    expected = 0.5 if expected is None else expected
    limit = expected - limits.agreement_loss
    if not strict:
        limit = min(limit, limits.new_look_agreement)
    value = 0.5 if agreement is None else agreement
    words = (
        f"The champion agrees with the {task} labels of site {site} with an AUROC of {value:.3f}; "
        f"with its own test labels it is {expected:.3f}."
    )
    return LabelCheck("agreement", site, task, value, limit, patients, value >= limit, words)


def _prior_check(
    task: str,
    site: str,
    part: pd.DataFrame,
    training: pd.DataFrame,
    settings: Task,
    limits: Limits,
) -> LabelCheck:
    labels, reference = (
        table.groupby(groups(table))["target"].agg(lambda values: values.mode().iloc[0])
        for table in (part, training)
    )
    distance, p_value = prior_distance(
        labels.to_numpy(np.int64), reference.to_numpy(np.int64), len(settings.classes)
    )
    # Both: a large distance of few patients is chance, and a significant one of many may be tiny.
    passed = distance <= limits.class_prior or p_value >= _P_PRIOR
    words = (
        f"The class fractions of {task} at site {site} differ from the training data by "
        f"{distance:.0%} (p = {p_value:.4f})."
    )
    return LabelCheck(
        "class-prior", site, task, distance, limits.class_prior, len(labels), passed, words
    )


def _task_features(
    model: Path, corpus: Path, rows: pd.DataFrame, settings: Task
) -> npt.NDArray[np.float64]:
    """Mean patch tokens (N, C) of the champion's encoder for the task."""
    network, config = load_task_model(model)
    examples = Examples(corpus, rows, config.size, stretched=True)
    batches = evaluation_batches(examples, _BATCH_SIZE)
    images = ((eval_view(batch, config.size).image, batch.anatomy) for batch in batches)
    return embed(network.encoder, images, local_device()).astype(np.float64)


def with_group(rows: pd.DataFrame) -> pd.DataFrame:
    """Manifest rows with unique labels and their `group`."""
    rows = rows.reset_index(drop=True)
    return rows.assign(group=groups(rows))

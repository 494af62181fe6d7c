"""Checks of the labels of an arriving batch, before anything is trained on them.

A shift of the images is a reason to retrain. A contradiction between labels and images is not: it
holds the batch for a person. The checks compare the labels with what the champion says of the
images, with each other (confident learning: Northcutt, Jiang, Chuang 2021, "Confident Learning:
Estimating Uncertainty in Dataset Labels", eq. 1 and 2), and the images with the organ that they
are said to show and with the images that judge models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from arl.documents import Document

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CheckName = Literal["agreement", "label-noise", "class-prior", "organ", "test-image"]

MIN_PATIENTS = 8  # labelled patients of a site and task; fewer cannot contradict a champion
_FOLDS = 5
_NEIGHBOURS = 5
_PENALTY = 0.1  # C of the logistic regression: few images, many features


@dataclass(frozen=True)
class Limits:
    """Limits of the checks; a batch beyond one of them is held for a person.

    The champion is a competent judge of images like those that it knows. Of a new scanner it is a
    poor one, and only a plain contradiction counts: the limits with `new_look`.

    Attributes:
        agreement_loss: AUROC by which the champion may agree less with arriving labels than with
            its own test labels.
        new_look_agreement: least AUROC of the champion on images of a new look.
        label_noise: fraction of wrong labels that confident learning may estimate, beyond its
            estimate for the training data.
        new_look_noise: the same on images of a new look.
        class_prior: total variation distance between the class fractions of the batch and of the
            training data, where the difference is significant.
        organ: fraction of patients whose images look like known images of another organ than the
            one named, beyond that of the training data.
        test_images: fraction of images that are near-identical to test images. A few pairs are
            alike by chance.
        familiar: fraction of images that lie as close to training images as these do to each
            other, below which the batch has a new look.
    """

    agreement_loss: float = 0.2
    new_look_agreement: float = 0.5
    label_noise: float = 0.08
    new_look_noise: float = 0.45
    class_prior: float = 0.3
    organ: float = 0.1
    test_images: float = 0.05
    familiar: float = 0.5


@dataclass(frozen=True)
class LabelCheck:
    """One check of one site's labels.

    Attributes:
        task: a task's name; empty for checks that concern no task.
        value: the measured quantity, compared with `limit`.
        words: the result as a sentence.
    """

    check: CheckName
    site: str
    task: str
    value: float
    limit: float
    patients: int
    passed: bool
    words: str


@dataclass(frozen=True)
class LabelReport(Document):
    """labels.json: the checks of a batch's labels, and why others were not possible."""

    FORMAT: ClassVar[str] = "arl.labels"
    VERSION: ClassVar[int] = 1

    checks: list[LabelCheck] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[LabelCheck]:
        """The checks that hold the batch."""
        return [check for check in self.checks if not check.passed]


def patient_scores(scores: Floats, labels: Ints, patients: Sequence[str]) -> tuple[Floats, Ints]:
    """Mean scores (P, K) and labels (P,) of each patient and label.

    Images of a patient are alike, so a patient counts once per label.
    """
    frame = pd.DataFrame(scores).assign(patient=np.asarray(patients, str), label=labels)
    means = frame.groupby(["patient", "label"], sort=True).mean()
    return means.to_numpy(np.float64), means.index.get_level_values("label").to_numpy(np.int64)


def cross_fitted(
    features: Floats,
    labels: Ints,
    patients: Sequence[str],
    reference_features: Floats,
    reference_labels: Ints,
    classes: int,
    seed: int,
) -> Floats:
    """Class probabilities (N, K) of a batch from models that have not seen the patient.

    A logistic regression on the champion's features, fitted to the reference and to the other folds
    of the batch. It adapts to a new scanner, which the champion does not, and is not misled by a
    minority of wrong labels.

    Args:
        features: (N, C), with labels (N,) and patients.
        reference_features: (M, C), with labels (M,).
    """
    probabilities = np.full((len(labels), classes), np.nan)
    folds = min(_FOLDS, len(set(patients)))
    # Grouped by patient: a model that has seen one image of a patient knows the labels of the
    # others.
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # Both sides count the same, however many images the reference has.
    for rest, fold in splitter.split(features, labels, np.asarray(patients, str)):
        together = np.concatenate([features[rest], reference_features])
        targets = np.concatenate([labels[rest], reference_labels])
        weights = np.concatenate(
            [
                np.full(len(rest), 1 / max(1, len(rest))),
                np.full(len(reference_labels), 1 / max(1, len(reference_labels))),
            ]
        )
        weights *= len(targets) / weights.sum()
        # A strong penalty keeps the model from learning single wrong labels by heart.
        model = make_pipeline(StandardScaler(), LogisticRegression(C=_PENALTY, max_iter=500))
        model.fit(together, targets, logisticregression__sample_weight=weights)
        classes_ = model.classes_
        probabilities[np.ix_(fold, classes_)] = model.predict_proba(features[fold])
    return np.asarray(np.nan_to_num(probabilities), np.float64)


def confident_noise(labels: Ints, probabilities: Floats) -> float:
    """Fraction of labels that confident learning estimates as wrong.

    The threshold of a class is the mean probability of that class over the images labelled with it.
    An image counts for the class of its highest probability among those that reach their threshold
    (eq. 1); the confident joint is calibrated to the counts of the labels (eq. 2).

    Args:
        labels: (N,) class indices.
        probabilities: (N, K), from models that have not seen the image's patient.
    """
    classes = probabilities.shape[1]
    # A class without images gets no threshold, and no image counts for it.
    thresholds = np.full(classes, np.inf)
    for c in np.unique(labels):
        thresholds[c] = probabilities[labels == c, c].mean()
    reached = np.where(probabilities >= thresholds, probabilities, -np.inf)
    counted = np.isfinite(reached.max(axis=1))
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], reached.argmax(axis=1)[counted]), 1)
    sums = joint.sum(axis=1, keepdims=True)
    counts = np.bincount(labels, minlength=classes)[:, None]
    calibrated = np.divide(joint, sums, out=np.zeros_like(joint), where=sums > 0) * counts
    total = calibrated.sum()
    return float(1 - np.trace(calibrated) / total) if total else 0.0


def prior_distance(labels: Ints, reference: Ints, classes: int) -> tuple[float, float]:
    """Total variation distance of the class fractions, and the p-value that they are equal.

    Args:
        labels: (P,) of the batch, one per patient.
        reference: (M,) of the training data, one per patient.
    """
    table = np.stack([np.bincount(part, minlength=classes) for part in (labels, reference)])
    fractions = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(fractions[0] - fractions[1]).sum() / 2)
    # scipy refuses a column without any count.
    used = table[:, table.sum(axis=0) > 0]
    if used.shape[1] < 2:
        return distance, 1.0
    return distance, float(chi2_contingency(used, correction=False).pvalue)


@dataclass(frozen=True)
class Neighbours:
    """The nearest training images of N images.

    Attributes:
        other: (N,) whether most of them show another organ than the one named.
        distance: (N,) to the nearest one.
    """

    other: npt.NDArray[np.bool_]
    distance: Floats


def find_neighbours(
    features: Floats,
    organs: Sequence[str],
    reference: Floats,
    reference_organs: Sequence[str],
    excluded: npt.NDArray[np.bool_] | None = None,
) -> Neighbours:
    """Compare images with their nearest training images.

    Args:
        features: (N, C) of an encoder without the organ as its input.
        organs: (N,) as the batch names them.
        reference: (M, C), with the organs (M,) of the training images.
        excluded: (N, M) training images that are no neighbours, such as those of the same patient.
    """
    squares = (
        (features**2).sum(axis=1)[:, None] + (reference**2).sum(axis=1) - 2 * features @ reference.T
    )
    if excluded is not None:
        # Infinitely far, so that the number of neighbours stays the same for all images.
        squares = np.where(excluded, np.inf, squares)
    nearest = np.argsort(squares, axis=1, kind="stable")[:, :_NEIGHBOURS]
    agree = np.asarray(reference_organs, str)[nearest] == np.asarray(organs, str)[:, None]
    distance = np.sqrt(np.maximum(np.take_along_axis(squares, nearest[:, :1], 1)[:, 0], 0))
    return Neighbours(np.asarray(agree.mean(axis=1) < 0.5), distance)

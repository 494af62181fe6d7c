"""Metrics of classification and segmentation, as functions of plain arrays.

Accuracy, sensitivity and specificity are functions of one confusion matrix, so that the three
always describe the same decisions.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DECIMALS = 6  # of every number in a JSON file of results
CALIBRATION_BINS = 15
TITLES = {  # of metrics, in the order of a table
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "top1": "Top-1",
    "top3": "Top-3",
    "dice": "Dice",
    "iou": "IoU",
    "brier": "Brier score",
    "ece": "calibration error",
}


def check_scores(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Labels (n,) as integers and scores (n,) or (n, k) as float64.

    Raises:
        ValueError: other lengths, nothing at all, a score that is not finite, or a label outside
            the classes.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or s.ndim not in (1, 2) or len(y) != len(s):
        raise ValueError(
            f"labels of shape {y.shape} and scores of shape {s.shape} are not of the same images"
        )
    if not len(y):
        raise ValueError("there are no images to measure")
    # scikit-learn would fail later with a message about its own arrays.
    undefined = int((~np.isfinite(s)).reshape(len(s), -1).any(axis=1).sum())
    if undefined:
        raise ValueError(f"{undefined} of {len(s)} images have a score that is not a finite number")
    classes = 2 if s.ndim == 1 else s.shape[1]
    strange = sorted(set(np.unique(y)) - set(range(classes)))
    if strange:
        raise ValueError(
            f"labels {[str(v) for v in strange]} are not class indices 0..{classes - 1}"
        )
    return y.astype(np.int64), s


def check_classes(labels: Ints, classes: int) -> None:
    """Refuse labels (n,) that lack a class.

    Raises:
        ValueError: a class has no image.
    """
    missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0).tolist()
    if missing:
        raise ValueError(
            f"no image of class {missing} among {len(labels)}: this metric needs every class"
        )


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve of labels 0 and 1 (n,) and scores (n,); ties count one half.

    Raises:
        ValueError: see `check_scores`, or only one class is there.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, 2)
    return float(roc_auc_score(y, s))


def macro_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean of the one-versus-rest AUROCs of scores (n, k); of two classes, the AUROC of the second.

    Raises:
        ValueError: see `check_scores`, or a class has no image.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, s.shape[1])
    if s.shape[1] == 2:
        return auroc(y, s[:, 1])
    return float(np.mean([auroc(y == c, s[:, c]) for c in range(s.shape[1])]))


def youden_threshold(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The threshold of the largest sensitivity + specificity - 1; positive is score >= threshold.

    It lies half-way between the two neighbouring scores; of several best cuts the highest is taken.
    Use validation images only: a threshold chosen on the test set flatters.

    Raises:
        ValueError: see `auroc`.
    """
    y, s = check_scores(labels, scores)
    check_classes(y, 2)
    false_positive, true_positive, cuts = roc_curve(y, s, drop_intermediate=False)
    best = 1 + int(
        np.argmax((true_positive - false_positive)[1:])
    )  # cut 0 is infinite: nothing is positive
    # Half-way, since a threshold at a score itself flips with the last bit of that score.
    below = cuts[best + 1] if best + 1 < len(cuts) else cuts[best]
    return float((cuts[best] + below) / 2)


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Ints:
    """Counts (classes, classes), truth in rows and prediction in columns.

    Raises:
        ValueError: other lengths, or an index outside 0..classes-1.
    """
    y, p = np.asarray(labels), np.asarray(predicted)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(
            f"labels of shape {y.shape} and predictions of shape {p.shape} are not of the same"
            " images"
        )
    both = np.concatenate([y, p]).astype(np.int64)
    if len(both) and (both.min() < 0 or both.max() >= classes):
        raise ValueError(f"class indices {both.min()}..{both.max()} do not fit {classes} classes")
    return np.bincount(
        y.astype(np.int64) * classes + p.astype(np.int64), minlength=classes**2
    ).reshape(classes, classes)


def accuracy(confusion: Ints) -> float:
    """Share of the images on the diagonal of a confusion matrix; nan when it is empty."""
    return _fraction(int(np.trace(confusion)), int(confusion.sum()))


def sensitivity(confusion: Ints) -> float:
    """Share of class 1 called 1 in a (2, 2) confusion matrix; nan when there is none."""
    return _fraction(int(confusion[1, 1]), int(confusion[1].sum()))


def specificity(confusion: Ints) -> float:
    """Share of class 0 called 0 in a (2, 2) confusion matrix; nan when there is none."""
    return _fraction(int(confusion[0, 0]), int(confusion[0].sum()))


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def top_k_hits(labels: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> Bools:
    """Whether each label is among its k highest scores (n, c); equal scores rank by class index.

    Raises:
        ValueError: see `check_scores`, or k is not in 1..c.
    """
    y, s = check_scores(labels, scores)
    if not 1 <= k <= s.shape[1]:
        raise ValueError(f"top-{k} of {s.shape[1]} classes is not defined")
    # Stable, so that a model with equal scores does not gain from the order of its classes.
    ranked = np.argsort(-s, axis=1, kind="stable")[:, :k]
    return np.asarray((ranked == y[:, None]).any(axis=1))


def top_k(labels: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> float:
    """Share of the images with the label among the k highest scores; errors as `top_k_hits`."""
    return float(top_k_hits(labels, scores, k).mean())


def dice(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """2|A∩B| / (|A|+|B|) of two masks; 1 when both are empty, since nothing is rightly marked.

    Raises:
        ValueError: the masks differ in shape.
    """
    p, t = _masks(predicted, truth)
    total = int(p.sum()) + int(t.sum())
    return 2 * int((p & t).sum()) / total if total else 1.0


def iou(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """|A∩B| / |A∪B| of two masks; 1 when both are empty, as for `dice`.

    Raises:
        ValueError: the masks differ in shape.
    """
    p, t = _masks(predicted, truth)
    union = int((p | t).sum())
    return int((p & t).sum()) / union if union else 1.0


def _masks(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Bools, Bools]:
    p, t = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    if p.shape != t.shape:
        raise ValueError(
            f"a predicted mask of shape {p.shape} does not fit the true mask of shape {t.shape}"
        )
    return p, t


class Reliability(NamedTuple):
    """Bins of about equal numbers of images, by rising probability; each array (bins,)."""

    probability: Floats  # mean predicted probability
    observed: Floats  # fraction of positive outcomes
    images: Ints


def calibration_bins(probabilities: Floats, bins: int = CALIBRATION_BINS) -> tuple[Ints, Ints]:
    """The order of probabilities (n,) by size, and where in it each equal-mass bin starts.

    Equal probabilities share a bin, so that the bins do not depend on the order of the rows.
    """
    order = np.argsort(probabilities, kind="stable")
    ordered = probabilities[order]
    sizes = [len(part) for part in np.array_split(order, min(bins, len(order)))]
    cuts = np.cumsum(sizes)[:-1]
    # A cut inside of a run of ties moves to the nearer end of the run.
    first = np.searchsorted(ordered, ordered[cuts], "left")
    last = np.searchsorted(ordered, ordered[cuts], "right")
    cuts = np.where(cuts - first <= last - cuts, first, last)
    starts = np.unique(np.concatenate([[0], cuts[cuts < len(order)]]))
    return order, starts.astype(np.int64)


def reliability(
    outcomes: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> Reliability:
    """Predicted probability (n,) against observed outcome (n,) in the bins of `calibration_bins`.

    Raises:
        ValueError: see `check_scores`, or a probability outside 0..1.
    """
    y, p = check_scores(outcomes, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities of {p.min():g} to {p.max():g} are not within 0..1")
    order, starts = calibration_bins(p, bins)
    images = np.diff(np.append(starts, len(p)))
    return Reliability(
        np.add.reduceat(p[order], starts) / images,
        np.add.reduceat(y[order], starts) / images,
        images,
    )


def expected_calibration_error(
    outcomes: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Mean distance of probability and outcome over equal-mass bins (Nguyen & O'Connor 2015)."""
    table = reliability(outcomes, probabilities, bins)
    return float(np.average(np.abs(table.probability - table.observed), weights=table.images))


def brier_losses(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Brier's squared error of each image (n,) for probabilities (n, k), as scikit-learn scales it.

    Two classes: (p - y)² of the second; more: the sum over classes.
    """
    y, s = check_scores(labels, scores)
    losses = ((s - np.eye(s.shape[1])[y]) ** 2).sum(axis=1)
    # The sum over two classes counts the same error twice.
    return np.asarray(losses / 2 if s.shape[1] == 2 else losses)


def rounded(value: Any, decimals: int = DECIMALS) -> Any:
    """The same structure with floats rounded for JSON; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {key: rounded(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, decimals) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), decimals) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value

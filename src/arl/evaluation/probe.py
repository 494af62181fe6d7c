"""A linear probe and k nearest neighbours on frozen features, as plain arrays."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from arl.evaluation.metrics import Floats, Ints, check_classes, macro_auroc

STRENGTHS = tuple(float(c) for c in np.logspace(-5, 1, 13))  # C, the inverse of the L2 penalty
RATES = tuple(float(rate) for rate in np.logspace(-3, 1.5, 13))  # of `sgd_probe`, per 256 images
NEIGHBOURS = 10  # of `knn_accuracy`
_ITERATIONS = 1000


class Part(NamedTuple):
    """Features (n, d) of the images of a split, and their class indices (n,)."""

    features: Floats
    labels: Ints


class ProbeScores(NamedTuple):
    """Class probabilities (n, k) of the test images, and the strength that validation chose."""

    scores: Floats
    strength: float
    validation: Floats  # class probabilities of the validation images


def linear_probe(
    train: Part,
    val: Part,
    test: Part,
    strengths: tuple[float, ...] = STRENGTHS,
    *,
    batch_norm: bool = True,
) -> ProbeScores:
    """Logistic regression; `batch_norm` standardises features, as MAE's linear probing does.

    The convex problem is solved to its end for each penalty, so there is neither a learning rate
    nor a seed; the penalty is the one of the greatest macro AUROC on the validation images.

    Raises:
        ValueError: a split lacks a class, or a feature is not a finite number.
    """
    _check_parts(train, val, test)
    fitted = [(_fit(train, strength, batch_norm), strength) for strength in strengths]
    model, strength = max(
        fitted, key=lambda one: macro_auroc(val.labels, one[0].predict_proba(val.features))
    )
    return ProbeScores(
        model.predict_proba(test.features), strength, model.predict_proba(val.features)
    )


def sgd_probe(
    train: Part,
    val: Part,
    test: Part,
    rates: tuple[float, ...] = RATES,
    *,
    batch_norm: bool = True,
    epochs: int = 90,
    batch_size: int = 256,
    seed: int = 0,
    views: Floats | None = None,
) -> ProbeScores:
    """The paper's probe: SGD with momentum 0.9 on a linear layer, all learning rates at once.

    The paper gives neither rates nor epochs. The rates are per 256 images and fall along a cosine.
    The probe takes the rate with the greatest macro AUROC on the validation images.

    Args:
        views: (V, n, d), features of augmented views of the training images. Epoch e trains on
            view e modulo V. None: every epoch trains on `train`.

    Raises:
        ValueError: see `linear_probe`.
    """
    classes = _check_parts(train, val, test)
    mean, scale = _standard(train.features) if batch_norm else (0.0, 1.0)
    parts = [
        torch.tensor((part.features - mean) / scale, dtype=torch.float32)
        for part in (train, val, test)
    ]
    # Without views, the one and only view is the training images themselves.
    inputs = parts[0].unsqueeze(0)
    if views is not None:
        inputs = torch.tensor((views - mean) / scale, dtype=torch.float32)
    heads = _train_heads(
        inputs, torch.tensor(train.labels), classes, rates, epochs, batch_size, seed
    )
    on_val, on_test = (_head_scores(heads, part) for part in parts[1:])
    # a rate that diverged has scores that are no numbers
    quality = [macro_auroc(val.labels, s) if np.isfinite(s).all() else -1.0 for s in on_val]
    best = int(np.argmax(quality))
    return ProbeScores(on_test[best], rates[best], on_val[best])


def _standard(features: Floats) -> tuple[Floats, Floats]:
    spread = features.std(axis=0)
    # A constant feature says nothing, and would be divided by zero.
    return features.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _train_heads(
    features: Tensor,
    labels: Tensor,
    classes: int,
    rates: tuple[float, ...],
    epochs: int,
    batch_size: int,
    seed: int,
) -> Tensor:
    """Weights (rates, 1 + d, classes) from features (V, n, d), the bias first.

    All heads see the same batches.
    """
    count = features.shape[1]
    # One head per rate, trained at once: a batched product costs little more than one head.
    weights = torch.zeros(len(rates), 1 + features.shape[2], classes)
    momentum = torch.zeros_like(weights)
    size = min(batch_size, count)
    # The linear scaling rule: rates are per 256 images (Goyal et al. 2017).
    base = torch.tensor(rates).view(-1, 1, 1) * size / 256
    targets = torch.nn.functional.one_hot(labels, classes).float()
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (count // size)
    for step in range(steps):
        epoch, at = divmod(step, count // size)
        if at == 0:
            order = torch.randperm(count, generator=generator)
            view = features[epoch % len(features)]
            inputs = torch.cat([torch.ones(count, 1), view], dim=1)
        chosen = order[at * size : (at + 1) * size]
        error = (inputs[chosen] @ weights).softmax(dim=2) - targets[chosen]
        momentum = 0.9 * momentum + inputs[chosen].T @ error / size
        weights = weights - base * 0.5 * (1 + math.cos(math.pi * step / steps)) * momentum
    return weights


def _head_scores(heads: Tensor, features: Tensor) -> Floats:
    """(rates, n, classes)."""
    inputs = torch.cat([torch.ones(len(features), 1), features], dim=1)
    return np.asarray((inputs @ heads).double().softmax(dim=2).numpy())


def _check_parts(train: Part, val: Part, test: Part) -> int:
    """The number of classes, all of which every part has."""
    # Over all parts: the class of the highest index may be missing from the training part.
    classes = 1 + int(max(part.labels.max(initial=0) for part in (train, val, test)))
    for name, part in (("train", train), ("val", val), ("test", test)):
        if not np.isfinite(part.features).all():
            raise ValueError(f"{name}: a feature is not a finite number")
        try:
            check_classes(part.labels, classes)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return classes


def _fit(train: Part, strength: float, batch_norm: bool) -> Pipeline:
    head = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    model = make_pipeline(StandardScaler(), head) if batch_norm else make_pipeline(head)
    with warnings.catch_warnings():
        # weak penalties lose to stronger ones on the validation images long before they have
        # converged
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted: Pipeline = model.fit(train.features, train.labels)
    return fitted


def knn_scores(train: Part, features: Floats, k: int = 20, temp: float = 0.07) -> Floats:
    """Class probabilities (n, classes) of features (n, d) by votes of the k nearest.

    A vote weighs exp(cosine / temp).

    The weighted k-NN classifier of DINO (Caron et al. 2021; Wu et al. 2018).

    Raises:
        ValueError: fewer than k training images.
    """
    if len(train.labels) < k:
        raise ValueError(
            f"{len(train.labels)} training images are fewer than the {k} neighbours asked for"
        )
    cosine = _unit(features) @ _unit(train.features).T
    nearest = _nearest(cosine, k)
    weight = np.exp(np.take_along_axis(cosine, nearest, axis=1) / temp)
    return _votes(train.labels[nearest], weight, int(train.labels.max()) + 1)


def _nearest(cosine: Floats, k: int) -> Ints:
    """Columns (n, k) of the k greatest of each row."""
    # A partition instead of a sort: the order among the k nearest does not matter.
    return np.argpartition(-cosine, k - 1, axis=1)[:, :k].astype(np.int64)


def _votes(labels: Ints, weight: Floats, classes: int) -> Floats:
    """Share (n, classes) of the weight (n, k) that each class has among labels (n, k)."""
    votes = np.zeros((len(labels), classes))
    np.add.at(votes, (np.arange(len(labels))[:, None], labels), weight)
    fractions: Floats = votes / votes.sum(axis=1, keepdims=True)
    return fractions


def _unit(features: Floats) -> Floats:
    length: Floats = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float64).tiny)


def knn_accuracy(
    features: Floats, labels: npt.ArrayLike, patients: npt.ArrayLike, k: int = NEIGHBOURS
) -> float:
    """Balanced accuracy of the majority vote of the k nearest images of other patients.

    A sign of health to follow over a training, on one pool (features (n, d)); no figure to report.

    Raises:
        ValueError: a patient leaves fewer than k images of others.
    """
    codes, groups = (
        np.unique(np.asarray(one).astype(str), return_inverse=True)[1] for one in (labels, patients)
    )
    if len(groups) - np.bincount(groups).max() < k:
        raise ValueError(
            f"a patient leaves fewer than {k} of {len(groups)} images to be neighbours"
        )
    cosine = _unit(features) @ _unit(features).T
    # Images of one patient are near-copies, and would make every encoder look perfect.
    cosine[groups[:, None] == groups] = -np.inf
    neighbours = codes[_nearest(cosine, k)]
    right = (
        _votes(neighbours, np.ones(neighbours.shape), int(codes.max()) + 1).argmax(axis=1) == codes
    )
    # The mean over classes: a collapsed encoder that always votes for the commonest class gets 1 /
    # classes.
    return float(np.mean([right[codes == code].mean() for code in np.unique(codes)]))

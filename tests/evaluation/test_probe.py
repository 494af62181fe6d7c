import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from arl.evaluation.probe import Part, knn_accuracy, knn_scores, linear_probe, sgd_probe


def blobs(count: int, seed: int, distance: float = 1.5) -> Part:
    """Two classes, apart in the third of seven dimensions, whose scales differ by a thousand."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = rng.normal(size=(count, 7))
    features[:, 2] += distance * labels
    return Part(features * np.logspace(-3, 0, 7), labels)


def test_the_probe_is_scikit_learns_on_standardised_features() -> None:
    train, val, test = blobs(101, 0), blobs(53, 1), blobs(97, 2)
    probed = linear_probe(train, val, test, strengths=(0.1,))
    mean, std = train.features.mean(axis=0), train.features.std(axis=0)
    model = LogisticRegression(C=0.1).fit((train.features - mean) / std, train.labels)
    np.testing.assert_allclose(
        probed.scores, model.predict_proba((test.features - mean) / std), atol=1e-4
    )
    assert roc_auc_score(test.labels, probed.scores[:, 1]) > 0.75


def test_validation_images_choose_the_penalty() -> None:
    rng = np.random.default_rng(0)
    noise = Part(rng.normal(size=(41, 37)), rng.permutation(np.arange(41) % 2))
    # on its own training images a probe of noise is best without a penalty
    assert linear_probe(noise, noise, noise, strengths=(1e-5, 10.0)).strength == 10.0
    train, other = blobs(43, 3), blobs(211, 4)
    crowded = [
        Part(np.hstack([part.features, rng.normal(size=(len(part.labels), 61))]), part.labels)
        for part in (train, other)
    ]
    assert linear_probe(crowded[0], crowded[1], crowded[1], strengths=(1e-3, 10.0)).strength == 1e-3


def test_more_than_two_classes() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(60) % 3
    part = Part(np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3)), labels)
    scores = linear_probe(part, part, part).scores
    assert scores.shape == (60, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == labels).all()


def test_without_batch_norm_features_stay_as_they_are() -> None:
    train, val, test = blobs(101, 0), blobs(53, 1), blobs(97, 2)
    probed = linear_probe(train, val, test, strengths=(0.1,), batch_norm=False)
    model = LogisticRegression(C=0.1).fit(train.features, train.labels)
    np.testing.assert_allclose(probed.scores, model.predict_proba(test.features), atol=1e-4)


def test_sgd_ends_where_logistic_regression_without_a_penalty_does() -> None:
    train, val, test = blobs(211, 0), blobs(53, 1), blobs(97, 2)
    mean, std = train.features.mean(axis=0), train.features.std(axis=0)
    model = LogisticRegression(C=1e6).fit((train.features - mean) / std, train.labels)
    probed = sgd_probe(train, val, test, rates=(1.0,), epochs=400)
    np.testing.assert_allclose(
        probed.scores, model.predict_proba((test.features - mean) / std), atol=0.01
    )


def test_validation_images_choose_the_learning_rate_of_independent_heads() -> None:
    train, val, test = blobs(101, 0), blobs(211, 1), blobs(97, 2)
    together = sgd_probe(train, val, test, rates=(1e-9, 1.0, 1e30), epochs=30)
    alone = sgd_probe(train, val, test, rates=(1.0,), epochs=30)
    assert together.strength == 1.0
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-6)
    again = sgd_probe(train, val, test, rates=(1.0,), epochs=30)
    np.testing.assert_array_equal(again.scores, alone.scores)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_without_a_class_is_refused_by_name(name: str) -> None:
    parts = {key: blobs(11, 0) for key in ("train", "val", "test")}
    parts[name] = Part(parts[name].features[::2], parts[name].labels[::2])
    with pytest.raises(ValueError, match=rf"{name}: no image of class \[1\]"):
        linear_probe(**parts)


def test_features_that_are_no_numbers_are_refused() -> None:
    part = blobs(11, 0)
    part.features[3, 2] = np.nan
    with pytest.raises(ValueError, match="val: a feature is not a finite number"):
        linear_probe(blobs(11, 1), part, blobs(11, 2))


def test_neighbours_vote_with_the_weight_of_their_cosine() -> None:
    train, test = blobs(23, 6), blobs(5, 7)
    scores = knn_scores(train, test.features, k=3, temp=0.1)
    for row, feature in zip(scores, test.features, strict=True):
        cosines = [
            feature @ one / np.linalg.norm(feature) / np.linalg.norm(one) for one in train.features
        ]
        nearest = sorted(range(23), key=lambda index: -cosines[index])[:3]
        votes = [
            sum(np.exp(cosines[i] / 0.1) for i in nearest if train.labels[i] == label)
            for label in (0, 1)
        ]
        np.testing.assert_allclose(row, np.array(votes) / sum(votes))


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="5 training images are fewer than the 7 neighbours"):
        knn_scores(blobs(5, 0), blobs(3, 1).features, k=7)


def test_a_patients_own_images_are_no_neighbours() -> None:
    # pairs of images of one patient are alike, and their label is that of no other patient nearby
    rng = np.random.default_rng(8)
    directions = rng.normal(size=(13, 5))
    features = np.repeat(directions, 2, axis=0) + 0.01 * rng.normal(size=(26, 5))
    labels, patients = (
        np.repeat(np.arange(13) % 2, 2).astype(str),
        np.repeat(np.arange(13), 2).astype(str),
    )
    assert knn_accuracy(features, labels, np.arange(26).astype(str), k=1) == 1.0
    assert knn_accuracy(features, labels, patients, k=1) < 0.8


def test_accuracy_is_the_mean_over_the_classes() -> None:
    # nine images of one class and two of another; all call the first
    features, labels = np.ones((11, 3)), np.array(["a"] * 9 + ["b"] * 2)
    assert knn_accuracy(features, labels, np.arange(11), k=7) == 0.5


def test_a_pool_of_one_patient_is_refused() -> None:
    with pytest.raises(ValueError, match="a patient leaves fewer than 3 of 7 images"):
        knn_accuracy(np.ones((7, 3)), np.arange(7) % 2, np.zeros(7), k=3)


def test_each_epoch_of_sgd_trains_on_the_next_view() -> None:
    """Equal views are no augmentation; a view that is never reached changes nothing."""
    train, val, test = (blobs(61, seed) for seed in (1, 2, 3))
    plain = sgd_probe(train, val, test, rates=(1.0,), epochs=3)
    equal = np.stack([train.features] * 3)
    same = sgd_probe(train, val, test, rates=(1.0,), epochs=3, views=equal)
    np.testing.assert_array_equal(same.scores, plain.scores)
    moved = equal.copy()
    moved[2] += 1
    other = sgd_probe(train, val, test, rates=(1.0,), epochs=3, views=moved)
    assert not np.allclose(other.scores, plain.scores)
    unreached = sgd_probe(train, val, test, rates=(1.0,), epochs=2, views=moved)
    two = sgd_probe(train, val, test, rates=(1.0,), epochs=2)
    np.testing.assert_array_equal(unreached.scores, two.scores)

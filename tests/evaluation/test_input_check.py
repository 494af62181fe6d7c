"""The check that tells foreign inputs from a task's own images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from arl.evaluation.appearance import SIZE, appearance, binary_patterns, spectrum
from arl.evaluation.input_check import (
    FILE,
    REFUSED,
    Distance,
    InputCheck,
    Verdict,
    appearances,
    pooled_tokens,
    verdict_of,
)
from arl.models.avit import AViT
from arl.phantoms.examination import examine
from arl.phantoms.scanner import ALPHA


def breast(patient: int) -> np.ndarray:
    image = examine("breast", ALPHA, (3, patient), ["benign"], 96)[0].image
    return cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA)


def text_page() -> np.ndarray:
    page = np.full((300, 240), 255, np.uint8)
    for y in range(20, 300, 24):
        cv2.putText(page, "findings of the", (5, y), 0, 0.6, 0, 1, cv2.LINE_AA)
    return page


def test_a_distance_is_scipys_in_units_of_the_conformal_quantile() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    training, validation = (rng.normal(size=(n, 3)) @ mixing for n in (701, 39))
    distance = Distance.fit(training, validation, alpha=0.025)
    assert distance(validation).max() == pytest.approx(1)  # rank 39 of 39
    standard = (validation - distance.mean) / distance.scale
    expected = mahalanobis(standard[5], np.zeros(3), distance.precision) / distance.limit
    assert distance(validation)[5] == pytest.approx(expected)
    larger = np.vstack([validation] * 4)[: 4 * 39 - 5]
    again = Distance.fit(training, larger, alpha=0.2)
    rank = int(np.ceil((len(larger) + 1) * 0.8))
    assert np.sort(again(larger))[rank - 1] == pytest.approx(1)


def test_at_most_alpha_of_new_images_are_unusual() -> None:
    rng = np.random.default_rng(1)
    flagged = []
    for _ in range(40):
        looks, tokens = rng.normal(size=(500, 5)), rng.normal(size=(500, 7))
        training, validation, new = (slice(0, 200), slice(200, 300), slice(300, 500))
        parts = [(looks[part], tokens[part]) for part in (training, validation, new)]
        check = InputCheck.fit(parts[0], parts[1], alpha=0.1)
        flagged.append((check.distances(*parts[2]) > 1).mean())
    assert 0.03 < np.mean(flagged) < 0.1


def test_text_noise_and_a_photographed_raster_are_far_from_phantoms() -> None:
    own = appearances(np.stack([breast(i) for i in range(90)]))
    tokens = np.random.default_rng(2).normal(size=(90, 2))
    check = InputCheck.fit((own[:60], tokens[:60]), (own[60:], tokens[60:]))
    raster = np.clip(breast(200).astype(int) + 40 * (np.arange(96) % 4 < 2), 0, 255)
    noise = np.random.default_rng(3).integers(0, 256, (96, 96), dtype=np.uint8)
    for picture in (text_page(), noise, raster.astype(np.uint8)):
        distance = check.distances(appearance(picture)[None], np.zeros((1, 2)))[0]
        assert verdict_of(distance) is Verdict.FOREIGN
    assert verdict_of(1.0) is Verdict.USUAL
    assert verdict_of(REFUSED) is Verdict.UNUSUAL


def test_a_check_survives_the_disk_and_a_model_may_have_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = (rng.normal(size=(31, 5)), rng.normal(size=(31, 3)))
    check = InputCheck.fit(vectors, vectors)
    assert InputCheck.read(tmp_path) is None
    check.write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    again = InputCheck.read(tmp_path)
    assert again is not None
    assert again.distances(*vectors).tolist() == check.distances(*vectors).tolist()
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:99])
    with pytest.raises(ValueError, match="train the model again"):
        InputCheck.read(tmp_path)


def test_no_image_to_learn_from_is_refused() -> None:
    none, some = (np.empty((0, 5)), np.empty((0, 3))), (np.zeros((4, 5)), np.zeros((4, 3)))
    for training, validation in ((none, some), (some, none)):
        with pytest.raises(ValueError, match="usual inputs"):
            InputCheck.fit(training, validation)


def test_tokens_are_pooled_after_three_blocks() -> None:
    torch.manual_seed(0)
    encoder = AViT(img_size=24, patch_size=8, embed_dim=12, depth=5, num_heads=3).eval()
    image, anatomy = torch.randn(2, encoder.in_chans, 24, 24), torch.tensor([0, 3])
    pooled = pooled_tokens(encoder, image, anatomy)
    assert pooled.shape == (2, 6 * 12)
    with torch.no_grad():
        last = encoder.forward_intermediates(
            image, [4], intermediates_only=True, output_fmt="NLC", anatomy=anatomy
        )[0]
    assert pooled[:, 48:60] == pytest.approx(last.mean(dim=1).numpy(), abs=1e-5)
    assert pooled[:, 60:] == pytest.approx(last.std(dim=1).numpy(), abs=1e-5)


def test_statistics_of_known_pictures() -> None:
    wave = np.cos(2 * np.pi * 12 * np.arange(SIZE) / SIZE).astype(np.float32)
    bands = spectrum(np.tile(wave, (SIZE, 1))).reshape(8, 4)
    # 12 cycles a picture lie in the fifth of eight bands, along x
    assert bands[:, 0].argmax() == 4
    assert bands[4, 1] > 0 > bands[4, 2]
    flat = binary_patterns(np.full((20, 20), 7, np.int16), 1)
    # eight neighbours that are not darker
    assert flat.tolist() == [0.0] * 8 + [1.0, 0.0]
    assert np.isfinite(appearance(np.zeros((40, 30), np.uint8))).all()

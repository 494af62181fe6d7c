"""Texture against textures of known statistics; one row a patient."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from arl.corpus.manifest import read_manifest
from arl.corpus.shard_reader import read_images
from arl.models.avit import AViT
from arl.monitoring import features
from arl.monitoring.features import (
    adjust_for_anatomy,
    embed,
    image_features,
    patient_features,
    speckle_statistics,
    thin,
)

CPU = torch.device("cpu")


def speckle(rows: int, columns: int, axial: float, lateral: float, scale: float = 60) -> np.ndarray:
    """The envelope of fully developed speckle: Rayleigh, with a Gaussian point spread of these
    widths in pixels.
    """
    rng = np.random.default_rng(0)
    field = rng.normal(size=(2, rows, columns))
    field = [cv2.GaussianBlur(part, (0, 0), sigmaX=lateral, sigmaY=axial) for part in field]
    envelope = np.hypot(*field)
    return (envelope / envelope.mean() * scale).clip(0, 255).astype(np.uint8)


def test_fine_speckle_has_the_snr_of_a_rayleigh_envelope() -> None:
    snr, _, _ = speckle_statistics(speckle(211, 307, 0.4, 0.4))
    assert snr == pytest.approx(1.91, abs=0.1)


def test_speckle_size_is_measured_along_its_own_axis() -> None:
    _, axial, lateral = speckle_statistics(speckle(211, 307, 0.5, 1.5))
    assert lateral > 1.5 * axial
    _, turned_axial, turned_lateral = speckle_statistics(speckle(211, 307, 0.5, 1.5).T)
    assert (turned_axial, turned_lateral) == pytest.approx((lateral, axial))


def test_speckle_size_against_a_loop() -> None:
    rest = np.random.default_rng(1).normal(size=(29, 31)).astype(np.float32)
    rest = cv2.GaussianBlur(rest, (0, 0), 2.0)
    correlation = [
        np.mean([rest[i, j] * rest[i + lag, j] for i in range(29 - lag) for j in range(31)])
        for lag in range(9)
    ]
    wanted = 2 * np.interp(-0.5, -np.array(correlation) / correlation[0], np.arange(9.0))
    assert features._width(rest) == pytest.approx(wanted, rel=1e-4)


def test_an_image_without_echoes_has_no_speckle() -> None:
    assert np.isnan(speckle_statistics(np.zeros((37, 41), np.uint8))).all()
    assert np.isnan(speckle_statistics(np.full((37, 41), 90, np.uint8))).all()


def test_features_of_the_corpus(tiny_corpus: Path) -> None:
    rows = read_manifest(tiny_corpus).iloc[::-1]
    table = image_features(rows, read_images(tiny_corpus, rows))
    assert list(table.index) == list(rows.index)
    assert list(table.columns) == [*features.NUMERIC, *features.CATEGORICAL, "group"]
    assert table["mean"].tolist() == pytest.approx(rows["mean"].tolist())
    assert table["group"].tolist() == rows["patient"].tolist()
    assert table["depth_cm"].isna().all()
    assert table["speckle_snr"].notna().all()
    assert set(table["device"]) == {"scanner 0", "scanner 1"}
    assert len(patient_features(table)) == rows["patient"].nunique()


def test_a_patient_is_a_median_and_a_majority() -> None:
    numbers = {name: [1.0, 5.0, 3.0, 7.0] for name in features.NUMERIC}
    names = {"anatomy": ["b", "a", "b", "a"], "probe": ["b", "a", "a", "c"], "device": ["x"] * 4}
    table = pd.DataFrame({**numbers, **names, "group": ["p2", "p1", "p2", "p2"]})
    patients = patient_features(table)
    assert patients.index.tolist() == ["p1", "p2"]
    assert patients["mean"].tolist() == [5.0, 3.0]
    assert patients.loc["p2", ["anatomy", "probe"]].tolist() == ["b", "a"]


def test_embeddings_do_not_depend_on_the_batches() -> None:
    torch.manual_seed(0)
    encoder = AViT(img_size=16, patch_size=8, embed_dim=12, depth=1, num_heads=3, anatomy_hidden=4)
    images, anatomy = torch.randn(5, 1, 16, 16), torch.tensor([0, 3, 16, 3, 7])
    whole = embed(encoder, [(images, anatomy)], CPU)
    parts = embed(encoder, [(images[:3], anatomy[:3]), (images[3:], anatomy[3:])], CPU)
    assert whole.shape == (5, 12)
    assert whole == pytest.approx(parts, abs=1e-6)
    tokens = encoder.eval().forward_features(images, anatomy).detach().numpy()
    assert whole == pytest.approx(tokens[:, 1:].mean(axis=1), abs=1e-6)


class Recorder(nn.Module):
    """An encoder that records where its weights and inputs are; its output is on the CPU."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.devices: set[str] = set()

    def forward_features(self, x: torch.Tensor, anatomy: torch.Tensor) -> torch.Tensor:
        self.devices |= {one.device.type for one in (self.weight, x, anatomy)}
        return torch.zeros(len(x), 3, 4)


def test_embeddings_are_computed_on_the_device_they_are_given() -> None:
    """The meta device stands for a GPU."""
    encoder = Recorder()
    batches = [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))]
    assert embed(encoder, batches, torch.device("meta")).shape == (2, 4)
    assert encoder.devices == {"meta"}


def test_thinning_keeps_few_images_of_few_patients() -> None:
    rows = pd.DataFrame(
        {"group": ["a"] * 7 + ["b"] * 2 + ["c"] * 5, "frame": [*range(7), *range(2), *range(5)]}
    )
    kept = thin(rows, patients=9, images=3, seed=0)
    assert kept.groupby("group")["frame"].apply(list).to_dict() == {
        "a": [0, 3, 5],
        "b": [0, 1],
        "c": [0, 2, 4],
    }
    assert kept.index.is_monotonic_increasing
    assert thin(rows, patients=2, images=9, seed=0)["group"].nunique() == 2
    assert thin(rows, patients=3, images=7, seed=0).equals(rows)


def test_the_anatomy_is_taken_out_and_the_shift_stays() -> None:
    rng = np.random.default_rng(0)
    anatomy = pd.Series(rng.choice(["a", "b"], 200))
    current = np.arange(200) >= 120
    values = pd.DataFrame({"x": rng.normal(anatomy.map({"a": 0.0, "b": 50.0}) + 3 * current, 1)})
    adjusted = adjust_for_anatomy(values, anatomy, current)["x"]
    assert adjusted[~current].std() < 2
    assert adjusted[current].mean() - adjusted[~current].mean() == pytest.approx(3, abs=0.4)
    assert adjusted.median() == pytest.approx(values["x"].median(), abs=1)


def test_an_anatomy_of_one_side_only_stays_where_it_is() -> None:
    anatomy = pd.Series(["a", "a", "a", "b"])
    values = pd.DataFrame({"x": [1.0, 2.0, 3.0, 90.0]}, index=[4, 5, 6, 7])
    anatomy.index = values.index
    adjusted = adjust_for_anatomy(values, anatomy, np.array([False, True, True, True]))
    assert adjusted["x"].tolist() == [1.5, 2.5, 3.5, 90.0]

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from arl.commands.embed import embed
from arl.corpus.anatomy import anatomy_index
from arl.loading.transforms import MEAN, STD
from arl.training.checkpoint import load_encoder


def write_pictures(folder: Path) -> list[Path]:
    files = [folder / "a.png", folder / "b.jpg"]
    for seed, file in enumerate(files):
        noise = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
        image = cv2.GaussianBlur(noise, (0, 0), 1.5)
        cv2.imwrite(str(file), image)
    return files


def test_features_of_files_are_the_encoders(released: Any, tmp_path: Path) -> None:
    files = write_pictures(tmp_path)
    for pooling in ("gap", "cls"):
        embed(
            files,
            checkpoint=released.checkpoint,
            out=tmp_path / "f.parquet",
            anatomy="thyroid",
            pooling=pooling,
        )
        table = pd.read_parquet(tmp_path / "f.parquet")
        assert table["file"].tolist() == ["a.png", "b.jpg"]
        encoder, _ = load_encoder(released.checkpoint)
        image = cv2.imread(str(files[0]), cv2.IMREAD_GRAYSCALE)
        x = (torch.from_numpy(image).float().div(255)[None, None] - MEAN) / STD
        with torch.no_grad():
            tokens = encoder.eval()(x, torch.tensor([anatomy_index("thyroid")]))[0]
        expected = tokens[0] if pooling == "cls" else tokens[1:].mean(0)
        np.testing.assert_allclose(np.stack(table["features"])[0], expected, rtol=1e-4, atol=1e-5)


def test_a_corpus_is_embedded_by_its_ids(released: Any, tiny_corpus: Path, tmp_path: Path) -> None:
    embed([], checkpoint=released.checkpoint, corpus=tiny_corpus, out=tmp_path / "f.parquet")
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert len(table) == table["id"].nunique() == 60
    assert len(table["features"].iloc[0]) == 24


def test_wrong_words_are_refused(released: Any, tiny_corpus: Path, tmp_path: Path) -> None:
    files = write_pictures(tmp_path)
    where = {"checkpoint": released.checkpoint, "out": tmp_path / "f.parquet"}
    with pytest.raises(ValueError, match="name files, or a --corpus"):
        embed([], **where)
    with pytest.raises(ValueError, match="name files, or a --corpus"):
        embed(files, corpus=tiny_corpus, **where)
    with pytest.raises(ValueError, match="unknown anatomy 'spleen'"):
        embed(files, anatomy="spleen", **where)
    with pytest.raises(ValueError, match=r"none\.png cannot be used: it is missing"):
        embed([tmp_path / "none.png"], **where)
    assert not (tmp_path / "f.parquet").exists()

"""What the tests of readers share: real little videos and pictures, and the way into a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_reader import read_images, read_masks
from arl.corpus.shard_writer import BatchWriter
from arl.corpus.splits import read_split
from arl.files import read_json
from arl.ingest.batches import write_inputs


@dataclass(frozen=True)
class Ingested:
    """A batch that a reader's inputs ended in."""

    corpus: Path
    rows: pd.DataFrame
    refused: dict[str, str]  # input -> reason
    about: dict[str, Any]


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., Ingested]:
    """Read a root and write its inputs into a batch; every input ends as one or the other."""

    def ingest_(module: ModuleType, root: Path, **options: Any) -> Ingested:
        inputs = module.read(root, **options)
        corpus = tmp_path / "data"
        with BatchWriter(
            corpus,
            "source",
            "0000",
            512,
            origin=BatchOrigin(licence="", citation=""),
        ) as writer:
            write_inputs(inputs, writer)
        refused = manifest.read_quarantine(corpus)
        about = read_json(corpus / "source/0000/batch.json")
        assert about["accepted"] + about["refused"] == about["num_inputs"] == len(inputs)
        assert len(refused) == about["refused"]
        return Ingested(
            corpus, manifest.read_manifest(corpus), dict(refused[["input", "reason"]].values), about
        )

    return ingest_


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """Write a grey video whose frame k has the level 20 + 10 k, and return its path."""

    def make(
        file: Path, frames: int = 5, height: int = 48, width: int = 64, codec: str = "MJPG"
    ) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(
            str(file), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, (width, height)
        )
        assert writer.isOpened()
        for number in range(frames):
            picture = np.full((height, width, 3), 20 + 10 * number, np.uint8)
            picture[: height // 4, : width // 4] = 200  # top left
            writer.write(picture)
        writer.release()
        return file

    return make


@dataclass(frozen=True)
class Batch:
    """A batch under the source's own name, read back by its keys."""

    corpus: Path
    rows: pd.DataFrame
    refused: dict[str, str]  # input -> reason
    num_inputs: int

    def ids(self) -> list[str]:
        return [identifier.partition(":")[2] for identifier in self.rows["id"]]

    def column(self, name: str) -> dict[str, object]:
        """Key -> value, None for null."""
        values = [None if pd.isna(value) else value for value in self.rows[name]]
        return dict(zip(self.ids(), values, strict=True))

    def image(self, key: str, channels: int = 1) -> np.ndarray:
        return read_images(
            self.corpus, self.rows[self.rows["id"].str.endswith(f":{key}")], channels
        )[0]

    def mask(self, key: str) -> np.ndarray | None:
        return read_masks(self.corpus, self.rows[self.rows["id"].str.endswith(f":{key}")])[0]

    def split(self, protocol: str) -> dict[str, str]:
        source = self.rows["source"].iloc[0]
        return dict(
            zip(self.ids(), read_split(self.corpus, self.rows, {source: protocol}), strict=True)
        )


@pytest.fixture
def batch_of(tmp_path: Path) -> Callable[..., Batch]:
    """`ingest` into a new corpus each time, with the reader's own name, licence and citation."""
    done = 0

    def read(reader: ModuleType, root: Path, workers: int = 0) -> Batch:
        nonlocal done
        done += 1
        corpus = tmp_path / f"corpus-{done}"
        source = reader.__name__.rpartition(".")[2].replace("_", "-")
        inputs = reader.read(root)
        with BatchWriter(
            corpus,
            source,
            "0000",
            512,
            origin=BatchOrigin(licence=reader.SOURCE.licence, citation=reader.SOURCE.citation),
        ) as writer:
            write_inputs(inputs, writer, workers)
        counts = read_json(corpus / source / "0000" / "batch.json")
        assert counts["accepted"] + counts["refused"] == counts["num_inputs"] == len(inputs)
        refused = manifest.read_quarantine(corpus)
        reasons = dict(zip(refused["input"], refused["reason"], strict=True))
        assert all(str(root) not in name + reason for name, reason in reasons.items())
        return Batch(corpus, manifest.read_manifest(corpus), reasons, len(inputs))

    return read


def _picture(seed: int, height: int = 37, width: int = 53, channels: int = 1) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _save(file: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, **options)
    return file


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Noise uint8 (H, W) or (H, W, C) of a seed."""
    return _picture


@pytest.fixture
def save() -> Callable[..., Path]:
    """Write pixels as a picture of the suffix's format, in a mode of Pillow if one is given."""
    return _save
